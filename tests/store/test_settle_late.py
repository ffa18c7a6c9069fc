"""A worker that settles late, or after the customer was faster, still says what happened."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from app.channels.contract import Accepted, Outcome
from app.store.inbox import TRACKING, Arrival, keep_arrivals
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.control import Operator, replay
from tests.store.conftest import House, customer, intent


class Meanwhile:
    """A worker in whose `send` something else happens before it settles."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self._house = house
        self._relay = house.runtime.accounts["relay"].provider
        self._monkeypatch = monkeypatch

    def __call__(self, happens: Any, outcome: Outcome | None = None) -> dict[str, int]:
        send = self._relay.send

        def sent(batch: Any, deadline: float) -> Any:
            outcomes = [outcome for _ in batch] if outcome else send(batch, deadline)
            happens()
            return outcomes

        with self._monkeypatch.context() as patched:
            patched.setattr(self._relay, "send", sent)
            [(_, _, account, ids)] = self._house.hints.deliveries
            self._house.hints.deliveries.clear()
            return deliver(self._house.runtime, account, ids, Hand(uuid4()))


@pytest.fixture
def meanwhile(house: House, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    house.accept(intent(customer()))
    house.tick()
    return Meanwhile(house, monkeypatch)


def lose_the_lease(house: House, ticks: int) -> None:
    for _ in range(ticks):
        house.execute("UPDATE deliveries SET due_at = now()")
        house.tick()


@pytest.mark.parametrize("ticks", [1, 2, 3], ids=["unknown", "planned", "queued"])
def test_proof_is_never_thrown_away(house: House, meanwhile: Meanwhile, ticks: int) -> None:
    assert meanwhile(lambda: lose_the_lease(house, ticks)) == {"sent": 1}
    assert house.states() == {"sent": 1}
    house.run()
    assert len(house.sink.messages) == 1
    assert house.rows("SELECT attempts FROM deliveries")[0].attempts == 1


def test_whoever_lost_a_lease_is_heard_out_before_anybody_tries_again(
    house: House, meanwhile: Meanwhile
) -> None:
    """As after an outage of the ledger: the dispatcher may be the first to come back."""

    def outage() -> None:
        lose_the_lease(house, 1)
        for _ in range(3):
            house.tick()
        assert house.states() == {"unknown": 1}
        assert house.hints.deliveries == []

    assert meanwhile(outage) == {"sent": 1}
    house.run()
    assert len(house.sink.messages) == 1


def test_a_late_refusal_is_believed_as_well(house: House, meanwhile: Meanwhile) -> None:
    house.sink.faults.refuse = {"ada@example.com": "550 5.1.1 no such user"}
    assert meanwhile(lambda: lose_the_lease(house, 3)) == {"rejected": 1}
    assert house.states() == {"failed": 1}


def test_proof_is_believed_though_the_message_was_given_up(
    house: House, meanwhile: Meanwhile
) -> None:
    """It is not in the list of what failed then, and nobody replays what has arrived."""

    def given_up() -> None:
        house.execute("UPDATE intents SET kind = 'marketing'")  # in doubt it is not sent again
        lose_the_lease(house, 2)
        assert house.states() == {"failed": 1}

    assert meanwhile(given_up) == {"sent": 1}
    [row] = house.rows("SELECT id, state, reason, handed_over_at FROM deliveries")
    assert (row.state, row.reason) == ("sent", None)
    assert row.handed_over_at is not None
    assert replay(house.runtime, [row.id], Operator("tests", "it had failed")) == []


def test_a_refusal_is_not_undone_by_proof_of_an_older_try(
    house: House, meanwhile: Meanwhile
) -> None:
    def refused() -> None:
        house.execute("UPDATE deliveries SET state = 'failed', reason = 'smtp_550'")

    meanwhile(refused)
    assert house.states() == {"failed": 1}


def test_a_late_busy_changes_nothing(house: House, meanwhile: Meanwhile) -> None:
    """It is to be tried again anyway, and at once."""
    house.sink.faults.refuse = {"ada@example.com": "451 4.3.0 busy"}
    meanwhile(lambda: lose_the_lease(house, 3))
    assert house.states() == {"queued": 1}


def test_what_was_opened_before_it_was_settled_keeps_its_reference(
    house: House, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no receipt, such as a later bounce, would find it."""
    relay = house.runtime.accounts["relay"].provider
    monkeypatch.setattr(type(relay), "traits", replace(relay.traits, receipts=True))
    [row] = house.rows("SELECT id FROM deliveries")

    def opened() -> None:
        body = {"delivery": row.id, "event": "opened", "index": 0, "agent": "Googlebot"}
        body |= {"ip": "127.0.0.1", "method": "GET"}
        with house.runtime.engine.begin() as connection:
            keep_arrivals(connection, [Arrival(TRACKING, uuid4().hex, orjson.dumps(body))])
        read_feedback(house.runtime)

    meanwhile(opened, Accepted("ref-1"))
    [row] = house.rows("SELECT state, provider_ref, attempts FROM deliveries")
    assert tuple(row) == ("delivered", "ref-1", 1)
