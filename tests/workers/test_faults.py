"""Faults on real processes under load: nothing is lost, and nothing is said twice in silence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from app.embedded import EmbeddedServers, postgres
from app.embedded.binaries import Source
from app.store import migrate
from tests.workers.conftest import LEASE_S, Fleet, running_fleet

A_FEW_TICKS_S = 10.0  # on a machine that does other things as well


def test_a_worker_killed_under_load(fleet: Fleet) -> None:
    fleet.enqueue("killed", 3_000)
    fleet.wait(lambda: fleet.accepted("killed") == 3_000 and fleet.sending("killed") > 100)
    fleet.kill("email-1")
    killed_at = fleet.now()
    reckoning = fleet.at_rest("killed", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    assert reckoning.outcome_count("ambiguous", "lease_ended") > 0, "it had work in hand"
    noticed = fleet.rows("SELECT max(finished_at) FROM attempts WHERE reason = 'lease_ended'")[0][0]
    assert (noticed - killed_at).total_seconds() < LEASE_S + A_FEW_TICKS_S


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
    fleet.enqueue("core", 3_000)
    fleet.wait(lambda: fleet.accepted("core") >= 500)
    fleet.kill("core-1")
    fleet.kill("control-1")
    accepted = fleet.accepted("core")
    assert 0 < accepted < 3_000
    fleet.enqueue("core", 3_000)
    fleet.wait(lambda: fleet.accepted("core") == 3_000)
    reckoning = fleet.at_rest("core", 3_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


@pytest.mark.slow
def test_a_worker_that_stood_still_for_longer_than_its_lease(fleet: Fleet) -> None:
    fleet.enqueue("stopped", 3_000)
    fleet.wait(lambda: fleet.accepted("stopped") == 3_000 and fleet.sending("stopped") > 100)
    sleeper = fleet.process("email-1")
    sleeper.suspend()
    lost = "SELECT count(*) FROM deliveries WHERE campaign = :c AND losses > 0"
    fleet.wait(lambda: fleet.count(lost, c="stopped"))
    fleet.at_rest("stopped", 3_000)
    sleeper.resume()
    # What it says at last: that it had sent them, or that its time was over before it could.
    late = "SELECT count(*) FROM attempts WHERE worker LIKE 'email-1@%' AND reason IS NOT NULL"
    fleet.wait(lambda: fleet.count(late))
    reckoning = fleet.at_rest("stopped", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}


@pytest.mark.slow
def test_a_ledger_that_restarts(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "servers", exclusive=True) as servers:
        migrate.upgrade(servers.endpoints.database_url)
        accounts = {"relay": {"sink": ("--ack-latency", "0.005")}}
        urls = servers.endpoints.database_url, servers.endpoints.redis_url
        with running_fleet(*urls, tmp_path, accounts) as fleet:
            fleet.enqueue("restarted", 3_000)
            fleet.wait(lambda: fleet.accepted("restarted") == 3_000)
            fleet.wait(lambda: fleet.sending("restarted") and fleet.arrived() > 500)
            with away(servers):
                fleet.enqueue("meanwhile", 1_000)
                fleet.wait(lambda: fleet.logged("settle_again"))
                with Redis.from_url(fleet.settings.redis_url) as redis:
                    fleet.wait(lambda: not redis.llen("converge:intents"))
            for campaign, number in (("restarted", 3_000), ("meanwhile", 1_000)):
                reckoning = fleet.at_rest(campaign, number)
                reckoning.check()
                assert set(reckoning.states.values()) == {"sent"}
                assert max(reckoning.arrived.values()) == 1, "what was sent is settled afterwards"


@contextmanager
def away(servers: EmbeddedServers) -> Iterator[None]:
    """Postgres is stopped, as its operators do, while the block runs."""
    stopped = servers._running["postgres"]
    stopped.end(postgres.STOP_SIGNAL)
    yield
    home = postgres.home_for(servers.data_dir)
    programs = postgres.programs_for(home, Source.ANY)
    servers._running["postgres"] = postgres.start(home, programs, stopped.port, safe=True)
