"""The fleet's rows: a process says that it is there, hears its orders, and ends."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from app.observe.tally import Tally
from app.store.fleet import forget_unseen
from app.usecases.operating.backlog import queue_state
from app.usecases.operating.control import Operator
from app.usecases.operating.fleet import Member, Orders, Pulse, UnknownWorker, beat, drain, workers
from tests.store.conftest import House

OPERATOR = Operator("grace", "a new kernel")


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states(house: House) -> dict[str, str]:
    return {row.name: row.state for row in house.rows("SELECT name, state FROM workers")}


def test_a_beat_says_who_is_there_and_hears_what_is_asked(house: House) -> None:
    house = replace(house, runtime=replace(house.runtime, tally=Tally()))
    member = Member("email-1@north", ("email.normal", "email.bulk"))
    house.runtime.tally.add("converge_hints_repeated_total")
    assert beat(house.runtime, member) == Orders(drain=False)
    [one] = workers(house.runtime)
    assert (one.name, list(one.queues), one.state) == (member.name, list(member.queues), "running")
    assert house.rows("SELECT sum(value) FROM tallies")[0][0] == 1
    assert [each.name for each in drain(house.runtime, "email-1", OPERATOR)] == [member.name]
    assert beat(house.runtime, member, "draining") == Orders(drain=True)
    drain(house.runtime, "@north", OPERATOR, undo=True)
    assert beat(house.runtime, member) == Orders(drain=False)
    actions = house.rows("SELECT action, reason FROM audit WHERE action <> 'apply' ORDER BY id")
    assert [row.action for row in actions] == ["drain", "undo_drain"]


def test_one_that_is_started_again_is_another_though_its_name_be_the_same(house: House) -> None:
    before = Member("email-1@north", ("email.normal",))
    beat(house.runtime, before)
    drain(house.runtime, None, OPERATOR)
    after = Member("email-1@north", ("email.normal",))
    assert beat(house.runtime, after) == Orders(drain=False)
    [one] = workers(house.runtime)
    assert one.id == after.id
    beat(house.runtime, after, "stopped")
    house.execute("UPDATE workers SET seen_at = seen_at - interval '11 seconds'")
    assert workers(house.runtime) == []
    with pytest.raises(UnknownWorker, match="none"):
        drain(house.runtime, "email-1", OPERATOR)


def test_two_of_one_name_side_by_side_are_two(house: House) -> None:
    """An old release and a new one on one host, as a deploy without containers has them."""
    old, new = (Member("email-1@north", ("email.normal",)) for _ in range(2))
    beat(house.runtime, old)
    beat(house.runtime, new)
    beat(house.runtime, old)
    assert {one.id for one in workers(house.runtime)} == {old.id, new.id}
    assert queue_state(house.runtime)["consumers"]["email.normal"] == 2
    for named in ("email-1", "email-1@north"):
        assert {one.id for one in drain(house.runtime, named, OPERATOR)} == {old.id, new.id}
    assert beat(house.runtime, old) == beat(house.runtime, new) == Orders(drain=True)
    beat(house.runtime, old, "stopped")
    assert [one.id for one in workers(house.runtime)] == [new.id]


def test_who_was_not_heard_of_for_a_day_is_forgotten(house: House) -> None:
    beat(house.runtime, Member("old@north", ("control",)))
    house.execute("UPDATE workers SET seen_at = now() - interval '25 hours'")
    beat(house.runtime, Member("new@north", ("control",)))
    with house.runtime.engine.begin() as connection:
        assert forget_unseen(connection, 86_400) == 1
    assert states(house) == {"new@north": "running"}


def test_a_pulse_outlasts_a_ledger_that_is_away_and_tells_it_once(house: House) -> None:
    heard: list[Orders] = []
    pulse = Pulse(house.runtime, Member("email-1@north"), obey=heard.append)
    with capture_logs() as logs:
        pulse.start()
        wait(lambda: heard)
        house.execute("ALTER TABLE workers RENAME TO away")
        wait(lambda: any(one["event"] == "pulse_lost" for one in logs))
        seen = len(heard)
        house.execute("ALTER TABLE away RENAME TO workers")
        wait(lambda: len(heard) > seen)
        pulse.stop()
    assert [one["event"] for one in logs] == ["pulse_lost", "pulse_back"]
    wait(lambda: states(house) == {"email-1@north": "stopped"})  # its end waits for no slow ledger
