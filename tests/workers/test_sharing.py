"""What several worker processes share: an account's limit, and who has their turn when.

Everything is accepted while the account is paused, and then let go at once. What is asserted is the
order in which the mail server took it; nothing depends on how fast this machine is.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from app.usecases.operating.control import Operator, Target, pause, resume
from tests.workers.fleet import Fleet

pytestmark = pytest.mark.timeout(400)
RATE = 150
BULK = 800
FEW = 50
OPERATOR = Operator("tests", "to let everything go at once")


@pytest.fixture(scope="module")
def accounts() -> dict[str, dict[str, Any]]:
    return {"relay": {"rate": RATE}}


@dataclass(frozen=True, slots=True)
class Rush:
    """Who arrived in which order, when (seconds since all was let go), and by which worker."""

    order: list[str]
    seconds: list[float]
    workers: Counter[str]

    def before_the_last(self, campaign: str) -> Counter[str]:
        """What had arrived when the last one of a campaign did."""
        last = len(self.order) - self.order[::-1].index(campaign)
        return Counter(self.order[:last])


@pytest.fixture(scope="module")
def rush(fleet: Fleet) -> Rush:
    pause(fleet.runtime, Target(account="relay"), OPERATOR)
    fleet.enqueue("bulk", BULK, urgency="bulk", sender="store")
    fleet.wait(lambda: fleet.accepted("bulk") == BULK)
    fleet.enqueue("small", FEW, urgency="bulk", sender="billing")
    fleet.enqueue("normal", FEW, urgency="normal")
    fleet.enqueue("urgent", FEW, urgency="urgent")
    sizes = {"bulk": BULK, "small": FEW, "normal": FEW, "urgent": FEW}
    fleet.wait(lambda: all(fleet.accepted(campaign) == size for campaign, size in sizes.items()))
    assert not fleet.arrived()
    started = fleet.now().timestamp()
    resume(fleet.runtime, Target(account="relay"), OPERATOR)
    for campaign, size in sizes.items():
        reckoning = fleet.at_rest(campaign, size)
        reckoning.check()
        assert set(reckoning.outcomes) == set(reckoning.states), "each was tried"
    campaigns = dict(map(tuple, fleet.rows("SELECT id, campaign FROM deliveries")))
    arrivals = fleet.arrivals()
    workers = fleet.rows("SELECT worker FROM attempts")
    return Rush(
        order=[campaigns[delivery] for delivery, _ in arrivals],
        seconds=[at - started for _, at in arrivals],
        workers=Counter(row[0].partition("@")[0] for row in workers),
    )


def test_several_processes_share_one_limit(rush: Rush) -> None:
    """Had each process a limit of its own, the last would be there long before its slot."""
    assert rush.workers.keys() >= {"email-1", "email-2", "email-urgent-1"}
    early = [n for n, at in enumerate(rush.seconds) if at < n / RATE]
    assert not early


def test_what_is_urgent_overtakes_what_can_wait(rush: Rush) -> None:
    for lane in ("urgent", "normal"):
        before = rush.before_the_last(lane)
        assert before["bulk"] < BULK / 2, f"{lane}: {before}"


def test_a_small_sender_does_not_wait_for_a_big_one(rush: Rush) -> None:
    before = rush.before_the_last("small")
    assert before["bulk"] < BULK * 0.9, before
