"""Operator controls on real worker processes: each holds everywhere within two seconds."""

from datetime import datetime
from typing import Any

import pytest

from app.usecases.operating.backlog import queue_state
from app.usecases.operating.control import Operator, Target, cancel, pause, resume
from app.usecases.operating.fleet import drain, workers
from app.usecases.operating.limits import lift_limit, set_limit
from tests.workers.fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
OPERATOR = Operator("tests", "to see it hold")
WITHIN_S = 2.0
FAST, SLOW = 100.0, 0.01
MANY = 3_000


@pytest.fixture(scope="module")
def accounts() -> dict[str, dict[str, Any]]:
    return {"relay": {"rate": FAST}}


def arrived(fleet: Fleet, campaign: str) -> list[float]:
    """When each message of a campaign arrived, in order (Unix seconds)."""
    rows = fleet.rows("SELECT id FROM deliveries WHERE campaign = :c", c=campaign)
    mine = {row.id for row in rows}
    return [at for delivery, at in fleet.arrivals() if delivery in mine]


def moment(fleet: Fleet) -> float:
    return fleet.now().timestamp()


def let_pass(fleet: Fleet, seconds: float) -> None:
    """Wait for the ledger's clock: that nothing happens can be seen in no other way."""
    end = moment(fleet) + seconds
    fleet.wait(lambda: moment(fleet) >= end)


def let_hold(fleet: Fleet, campaign: str) -> float:
    """Wait until a control that was given just now holds; return when.

    That is when every process knows of it, and nothing is in hand from before: what had its slot
    then may leave late, where a worker waits for its turn on this machine.
    """
    let_pass(fleet, WITHIN_S)
    fleet.wait(lambda: not fleet.sending(campaign))
    return moment(fleet)


def states(fleet: Fleet) -> dict[str, str]:
    """The state of each worker by its name without the host."""
    return {one.name.partition("@")[0]: one.state for one in workers(fleet.runtime)}


def drained(fleet: Fleet, *names: str) -> bool:
    return all(states(fleet).get(name) == "drained" for name in names)


def test_a_pause_and_a_cancel_hold_on_every_worker_within_two_seconds(fleet: Fleet) -> None:
    fleet.enqueue("held", MANY, urgency="bulk")
    fleet.wait(lambda: len(arrived(fleet, "held")) > 20)
    pause(fleet.runtime, Target(campaign="held"), OPERATOR)
    before = held_from_now(fleet, "held")
    assert before < MANY, "something was held"
    fleet.wait(lambda: fleet.accepted("held") == MANY)  # what is accepted later is not cancelled
    resume(fleet.runtime, Target(campaign="held"), OPERATOR)
    fleet.wait(lambda: len(arrived(fleet, "held")) > before)
    cancel(fleet.runtime, Target(campaign="held"), OPERATOR)
    assert held_from_now(fleet, "held") < MANY, "something was cancelled"


def held_from_now(fleet: Fleet, campaign: str) -> int:
    """Assert that nothing of a campaign leaves any more; return how many have arrived."""
    ordered_at = moment(fleet)
    held_at = let_hold(fleet, campaign)
    let_pass(fleet, 2)
    times = arrived(fleet, campaign)
    assert sum(at > ordered_at for at in times) < WITHIN_S * FAST, "fewer than two seconds bring"
    assert not [at for at in times if at > held_at]
    return len(times)


def test_a_limit_holds_on_every_worker_within_two_seconds(fleet: Fleet) -> None:
    fleet.enqueue("paced", MANY, urgency="bulk")
    fleet.wait(lambda: len(arrived(fleet, "paced")) > 20)
    set_limit(fleet.runtime, "relay", SLOW, OPERATOR)
    set_at = moment(fleet)
    slow_at = let_hold(fleet, "paced")
    let_pass(fleet, 5)
    times = arrived(fleet, "paced")
    assert sum(at > set_at + WITHIN_S for at in times) < FAST, "no more than had a slot by then"
    assert sum(at > slow_at for at in times) <= 1, "a message in a hundred seconds"
    fleet.wait(lambda: fleet.accepted("paced") == MANY)
    # The next slot of the slow time is more than a minute away, and nobody waits for it.
    lift_limit(fleet.runtime, "relay", OPERATOR)
    fast_at = moment(fleet)
    fleet.wait(lambda: sum(at > fast_at for at in arrived(fleet, "paced")) > 10, within_s=30)
    cancel(fleet.runtime, Target(campaign="paced"), OPERATOR)


def tried_by(fleet: Fleet, worker: str, since: datetime) -> int:
    """How many messages a worker has tried from then on."""
    return fleet.count(
        "SELECT count(*) FROM attempts WHERE worker LIKE :w AND started_at > :at",
        w=f"{worker}@%",
        at=since,
    )


def test_a_drained_worker_takes_nothing_until_it_is_told_to(fleet: Fleet) -> None:
    fleet.enqueue("around", 400, urgency="normal")
    fleet.wait(lambda: tried_by(fleet, "email-1", fleet.started_at))
    drain(fleet.runtime, "email-1", OPERATOR)
    fleet.wait(lambda: drained(fleet, "email-1"))
    drained_at = fleet.now()
    fleet.broker.cut_connections()  # nor over a new connection
    fleet.enqueue("around", 100, first=400, urgency="normal")
    fleet.at_rest("around", 500).check()
    assert tried_by(fleet, "email-1", drained_at) == 0
    assert states(fleet)["email-1"] == "drained"
    drain(fleet.runtime, "email-1", OPERATOR, undo=True)
    fleet.wait(lambda: states(fleet).get("email-1") == "running")
    drain(fleet.runtime, "email-2", OPERATOR)
    fleet.wait(lambda: drained(fleet, "email-2"))
    fleet.enqueue("around", 50, first=500, urgency="normal")
    fleet.at_rest("around", 550).check()
    assert tried_by(fleet, "email-1", drained_at) == 50
    drain(fleet.runtime, None, OPERATOR, undo=True)
    fleet.wait(lambda: set(states(fleet).values()) == {"running"})


def test_where_nobody_takes_work_it_is_said(fleet: Fleet) -> None:
    drain(fleet.runtime, "email-1", OPERATOR)
    drain(fleet.runtime, "email-2", OPERATOR)
    fleet.wait(lambda: drained(fleet, "email-1", "email-2"))
    fleet.enqueue("waits", 10, urgency="bulk")
    fleet.wait(lambda: fleet.accepted("waits") == 10)
    state = fleet.wait(lambda: _with_lanes(fleet))
    assert [(lane["queue"], lane["consumers"]) for lane in state["lanes"]] == [("email.bulk", 0)]
    assert state["consumers"]["email.urgent"] == 1
    assert {one["name"].partition("@")[0]: one["state"] for one in state["workers"]} == {
        "control-1": "running",
        "core-1": "running",
        "core-2": "running",
        "email-urgent-1": "running",
        "email-1": "drained",
        "email-2": "drained",
    }
    # One that is started in its place is not drained, though it has the same name.
    fleet.kill("email-1")
    fleet.wait(lambda: states(fleet).get("email-1") == "running")
    fleet.at_rest("waits", 10).check()
    drain(fleet.runtime, None, OPERATOR, undo=True)
    fleet.wait(lambda: set(states(fleet).values()) == {"running"})


def _with_lanes(fleet: Fleet) -> dict[str, Any] | None:
    state = queue_state(fleet.runtime)
    return state if state["lanes"] else None
