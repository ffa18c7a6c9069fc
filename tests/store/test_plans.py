"""What Postgres does for our statements when its statistics are older than the rows."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, event

from app.domain.settlement import ALONE_AFTER_LOSSES
from app.store import cancelling, deliveries, intents, lanes, reports
from tests.store.conftest import House, customer, intent


def plans(house: House, act: Callable[[Connection], object], options: str = "COSTS") -> list[str]:
    """How Postgres does what `act` asks of it, with tables that are too long to be read whole."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with house.runtime.engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", note)
        act(connection)
        event.remove(connection, "before_cursor_execute", note)
        connection.rollback()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return [
            "\n".join(
                row[0]
                for row in connection.exec_driver_sql(
                    f"EXPLAIN ({options}) {statement}", parameters
                )
            )
            for statement, parameters in asked
            if not statement.startswith("SET ")
        ]


def test_a_claim_reads_its_own_rows_alone(house: House) -> None:
    """Its price must not grow with what else is queued, however few that seemed a moment ago."""
    house.execute("ANALYZE deliveries")
    house.accept(*(intent(customer(f"c{number}")) for number in range(50)))
    house.tick()
    ids = [row.id for row in house.rows("SELECT id FROM deliveries WHERE state = 'queued'")]

    def claim(connection: Connection) -> None:
        # One that is not there: then is looked for what can be claimed no more.
        deliveries.claim(connection, [*ids[:20], 0], "relay", uuid4(), 60.0)

    found = plans(house, claim)
    assert len(found) == 2
    for plan in found:
        assert "deliveries_pkey" in plan
        assert "deliveries_queued" not in plan
        assert "Seq Scan on deliveries" not in plan


def test_a_campaign_is_found_among_all_that_is_open(house: House) -> None:
    """One statement must not walk over all others until it has found the few."""
    marks = {"sender_id": None, "channel": None, "account": None, "campaign": "spring"}

    def cancel(connection: Connection) -> None:
        for brand_id in (1, None):
            list(cancelling.intents_to_end(connection, 100, brand_id=brand_id, **marks))  # type: ignore[arg-type]

    def look(connection: Connection) -> None:
        reports.intents_of_brand(connection, 1, campaign="spring", limit=10)

    for plan in [*plans(house, cancel), *plans(house, look)]:
        assert "on intents_campaign" in plan or "using intents_campaign" in plan
        assert "Sort" not in plan


def test_suspects_are_found_by_the_index_of_their_own(house: House) -> None:
    """It holds those that have lost `ALONE_AFTER_LOSSES` workers, and the statement asks for them
    in the index's own words: were one of them another, all that is planned would be read."""
    [index] = house.rows("SELECT pg_get_indexdef('deliveries_suspects'::regclass) AS definition")
    assert f"losses >= {ALONE_AFTER_LOSSES}" in index.definition
    [plan] = plans(house, lambda asking: lanes.next_suspect(asking, "email", test=False))
    assert plan.count("deliveries_suspects") == 2, "those that wait, and whether one is out"
    assert "deliveries_planned" not in plan
    assert "Seq Scan on deliveries" not in plan


def test_a_look_at_what_waits_reads_no_more_than_it_may(house: House) -> None:
    """However many wait that cannot move: neither of them, nor of their intents."""
    house.accept(*(intent(customer(f"c{number}"), policy="email-only") for number in range(60)))
    house.execute("UPDATE deliveries SET due_at = now() - interval '1 hour' + id * interval '1 s'")
    house.execute("ANALYZE")
    [flow] = house.rows("SELECT sender_id, brand_id, campaign, test FROM deliveries LIMIT 1")

    def look(connection: Connection) -> None:
        found, _ = lanes.waiting_long(
            connection,
            "email",
            "normal",
            {lanes.Flow(*flow): None},
            able=["sms"],
            policies=[0],
            waited_s=30.0,
            limit=10,
        )
        assert found == []

    [plan] = plans(house, look, "ANALYZE, TIMING OFF, COSTS OFF")
    read = re.findall(r"on (deliveries|intents).*actual rows=(\d+)\S* loops=(\d+)", plan)
    assert {table for table, *_ in read} == {"deliveries", "intents"}
    for _, rows, loops in read:
        assert int(rows) * int(loops) <= 10
    assert "Removed by Filter" not in plan
    assert "deliveries_planned" in plan


def test_clocks_are_found_by_their_indexes(house: House) -> None:
    [plan] = plans(house, intents.any_to_decide)
    assert "using intents_decide" in plan
    assert "using deliveries_watched" in plan
    [plan] = plans(house, lambda asking: deliveries.take_watched(asking, 10, 30.0, undecided=True))
    assert "on deliveries_watched" in plan or "using deliveries_watched" in plan
    assert "Seq Scan on deliveries" not in plan
