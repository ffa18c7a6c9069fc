"""Faults on real processes under load: nothing is lost, and nothing is said twice in silence."""

from redis import Redis

from tests.workers.conftest import Fleet


def test_a_worker_killed_under_load(fleet: Fleet) -> None:
    fleet.enqueue("killed", 3_000)
    fleet.wait(lambda: fleet.accepted("killed") == 3_000 and fleet.sending("killed") > 100)
    fleet.kill("email-1")
    reckoning = fleet.at_rest("killed", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    assert reckoning.outcome_count("ambiguous", "lease_ended") > 0, "it had work in hand"
