"""Processes whose time of day is an hour off, for as long as they like: nobody waits for them."""

import pytest

from tests.chaos import faults, invariants
from tests.chaos.run import Course, loaded
from tests.chaos.schedule import Planned
from tests.chaos.world import running_world, wait_until

WRONG = {"control-1": "an hour fast", "core-1": "an hour fast", "beat": "an hour slow"}


@pytest.mark.slow
@pytest.mark.debian
@pytest.mark.timeout(400)
def test_all_is_said_while_clocks_are_wrong() -> None:
    with running_world(seed=1, expires_s=600) as world:
        invariants.prepare(world)
        for number, (name, how) in enumerate(WRONG.items()):
            faults.begin(world, Planned(number, 0, "clock", name, how, 0))
        course = Course(world, print)
        with loaded(world, per_chunk=8):
            wait_until(
                lambda: len(world.load.enqueued) >= 100, "100 are enqueued", world.processes.poll
            )
        course.settle(within_s=90)
