"""Limits on a real Redis: schedules are checked by their slots on the server's clock."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from app.limits import (
    AccountHealth,
    Grant,
    Health,
    Limit,
    LimitsUnavailable,
    RateLimits,
    RedisClient,
    connect,
)
from app.limits.rate import LONGEST_RETRY_S

ROUNDING = 3e-6  # slots are whole microseconds, rounded up
FAR = 10_000.0
PROCESSES = 4


class RedisServer:
    """A private Redis on a free loopback port, which a test may stop and start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        self._process = self._launched()
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server does not answer"
            # Its port may have become that of somebody's connection for a moment.
            if self._process.poll() is not None:
                self._process = self._launched()
            time.sleep(0.02)

    def _launched(self) -> subprocess.Popen[bytes]:
        beside = Path(sys.executable).with_name("redis-server")
        binary = shutil.which("redis-server") or str(beside)
        command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        return subprocess.Popen(
            [*command, "--dir", str(self._folder), "--logfile", str(self._folder / "redis.log")]
        )

    def _answers(self) -> bool:
        with connect(self.url) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisClient]:
    with connect(server.url) as client:
        client.flushall()
        yield client


def stamps(grant: Grant) -> list[float]:
    return [grant.reserved_at + slot for slot in grant.slots]


def busiest_second(times: list[float]) -> int:
    start = most = 0
    for end, at in enumerate(times):
        while at - times[start] >= 1:
            start += 1
        most = max(most, end - start + 1)
    return most


def reserve_often(url: str, limits: list[Limit], times: int, n: int) -> list[float]:
    """What one worker process does; it runs in a process of its own, and begins with the others."""
    with connect(url) as client:
        rates = RateLimits(client)
        client.incr("ready")
        deadline = time.monotonic() + 60
        while int(client.get("ready") or 0) < PROCESSES:
            assert time.monotonic() < deadline
        return [at for _ in range(times) for at in stamps(rates.reserve(limits, n, FAR))]


def test_four_processes_share_one_limit(server: RedisServer, redis: RedisClient) -> None:
    limits = [Limit("account:relay-1", 200), Limit("sender:store", 1_000)]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(reserve_often, server.url, limits, 100, 10) for _ in range(PROCESSES)]
        by_process = [run.result(60) for run in runs]
    times = sorted(at for run in by_process for at in run)
    assert len(times) == PROCESSES * 100 * 10
    assert min(b - a for a, b in pairwise(times)) >= 0.005 - ROUNDING
    assert busiest_second(times) <= 200 * 1.05
    assert (len(times) - 1) / (times[-1] - times[0]) >= 200 * 0.97
    turns = sorted((at, worker) for worker, run in enumerate(by_process) for at in run)
    changes = sum(a != b for (_, a), (_, b) in pairwise(turns))
    assert changes >= PROCESSES, "they did ask at the same time"


def test_idle_time_saves_up_no_burst(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    limit = [Limit("account:relay-1", 100)]
    first = rates.reserve(limit, 1, 1.0)
    wait_until(redis, stamps(first)[0] + 0.3)
    later = rates.reserve(limit, 50, 1.0)
    assert later.slots[0] == 0
    assert busiest_second(stamps(later)) == 50
    assert later.slots[-1] == pytest.approx(0.49, abs=0.001)


def test_what_is_too_far_away_is_not_granted_and_told_when_to_ask(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    limit = [Limit("account:relay-1", 100)]
    grant = rates.reserve(limit, 500, 1.0)
    assert grant.granted == 101
    assert grant.slots[-1] <= 1.0
    assert grant.retry_after_s == pytest.approx(0.51, abs=0.001)
    again = rates.reserve(limit, 500, 1.0)
    assert again.granted <= 100 * (again.reserved_at - grant.reserved_at) + 1
    assert all(at > stamps(grant)[-1] for at in stamps(again))


def test_a_slow_limit_lets_the_first_message_out_at_once(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    limit = [Limit("account:slow", 0.1)]
    assert rates.reserve(limit, 5, 2.0).slots == (0.0,)
    refused = rates.reserve(limit, 5, 2.0)
    assert refused.granted == 0
    assert refused.retry_after_s == LONGEST_RETRY_S, "it may have been raised by then"


def test_a_refusal_by_one_key_takes_nothing_from_the_other(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    account, sender = Limit("account:relay-1", 1_000), Limit("sender:store", 0.01)
    assert rates.reserve([sender], 1, 0.5).granted == 1
    assert rates.reserve([account, sender], 100, 0.5).granted == 0
    free = rates.reserve([account], 501, 0.5)
    assert free.granted == 501
    assert free.slots[0] == 0


def test_a_slow_sender_leaves_the_rest_of_the_account_to_others(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    account = Limit("account:relay-1", 200)
    slow = rates.reserve([account, Limit("sender:slow", 10)], 100, 2.0)
    others = rates.reserve([account], 1_000, 2.0)
    within = [at for at in sorted(stamps(slow) + stamps(others)) if at < slow.reserved_at + 2.0]
    assert slow.granted == 21
    left_s = slow.reserved_at + 2.0 - others.reserved_at  # what went by before they asked is lost
    assert sum(at >= others.reserved_at for at in within) >= 200 * left_s * 0.94 - 2
    assert busiest_second(within) <= 201


reservations = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.sets(st.sampled_from(["account:a", "account:b", "sender:x", "sender:y"]), min_size=1),
    ),
    min_size=1,
    max_size=12,
)
speeds = st.fixed_dictionaries(
    {key: st.floats(2, 2_000) for key in ("account:a", "account:b", "sender:x", "sender:y")}
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=reservations, per_second=speeds)
def test_whatever_is_asked_no_key_is_ever_faster_than_its_limit(
    redis: RedisClient, asked: list[tuple[int, set[str]]], per_second: dict[str, float]
) -> None:
    redis.flushall()
    rates = RateLimits(redis)
    taken: dict[str, list[float]] = {key: [] for key in per_second}
    for n, keys in asked:
        grant = rates.reserve([Limit(key, per_second[key]) for key in sorted(keys)], n, FAR)
        assert grant.granted == n
        assert grant.retry_after_s == 0
        assert list(grant.slots) == sorted(grant.slots)
        for key in keys:
            taken[key] += stamps(grant)
    for key, times in taken.items():
        times.sort()
        gaps = [b - a for a, b in pairwise(times)]
        assert all(gap >= 1 / per_second[key] - ROUNDING for gap in gaps)


def test_a_changed_limit_holds_at_once(redis: RedisClient) -> None:
    rates = RateLimits(redis)
    before = rates.reserve([Limit("account:relay-1", 1_000)], 100, 5.0)
    after = rates.reserve([Limit("account:relay-1", 10)], 10, 5.0)
    assert stamps(after)[0] > stamps(before)[-1]
    assert after.slots[1] - after.slots[0] == pytest.approx(0.1, abs=1e-5)


def test_the_same_key_twice_counts_once_by_its_lower_limit(redis: RedisClient) -> None:
    grant = RateLimits(redis).reserve([Limit("a", 100), Limit("a", 10)], 3, 5.0)
    assert grant.slots == pytest.approx((0.0, 0.1, 0.2), abs=1e-5)


def test_the_sender_of_slices_knows_how_many_may_have_left() -> None:
    grant = Grant((0.0, 0.005, 0.010, 0.5))
    assert [grant.sendable(at) for at in (0.0, 0.007, 0.02, 1.0)] == [1, 2, 3, 4]


def test_no_limit_asks_nobody(server: RedisServer) -> None:
    with connect("redis://127.0.0.1:1/0") as nowhere:
        assert RateLimits(nowhere).reserve([], 3, 1.0).slots == (0.0, 0.0, 0.0)


def test_redis_away_is_said_and_never_a_permit() -> None:
    with connect("redis://127.0.0.1:1/0") as nowhere, pytest.raises(LimitsUnavailable):
        RateLimits(nowhere).reserve([Limit("account:relay-1", 10)], 1, 1.0)


def test_a_hung_redis_is_unavailable_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"redis://127.0.0.1:{hung.getsockname()[1]}/0"
        with connect(url, timeout_s=0.2) as client, pytest.raises(LimitsUnavailable):
            RateLimits(client).reserve([Limit("account:relay-1", 10)], 1, 1.0)


def test_flushall_and_restart_need_no_hand(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        with connect(server.url) as client:
            rates, health = RateLimits(client), AccountHealth(client)
            limit = [Limit("account:relay-1", 10)]
            rates.reserve(limit, 5, 1.0)
            client.flushall()
            client.script_flush()
            assert rates.reserve(limit, 1, 1.0).granted == 1
            server.stop()
            with pytest.raises(LimitsUnavailable):
                rates.reserve(limit, 1, 1.0)
            server.start()
            assert rates.reserve(limit, 1, 1.0).granted == 1
            health.after_batch("relay-1", ok=1, failed=0, seconds=1)
            assert health.health(["relay-1"], datetime.now(UTC))["relay-1"].pace_per_s == 1
    finally:
        server.stop()


def test_limits_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="account:x"):
        Limit("account:x", 0)


# --- health ---------------------------------------------------------------------------------


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def open_for(health: AccountHealth, now: datetime) -> float:
    until = health.health(["relay-1"], now)["relay-1"].open_until
    return (until - datetime.now(UTC)).total_seconds() if until else 0.0


def test_an_account_never_heard_of_is_healthy(redis: RedisClient, now: datetime) -> None:
    assert AccountHealth(redis).health(["new"], now) == {"new": Health()}


def test_a_refused_account_opens_and_time_closes(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=0, failed=0, refused=3, seconds=0.1)
    assert open_for(health, now) == pytest.approx(30, abs=5)
    assert open_for(health, now + timedelta(seconds=40)) == 0
    health.forget("relay-1")
    assert open_for(health, now) == 0


def test_one_refused_sender_among_others_opens_nothing(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    for _ in range(100):
        health.after_batch("relay-1", ok=199, failed=0, refused=1, seconds=1)
    assert open_for(health, now) == 0
    known = health.health(["relay-1"], now)["relay-1"]
    assert 0 < known.errors < 0.01
    assert known.pace_per_s == pytest.approx(199)


def test_a_few_that_are_refused_by_themselves_open_nothing(
    redis: RedisClient, now: datetime
) -> None:
    """Urgent messages of one sender leave one by one, between those of others."""
    health = AccountHealth(redis)
    for _ in range(10):
        health.after_batch("relay-1", ok=1, failed=0, seconds=0.1)
        health.after_batch("relay-1", ok=0, failed=0, refused=1, seconds=0.1)
        health.after_batch("relay-1", ok=0, failed=0, refused=1, seconds=0.1)
    assert open_for(health, now) == 0
    health.after_batch("relay-1", ok=0, failed=0, refused=1, seconds=0.1)
    assert open_for(health, now) > 0, "the third in a row: nobody is served any more"


def test_of_a_busy_account_a_second_of_refusals_opens(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=60 * 300, failed=0, seconds=60)
    health.after_batch("relay-1", ok=0, failed=0, refused=200, seconds=0.1)
    assert open_for(health, now) == 0, "all of one sender, perhaps"
    health.after_batch("relay-1", ok=0, failed=0, refused=200, seconds=0.1)
    assert open_for(health, now) > 0


def test_a_refused_trial_opens_again(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=0, failed=0, refused=3, seconds=0.1)
    let_cool_down_pass(redis)
    health.after_batch("relay-1", ok=0, failed=0, refused=1, seconds=0.1)
    assert open_for(health, now) == pytest.approx(60, abs=5)


def test_nearly_all_failures_open_but_a_bad_day_does_not(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    for _ in range(20):
        health.after_batch("relay-1", ok=60, failed=40, seconds=1)
    assert open_for(health, now) == 0
    assert health.health(["relay-1"], now)["relay-1"].errors == pytest.approx(0.4, abs=0.01)
    health.after_batch("relay-1", ok=0, failed=100, seconds=1)
    assert open_for(health, now) > 0


def test_a_few_failures_of_a_new_account_do_not_open(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=0, failed=5, seconds=1)
    assert open_for(health, now) == 0


def trip(redis: RedisClient, health: AccountHealth, now: datetime) -> float:
    """One failed batch; returns for how long the breaker is open, in seconds."""
    health.after_batch("relay-1", ok=0, failed=1, seconds=0.1)
    until = health.health(["relay-1"], now)["relay-1"].open_until
    return until.timestamp() - server_time(redis) if until else 0.0


def let_cool_down_pass(redis: RedisClient) -> None:
    redis.hset("converge:account:relay-1", "open_until", server_time(redis) - 0.001)


def test_cool_downs_double_and_a_good_trial_ends_them(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=0, failed=0, refused=3, seconds=0.1)
    assert trip(redis, health, now) == pytest.approx(30, abs=5), "late batches do not prolong it"
    for seconds in (60, 120, 240, 480, 600, 600):
        let_cool_down_pass(redis)
        assert trip(redis, health, now) == pytest.approx(seconds, abs=5)
    let_cool_down_pass(redis)
    health.after_batch("relay-1", ok=10, failed=0, seconds=0.1)
    assert trip(redis, health, now) <= 0, "one failure of a mended account is no trouble"
    health.after_batch("relay-1", ok=0, failed=0, refused=3, seconds=0.1)
    assert trip(redis, health, now) == pytest.approx(30, abs=5)


def test_pace_follows_what_was_measured(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)

    def after(ok: int, seconds: float) -> Health:
        health.after_batch("relay-1", ok=ok, failed=0, seconds=seconds)
        return health.health(["relay-1", "other"], now)["relay-1"]

    like_a_small_batch = 64 / 200
    assert after(200, 1.0) == Health(pace_per_s=200, latency_s=like_a_small_batch)
    for _ in range(20):
        last = after(50, 1.0)
    assert last.pace_per_s == pytest.approx(50, rel=0.01)
    assert last.latency_s == pytest.approx(1.0, rel=0.01)
    empty = after(0, 0.0)
    assert empty == last, "an empty batch says nothing"


def test_what_was_measured_long_ago_counts_for_little(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=50, failed=50, seconds=5)

    def after(seconds: float) -> Health:
        return health.health(["relay-1"], now + timedelta(seconds=seconds))["relay-1"]

    errors = [after(seconds).errors for seconds in (0, 30, 60, 180, 600)]
    assert errors[0] == pytest.approx(0.48, abs=0.01)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.001
    assert after(60).latency_s is not None
    assert after(600).latency_s is None


def test_one_failure_among_few_is_not_many(redis: RedisClient, now: datetime) -> None:
    health = AccountHealth(redis)
    health.after_batch("relay-1", ok=0, failed=1, seconds=0.1)
    assert health.health(["relay-1"], now)["relay-1"].errors < 0.2


def test_health_with_redis_away_is_unknown_and_stops_nothing(now: datetime) -> None:
    with connect("redis://127.0.0.1:1/0") as nowhere:
        health = AccountHealth(nowhere)
        health.after_batch("relay-1", ok=1, failed=0, seconds=1)
        assert health.health(["relay-1"], now) == {"relay-1": Health()}


def server_time(redis: RedisClient) -> float:
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


def wait_until(redis: RedisClient, at: float, stop: Callable[[], float] = time.monotonic) -> None:
    """Until the server's clock has come to `at`."""
    deadline = stop() + 10
    while server_time(redis) <= at:
        assert stop() < deadline
