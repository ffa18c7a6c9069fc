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


def test_a_broker_that_forgets_everything(fleet: Fleet) -> None:
    fleet.enqueue("forgotten", 3_000)
    fleet.wait(lambda: fleet.accepted("forgotten") == 3_000 and fleet.sending("forgotten") > 100)
    with Redis.from_url(fleet.settings.redis_url) as redis:
        forgotten = fleet.wait(lambda: redis.llen("converge:email.normal"))
        redis.flushall()
    assert forgotten, "hints were lost"
    reckoning = fleet.at_rest("forgotten", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    assert max(reckoning.arrived.values()) == 1, "a lost hint is no reason to say it twice"


def test_a_broker_that_forgets_what_was_not_accepted_yet(fleet: Fleet) -> None:
    """Until accept commits, an intent is as durable as the broker: enqueued again, it is one."""
    fleet.enqueue("unaccepted", 3_000)
    with Redis.from_url(fleet.settings.redis_url) as redis:
        redis.flushall()
    accepted = fleet.accepted("unaccepted")
    assert accepted < 3_000, "chunks were lost"
    fleet.enqueue("unaccepted", 3_000)
    fleet.wait(lambda: fleet.accepted("unaccepted") == 3_000)
    reckoning = fleet.at_rest("unaccepted", 3_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


def test_a_mail_server_that_drops_after_data(fleet: Fleet) -> None:
    fleet.accept_as_test("dropped", 1_500)
    reckoning = fleet.at_rest("dropped", 1_500)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    ambiguous = reckoning.outcome_count("ambiguous")
    assert ambiguous > 5
    assert sum(reckoning.arrived.values()) == 1_500 + ambiguous, "and each of them was sent again"


def test_a_beat_that_was_killed(fleet: Fleet) -> None:
    fleet.kill("beat")
    fleet.enqueue("unticked", 1_000)
    reckoning = fleet.at_rest("unticked", 1_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


def test_a_core_worker_killed_while_it_accepts(fleet: Fleet) -> None:
    fleet.enqueue("core", 5_000)
    fleet.wait(lambda: fleet.accepted("core") >= 500)
    fleet.kill("core-1")
    fleet.kill("control-1")
    accepted = fleet.accepted("core")
    assert 0 < accepted < 5_000
    fleet.enqueue("core", 5_000)
    fleet.wait(lambda: fleet.accepted("core") == 5_000)
    reckoning = fleet.at_rest("core", 5_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1
