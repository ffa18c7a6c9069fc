"""Locks: whoever meets somebody else waits for them, and nobody waits in a circle."""

from collections.abc import Callable

import psycopg.errors
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from app.domain.tokens import Purpose
from app.store.persons import note_activity
from app.usecases import giving_way, runtime
from app.usecases.consent.preferences import change_preferences, correct_address
from app.usecases.consent.voices import Named, Voice
from app.usecases.deciding.decide import decide_intents
from app.usecases.hearing.feedback import read_feedback
from app.usecases.hearing.unsubscribing import unsubscribe
from app.usecases.operating.control import Operator, Target, cancel
from app.usecases.people.correcting import AddressChange
from app.usecases.people.customers import put_customers
from app.usecases.people.erasing import erase
from tests.store.conftest import House, customer, intent
from tests.store.interleaving import side_by_side
from tests.store.test_feedback_reports import answer, came, report
from tests.store.test_opting import OTHER, PHONE, send, texting, texts

__all__ = ["texting", "texts"]

IN_PERSON = Voice("preferences", own=True, actor="customer")


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy of what is declared grows old meanwhile: reading it takes no lock."""
    monkeypatch.setattr(runtime, "CATALOG_FRESH_S", 3600.0)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is saved by a second try."""
    monkeypatch.setattr(giving_way, "TRIES", 1)


def ada(house: House) -> Named:
    return Named(house.runtime.catalog().brands["demo"].id, "ada")


def endpoint_id(house: House, channel: str) -> int:
    [row] = house.rows("SELECT id FROM endpoints WHERE channel = :c", c=channel)
    return int(row.id)


@pytest.mark.usefixtures("once")
def test_two_chunks_that_change_and_address_each_others_customers(
    house: House, database_url: str
) -> None:
    house.accept(intent(customer("a")), intent(customer("b")))

    def one() -> None:
        house.accept(intent(customer("a", name="A")), intent("b"))

    def two() -> None:
        house.accept(intent(customer("b", name="B")), intent("a"))

    with side_by_side(house.runtime.engine, database_url, one=one, two=two) as both:
        both.go("one", "INSERT INTO intents")
        both.go("two", "INSERT INTO intents")
        both.finish()
    assert house.rows("SELECT count(*) FROM intents")[0].count == 6


@pytest.mark.usefixtures("once", "texts")
def test_what_people_write_beside_a_chunk_that_changes_them(
    texting: House, database_url: str
) -> None:
    house = texting
    came(house, answer("IN1", words="hello you"))
    came(house, answer("IN2", OTHER, "STOP"))

    def chunk() -> None:
        house.accept(intent(customer("ada", name="X", phone=PHONE), policy="sms-only"))

    def read() -> None:
        read_feedback(house.runtime)

    with side_by_side(house.runtime.engine, database_url, read=read, chunk=chunk) as both:
        both.go("chunk", "WITH known AS")
        both.go("read", "INSERT INTO inbound_messages")
        both.go("read", "FOR NO KEY UPDATE")
        both.finish()
    assert house.rows("SELECT FROM customers WHERE name = 'X'")
    assert house.rows("SELECT FROM suppressions")


@pytest.mark.usefixtures("once", "texts")
def test_a_bounce_beside_a_correction_of_the_address(texting: House, database_url: str) -> None:
    house = texting
    came(house, report("SM1", "undelivered", "30005"))
    change = AddressChange(endpoint_id(house, "sms"), OTHER)

    def correct() -> None:
        correct_address(house.runtime, ada(house), change, IN_PERSON)

    def read() -> None:
        read_feedback(house.runtime)

    with side_by_side(house.runtime.engine, database_url, bounce=read, correct=correct) as both:
        both.go("bounce", "UPDATE endpoints")
        both.go("correct", "WITH mine AS MATERIALIZED")
        both.finish()
    states = house.rows("SELECT address, state FROM endpoints WHERE channel = 'sms' ORDER BY id")
    assert [tuple(row) for row in states] == [(PHONE, "removed"), (OTHER, "active")]


def test_whose_activity_is_noted_are_locked_in_the_order_of_all(
    house: House, database_url: str
) -> None:
    for ref in ("b", "a"):
        house.accept(intent(customer(ref)))
    brand_id = ada(house).brand_id
    ids = [row.id for row in house.rows("SELECT id FROM customers ORDER BY id")]

    def change() -> None:
        put_customers(house.runtime, brand_id, [customer("a", name="A")])

    def note() -> None:
        rows = [{"customer_id": one, "channel": "email", "at": "2026-01-01T00:00Z"} for one in ids]
        with house.runtime.engine.begin() as connection:
            note_activity(connection, rows)

    with side_by_side(house.runtime.engine, database_url, change=change, note=note) as both:
        both.go("change", "COMMIT")
        assert not both.go("note"), "it waits for a"
        house.rows("SELECT FROM customers WHERE ref = 'b' FOR NO KEY UPDATE NOWAIT")
        both.finish()
    assert house.rows("SELECT FROM customers WHERE particular")


def undone(engine: Engine, part: str, times: int) -> Callable[[], int]:
    """Let statements with this part be undone as a deadlock's are; call the result to end it, and
    to know how often that has not come about."""
    left = [times]

    def undo(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if left[0] and part in " ".join(statement.split()):
            left[0] -= 1
            raise psycopg.errors.DeadlockDetected("deadlock detected")

    event.listen(engine, "before_cursor_execute", undo)

    def end() -> int:
        event.remove(engine, "before_cursor_execute", undo)
        return left[0]

    return end


def click(house: House) -> None:
    number = house.rows("SELECT min(id) AS id FROM deliveries")[0].id
    now = house.rows("SELECT now() AS now")[0].now
    unsubscribe(house.runtime, house.runtime.words.signer.sign(Purpose.UNSUBSCRIBE, number), now)


def decide_all(house: House) -> None:
    ids = [row.id for row in house.rows("SELECT id FROM intents")]
    assert decide_intents(house.runtime, ids) == {"wait": 1}


ACTS: dict[str, tuple[str, Callable[[House], object]]] = {
    "accept": ("INSERT INTO intents", lambda house: send(house, "bob", OTHER)),
    "decide": ("INSERT INTO decisions", decide_all),
    "feedback": ("INSERT INTO events", lambda house: read_feedback(house.runtime)),
    "preferences": (
        "INSERT INTO audit",
        lambda house: change_preferences(
            house.runtime, ada(house), {"marketing": False}, IN_PERSON
        ),
    ),
    "customers": (
        "INSERT INTO endpoints",
        lambda house: put_customers(
            house.runtime, ada(house).brand_id, [customer("ada", phone=OTHER)]
        ),
    ),
    "unsubscribe": ("INSERT INTO consents", click),
    "cancel": (
        "ended_at = now() WHERE id = ANY",
        lambda house: cancel(house.runtime, Target(sender="store"), Operator("tests", "a mistake")),
    ),
    "erase": ("DELETE FROM consents", lambda h: erase(h.runtime, ada(h).brand_id, "ada", "t")),
}


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("name", ACTS)
def test_what_was_undone_for_the_sake_of_others_is_done_again(texting: House, name: str) -> None:
    part, act = ACTS[name]
    came(texting, report("SM1", "delivered"))
    end = undone(texting.runtime.engine, part, 2)
    act(texting)
    assert end() == 0, "it was undone twice"


@pytest.mark.usefixtures("texts")
def test_who_gives_way_again_and_again_says_so(texting: House) -> None:
    end = undone(texting.runtime.engine, "INSERT INTO intents", 100)
    with pytest.raises(OperationalError):
        texting.accept(intent("ada", policy="sms-only"))
    end()
