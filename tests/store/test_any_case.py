"""A mail address is one, in whatever letters it is written: what holds of it, holds of it."""

import pytest

from app.domain.consent import Scope
from app.store.events import find_by_address
from app.usecases.consent.preferences import change_preferences, read_preferences
from app.usecases.consent.statements import say_by_names
from app.usecases.consent.voices import Named, Voice
from app.usecases.people.customers import put_customers
from app.usecases.people.erasing import erase
from app.usecases.telling.inspect import why
from tests.store.conftest import House, intent
from tests.store.test_permission import says

OLD, SMALL, OTHERWISE = "Bo4@example.com", "bo4@example.com", "BO4@Example.COM"
BRAND = Voice("api", own=False, actor="key abc")


@pytest.fixture
def bo(house: House) -> Named:
    put(house, email=SMALL)
    return Named(house.runtime.catalog().brands["demo"].id, "bo4")


def put(house: House, ref: str = "bo4", **facts: object) -> None:
    brand_id = house.runtime.catalog().brands["demo"].id
    put_customers(house.runtime, brand_id, [{"ref": ref, **facts}])


def endpoints(house: House) -> list[tuple[str, str, str]]:
    rows = house.rows("""
        SELECT c.ref, e.address, e.state FROM endpoints e JOIN customers c ON c.id = e.customer_id
         ORDER BY e.id""")
    return list(map(tuple, rows))


def in_capitals(house: House) -> None:
    """As the ledger had addresses before they were written in small letters."""
    house.execute("UPDATE endpoints SET address = :old WHERE address = :new", old=OLD, new=SMALL)


def no_to_the_address(house: House) -> None:
    [row] = house.rows("SELECT id FROM endpoints WHERE channel = 'email'")
    says(house, False, Scope(endpoint_id=row.id), "bo4")


def sent(house: House, to: object) -> int:
    before = len(house.sink.messages)
    house.accept(intent(to, policy="email-only", key=f"k{before}{to}"))
    house.run()
    return len(house.sink.messages) - before


@pytest.mark.parametrize("kept", [SMALL, OLD])
def test_other_letters_are_the_same_address(house: House, bo: Named, kept: str) -> None:
    if kept == OLD:
        in_capitals(house)
    house.execute("UPDATE endpoints SET state = 'invalid', reason = 'bounced'")
    for written in (OTHERWISE, SMALL, [OLD, OTHERWISE]):
        put(house, email=written)
        assert endpoints(house) == [("bo4", kept, "invalid")]
    put(house, email=None)
    put(house, email=OTHERWISE)
    assert endpoints(house) == [("bo4", kept, "active")], "given anew, and still one"


@pytest.mark.parametrize("kept", [SMALL, OLD])
def test_a_no_is_not_lifted_by_other_letters(house: House, bo: Named, kept: str) -> None:
    no_to_the_address(house)
    if kept == OLD:
        in_capitals(house)
    assert sent(house, {"ref": "bo4", "email": OTHERWISE}) == 0
    assert sent(house, {"ref": "another", "email": OTHERWISE}) == 0, "nor as anybody else's"
    erase(house.runtime, bo.brand_id, "bo4", "test")
    erase(house.runtime, bo.brand_id, "another", "test")
    assert sent(house, {"ref": "a third", "email": OLD}) == 0


@pytest.mark.parametrize("kept", [SMALL, OLD])
def test_it_is_found_in_any_letters(house: House, bo: Named, kept: str) -> None:
    assert sent(house, "bo4") == 1
    if kept == OLD:
        in_capitals(house)
    for written in (OLD, SMALL, OTHERWISE):
        assert [one["ref"] for one in why(house.runtime, written)["customers"]] == ["bo4"]
        asked = [{"n": 0, "address": written, "latest": None}]
        account = house.rows("SELECT account FROM deliveries")[0].account
        with house.runtime.engine.begin() as connection:
            assert find_by_address(connection, account, asked, 60.0), "where mail bounces"
        scope = {"address": written, "kind": "marketing"}
        said = say_by_names(house.runtime, bo, {"scope": scope, "allow": False}, BRAND).kept
        assert said[0]["scope"]["address"]


@pytest.mark.parametrize("kept", [SMALL, OLD])
def test_typing_it_otherwise_corrects_nothing(house: House, bo: Named, kept: str) -> None:
    if kept == OLD:
        in_capitals(house)
    [one] = read_preferences(house.runtime, bo)["addresses"]
    for change in ({**one, "address": OTHERWISE}, {"channel": "email", "address": SMALL}):
        change_preferences(house.runtime, bo, {"addresses": [{**change, "verified": True}]}, BRAND)
        assert endpoints(house) == [("bo4", kept, "active")]
        [shown] = read_preferences(house.runtime, bo)["addresses"]
        assert shown["verified"]


def test_case_counts_elsewhere(house: House) -> None:
    for ref, handle in (("ada", "slack:U1a"), ("bob", "slack:U1A")):
        put(house, ref, chat=handle)
    [row] = house.rows("SELECT id FROM endpoints WHERE address = 'U1a'")
    says(house, False, Scope(endpoint_id=row.id), "ada")
    put(house, "cyd", chat="slack:U1A")
    assert house.rows("SELECT count(*) FROM consents")[0].count == 1
