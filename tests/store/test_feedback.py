"""Feedback: what comes in is read once, and what cannot be read holds up nothing else."""

from datetime import datetime
from typing import Any

import orjson
import pytest
from sqlalchemy.exc import OperationalError

from app.channels.contract import Accepted
from app.store import events
from app.store.inbox import Arrival, keep_arrivals
from app.usecases.hearing import reading
from app.usecases.hearing.feedback import read_feedback, read_these
from tests.store.conftest import House, customer, intent


def receive(house: House, account: str, ref: str, at: str = "2026-01-01T00:00:00Z") -> None:
    receipt = {"id": f"fact-{ref}", "ref": ref, "event": "delivered", "at": at}
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival(account, f"fact-{ref}", orjson.dumps(receipt))])


@pytest.fixture
def texted(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house that has sent one text, of which a receipt will come."""
    texts = house.runtime.accounts["texts"].provider
    monkeypatch.setattr(texts, "send", lambda _batch, _deadline: [Accepted("ref-1")])
    house.accept(intent(customer(email=None, phone="+12025550101")))
    house.run()
    return house


def test_a_body_that_breaks_its_reader_holds_up_no_other(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texted.runtime.accounts["texts"].provider
    read = texts.read  # type: ignore[attr-defined]

    def broken(request: Any) -> Any:
        if b"ref-0" in request.body:
            raise KeyError("+12025550101")
        return read(request)

    monkeypatch.setattr(texts, "read", broken)
    receive(texted, "texts", "ref-0")
    receive(texted, "texts", "ref-1")
    assert read_feedback(texted.runtime) == {"delivered": 1, "unread": 1}
    [kept] = texted.rows("SELECT due_at, problem FROM inbox WHERE problem IS NOT NULL")
    assert tuple(kept) == (None, "reading it failed")


def test_a_receipt_of_an_account_unknown_here_waits_for_who_knows_it(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is not due again while the test runs.
    monkeypatch.setattr(reading, "_pause_s", lambda _tries, _cap_s: 3_600.0)
    receive(texted, "elsewhere", "ref-9")
    assert read_feedback(texted.runtime) == {"unread": 1}
    [kept] = texted.rows("SELECT due_at > now() AS waits FROM inbox")
    assert kept.waits


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        ("2026-01-01T00:00:00+18:58", "2025-12-31T05:02:00+00:00"),  # Postgres takes no such offset
        ("9999-12-31T23:59:59-15:00", None),  # nor can what is later be read back
        ("9999-12-31T23:59:59+00:00", None),
    ],
)
def test_a_time_is_one_that_the_ledger_keeps_and_not_in_the_future(
    texted: House, at: str, kept: str | None
) -> None:
    receive(texted, "texts", "ref-1", at)
    assert read_feedback(texted.runtime) == {"delivered": 1}
    [event] = texted.rows("SELECT e.at, i.received_at FROM events e, inbox i")
    assert event.at == (datetime.fromisoformat(kept) if kept else event.received_at)


def test_a_time_before_all_times_cannot_be_read(texted: House) -> None:
    receive(texted, "texts", "ref-0", "0001-01-01T00:00:00+01:00")
    receive(texted, "texts", "ref-1")
    assert read_feedback(texted.runtime) == {"delivered": 1, "unread": 1}
    [kept] = texted.rows("SELECT due_at, problem FROM inbox WHERE problem IS NOT NULL")
    assert tuple(kept) == (None, "a time that is none")


POISON = "ALTER TABLE events ADD CONSTRAINT not_this CHECK (external_id <> 'fact-poison')"


def poisoned(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three receipts for three texts; the ledger does not take that of the middle one."""
    refs = iter(["ref-2", "poison", "ref-3"])
    texts = house.runtime.accounts["texts"].provider
    monkeypatch.setattr(texts, "send", lambda batch, _: [Accepted(next(refs)) for _ in batch])
    for number in range(3):
        phone = f"+1202555011{number}"
        house.accept(intent(customer(f"bob-{number}", email=None, phone=phone)))
    house.run()
    house.execute(POISON)
    for ref in ("ref-2", "poison", "ref-3"):
        receive(house, "texts", ref)


def test_what_the_ledger_does_not_take_holds_up_no_other(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(texted, monkeypatch)
    assert read_feedback(texted.runtime) == {"delivered": 2, "unread": 1}
    [kept] = texted.rows("SELECT external_id, due_at, problem FROM inbox WHERE body <> ''")
    assert tuple(kept) == ("fact-poison", None, "the ledger does not take it")
    assert read_feedback(texted.runtime) == {}


def test_what_the_ledger_does_not_take_keeps_no_erasure_from_its_end(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(texted, monkeypatch)
    ids = [row.id for row in texted.rows("SELECT id FROM inbox")]
    read_these(texted.runtime, ids)
    left = texted.rows("SELECT external_id, due_at FROM inbox WHERE problem IS NOT NULL")
    assert [tuple(row) for row in left] == [("fact-poison", None)]


def test_while_the_ledger_is_away_nothing_counts_as_unreadable(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("INSERT", None, Exception("gone"))

    receive(texted, "texts", "ref-1")
    with monkeypatch.context() as patched:
        patched.setattr(events, "insert_events", away)
        with pytest.raises(OperationalError):
            read_feedback(texted.runtime)
    assert texted.rows("SELECT FROM inbox WHERE problem IS NOT NULL") == []
    assert read_feedback(texted.runtime) == {"delivered": 1}
