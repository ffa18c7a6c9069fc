"""Many customers of one address: a family's number, a company's, a placeholder of an import."""

from sqlalchemy import text

from app.domain.consent import Scope
from app.domain.vocabulary import Channel
from app.store.customers import upsert_customers
from app.usecases.people.addresses import customer_row, merge_rows
from app.usecases.people.customers import put_customers
from tests.store.conftest import House, customer
from tests.store.test_permission import says
from tests.store.test_plans import plans

CHUNK = 500
NUMBERS = 20


def put(house: House, *documents: dict[str, object]) -> None:
    brand_id = house.runtime.catalog().brands["demo"].id
    verdicts = put_customers(house.runtime, brand_id, documents)
    assert {one.status for one in verdicts} == {"kept"}


def sharing(first: int, many: int) -> list[dict[str, object]]:
    """Customers, of whom each number has a hundred and fifty and more."""
    return [
        customer(f"c{n}", phone=f"+4930901820{n % NUMBERS:02}") for n in range(first, first + many)
    ]


def rows_read(house: House) -> int:
    """How many rows statements have read so far; sessions tell of it when they end."""
    house.runtime.engine.dispose()
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> :me"
    with house.runtime.engine.connect() as connection:
        me = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        while connection.execute(text(others), {"me": me}).first() is not None:
            connection.rollback()
        read = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))"
        return int(connection.execute(text(f"{read} FROM pg_stat_user_tables")).scalar_one())


def test_each_who_comes_is_compared_once_with_each_who_is_there(house: House) -> None:
    """By rows read. It was each with each before: a chunk took longer than a statement may."""
    before = rows_read(house)
    for first in (*range(0, 3_000, CHUNK), 0):
        put(house, *sharing(first, CHUNK))
        after = rows_read(house)
        holders = min(first + CHUNK, 3_000) / NUMBERS
        assert after - before < 6 * CHUNK * holders
        before = after


def test_only_those_of_whom_it_changes_something_are_written(house: House) -> None:
    number = "+493090182000"
    put(house, *(customer(ref, phone=number) for ref in ("ada", "bob", "cyd")))
    says(house, True, Scope(channel=Channel.SMS), "bob")
    house.execute("""
        UPDATE endpoints e SET verified_at = now() FROM customers c
         WHERE c.id = e.customer_id AND c.ref = 'cyd' AND e.channel = 'sms'""")
    versions = """
        SELECT c.ref, e.xmin::text AS version FROM endpoints e JOIN customers c
            ON c.id = e.customer_id WHERE e.channel = 'sms' AND c.ref <> 'dan'"""
    before = dict(map(tuple, house.rows(versions)))
    put(house, customer("dan", phone=number))
    after = dict(map(tuple, house.rows(versions)))
    assert {ref for ref in before if before[ref] != after[ref]} == {"bob", "cyd"}
    [row] = house.rows("SELECT count(*) FROM endpoints WHERE verified_at IS NOT NULL")
    assert row.count == 0


def test_no_estimate_makes_it_compare_everyone_with_everyone(house: House) -> None:
    put(house, *sharing(0, 50))
    brand_id = house.runtime.catalog().brands["demo"].id
    rows = merge_rows([customer_row(one, None, "") for one in sharing(25, 50)])
    found = plans(house, lambda asking: upsert_customers(asking, brand_id, rows))
    [plan] = [plan for plan in found if "CTE wanted" in plan]
    assert "Anti Join" not in plan.split("CTE lost")[1]
    assert plan.count("hashed SubPlan") >= 2
