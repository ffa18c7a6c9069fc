"""What Postgres does for our statements when its statistics are older than the rows."""

from uuid import uuid4

from app.store import deliveries
from tests.store.conftest import House, customer, intent


def test_a_claim_reads_its_own_rows_alone(house: House) -> None:
    """Its price must not grow with what else is queued, however few that seemed a moment ago."""
    house.execute("ANALYZE deliveries")
    house.accept(*(intent(customer(f"c{number}")) for number in range(50)))
    house.tick()
    ids = [row.id for row in house.rows("SELECT id FROM deliveries WHERE state = 'queued'")]
    parameters = {"ids": ids[:20], "account": "relay", "token": uuid4(), "lease": 60.0}
    for statement in (deliveries._CLAIM, deliveries._END_UNCLAIMABLE):
        plan = "\n".join(row[0] for row in house.rows("EXPLAIN " + statement, **parameters))
        assert "deliveries_queued" not in plan
