"""A message counts once under a cap, however often it is tried: it never stands in its own way."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from app.limits.rate import Grant
from app.usecases.delivering import settling
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.operating.control import Operator, replay
from tests.store.conftest import House, intent
from tests.store.test_permission import ada, declare

__all__ = ["ada"]


@pytest.fixture
def once_a_day(ada: House) -> House:
    """Ada gets one message a day, of whatever kind."""
    ada.execute("DELETE FROM cap_counts")
    declare(ada, caps={"daily": {"most": 1, "within": 86_400.0}})
    return ada


def order(key: str = "order", **more: Any) -> dict[str, Any]:
    return intent(policy="email-only", key=key, **more)


def later(house: House) -> None:
    """The leases end, and all that waits for a while is due."""
    house.execute("UPDATE deliveries SET due_at = now() WHERE due_at IS NOT NULL")


def counted(house: House) -> int:
    """Of all slots: one may end while a test runs."""
    rows = house.rows("SELECT n FROM cap_counts WHERE cap = 'daily'")
    return sum(row.n for row in rows)


def dies(batch: Any, deadline: float) -> Any:
    raise KeyboardInterrupt


def test_what_a_lost_worker_had_in_hand_goes_out(once_a_day: House) -> None:
    once_a_day.accept(order())
    once_a_day.tick()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(once_a_day.runtime.accounts["relay"].provider, "send", dies)
        with pytest.raises(KeyboardInterrupt):
            once_a_day.work()
    once_a_day.hints.deliveries.clear()
    for _ in range(2):  # the lease ends, and whoever had it is heard out
        later(once_a_day)
        once_a_day.tick()
    assert once_a_day.run() == {"sent": 1}
    assert counted(once_a_day) == 1


@pytest.mark.parametrize("when_blocked", ["hold", "next", "drop"])
def test_what_left_without_an_answer_is_sent_again(once_a_day: House, when_blocked: str) -> None:
    once_a_day.sink.faults.drop_before_ack_every = 1
    once_a_day.accept(order(when_blocked=when_blocked))
    assert once_a_day.run() == {"unknown": 1}
    once_a_day.sink.faults.drop_before_ack_every = 0
    later(once_a_day)
    once_a_day.tick()
    assert once_a_day.run() == {"sent": 1}
    assert counted(once_a_day) == 1
    once_a_day.accept(order("second"))
    once_a_day.run()
    assert len(once_a_day.sink.messages) == 2, "the copy of the first, and nothing else"


def test_a_try_in_doubt_and_one_refused_for_now_leave_one_count(once_a_day: House) -> None:
    once_a_day.sink.faults.drop_before_ack_every = 1
    once_a_day.accept(order())
    once_a_day.run()
    once_a_day.sink.faults.drop_before_ack_every = 0
    once_a_day.sink.faults.refuse = {"ada@example.com": "451 4.3.0 try later"}
    later(once_a_day)
    once_a_day.tick()
    assert once_a_day.run() == {"retry": 1}
    assert counted(once_a_day) == 1, "the first may have arrived"


def test_a_settlement_whose_commit_went_unanswered_gives_back_once(
    ada: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "AGAIN_S", 0.01)
    ada.execute("DELETE FROM cap_counts")
    declare(ada, caps={"daily": {"most": 5, "within": 86_400.0}})
    ada.accept(order("one"), order("two"))
    ada.run()
    ada.sink.faults.refuse = {"ada@example.com": "451 4.3.0 try later"}
    ada.accept(order("three"))
    ada.tick()
    dialect, lost = ada.runtime.engine.dialect, iter(range(1))
    commit, settles = dialect.do_commit, []

    def settling_now(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO attempts" in statement:
            settles.append(statement)

    def unanswered(connection: Any) -> None:
        commit(connection)
        if settles and next(lost, None) is not None:
            raise psycopg.OperationalError("the answer to COMMIT was lost")

    event.listen(ada.runtime.engine, "before_cursor_execute", settling_now)
    monkeypatch.setattr(dialect, "do_commit", unanswered)
    assert ada.work() == {"retry": 1}
    assert len(settles) == 2, "it was asked again"
    assert counted(ada) == 2


def test_a_late_refusal_for_now_gives_back_what_is_counted_anew(once_a_day: House) -> None:
    once_a_day.sink.faults.refuse = {"ada@example.com": "451 4.3.0 try later"}
    once_a_day.accept(order())
    once_a_day.tick()
    relay = once_a_day.runtime.accounts["relay"].provider
    send = relay.send

    def slow(batch: Any, deadline: float) -> Any:
        outcomes = send(batch, deadline)
        for _ in range(3):  # its lease ends, and it waits for its next try
            later(once_a_day)
            once_a_day.tick()
        return outcomes

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(relay, "send", slow)
        [(_, _, account, ids)] = once_a_day.hints.deliveries
        once_a_day.hints.deliveries.clear()
        deliver(once_a_day.runtime, account, ids, Hand())
    assert counted(once_a_day) == 0
    once_a_day.sink.faults.refuse = {}
    assert once_a_day.work()["sent"] == 1
    assert counted(once_a_day) == 1


def test_what_waited_for_a_permit_past_its_lease_stays_counted(
    once_a_day: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger does not know that nothing was tried, and its next try does not count again."""
    once_a_day.accept(order())
    once_a_day.tick()

    def no_room(*_: Any) -> Grant:
        later(once_a_day)
        once_a_day.tick()
        return Grant((), retry_after_s=0.1)

    with monkeypatch.context() as patched:
        patched.setattr(once_a_day.runtime.limits, "reserve", no_room)
        [(_, _, account, ids)] = once_a_day.hints.deliveries
        once_a_day.hints.deliveries.clear()
        deliver(once_a_day.runtime, account, ids, Hand())
    later(once_a_day)
    once_a_day.tick()
    assert once_a_day.run() == {"sent": 1}
    assert counted(once_a_day) == 1


def test_what_is_replayed_after_a_try_in_doubt_goes_out(once_a_day: House) -> None:
    once_a_day.sink.faults.drop_before_ack_every = 1
    once_a_day.accept(order())
    once_a_day.run()
    once_a_day.sink.faults.drop_before_ack_every = 0
    once_a_day.execute("UPDATE deliveries SET state = 'failed' WHERE state = 'unknown'")
    [row] = once_a_day.rows("SELECT id FROM deliveries WHERE state = 'failed'")
    replay(once_a_day.runtime, [row.id], Operator("tests", "they may have it"))
    assert once_a_day.run() == {"sent": 1}
    assert counted(once_a_day) == 1
