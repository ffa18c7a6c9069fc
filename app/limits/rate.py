"""How many messages may leave, and when exactly: paced permits over all worker processes.

The algorithm is the generic cell rate algorithm (ITU-T I.371, virtual scheduling) without burst
tolerance, in one Lua script on the Redis server's clock. A permit is a slot in time. No burst is
saved up while idle, and no two slots of a key are closer than its interval, so a limit of 200 a
second is never more than 201 slots in any second, however many processes ask.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from app.limits.connection import RedisClient, redis_errors
from converge_producer.queues import KEY_PREFIX

_RESERVE = Path(__file__).with_name("reserve.lua").read_text(encoding="utf-8")
_ADMIT = Path(__file__).with_name("admit.lua").read_text(encoding="utf-8")
_MICROSECONDS = 1_000_000
LONGEST_RETRY_S = 1.5
"""Nothing waits longer than this before it asks again: a limit may have been raised by then."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `per_second` messages for everything that shares `key` (`account:relay-1`)."""

    key: str
    per_second: float

    def __post_init__(self) -> None:
        """Refuse what would never let anything pass: that is a pause, not a limit."""
        if not self.per_second > 0:
            raise ValueError(f"limit {self.key}: per_second must be above 0")


@dataclass(frozen=True, slots=True)
class Grant:
    """Permits as slots: message k may leave `slots[k]` seconds after the reservation, in order.

    `retry_after_s` says when to ask for those that were not granted; 0 when all were.
    `reserved_at` is the server's Unix time; the slots count from it.
    """

    slots: tuple[float, ...]
    retry_after_s: float = 0.0
    reserved_at: float = 0.0

    @property
    def granted(self) -> int:
        """How many messages may leave at all."""
        return len(self.slots)

    def sendable(self, elapsed_s: float) -> int:
        """How many may have left once `elapsed_s` seconds have gone by since the reservation."""
        return bisect_right(self.slots, elapsed_s)


class RateLimits:
    """Permits from one Redis. Safe over threads."""

    def __init__(self, redis: RedisClient) -> None:
        self._reserve = redis.register_script(_RESERVE)
        self._admit = redis.register_script(_ADMIT)

    def reserve(self, limits: Sequence[Limit], n: int, max_wait_s: float = 2.0) -> Grant:
        """Reserve up to `n` permits, each of them under all `limits` at once, or of none.

        Slots further away than `max_wait_s` are not granted. What is left should ask again after
        `retry_after_s`: half of `max_wait_s` before its slot, so that the schedule is filled again
        before it has run out, and soon in any case (`LONGEST_RETRY_S`). Whoever shares a key has
        to name the same `max_wait_s`; its rate may change from one call to the next. Without
        limits everything may leave at once and Redis is not asked.

        Raises `LimitsUnavailable` when Redis is away: then nothing may be sent.
        """
        if n <= 0:
            return Grant(())
        if not limits:
            return Grant((0.0,) * n)
        tightest: dict[str, float] = {}
        for limit in limits:
            known = tightest.get(limit.key, limit.per_second)
            tightest[limit.key] = min(known, limit.per_second)
        with redis_errors():
            reply = cast(
                "list[int]",
                self._reserve(
                    keys=[f"{KEY_PREFIX}permits:{key}" for key in tightest],
                    args=[
                        n,
                        round(max_wait_s * _MICROSECONDS),
                        *(_MICROSECONDS / per_second for per_second in tightest.values()),
                    ],
                ),
            )
        now, next_slot, *slots = reply
        retry = 0.0
        if len(slots) < n:
            retry = max(next_slot / _MICROSECONDS - max_wait_s / 2, 0.0)
            retry = min(retry, LONGEST_RETRY_S)
        return Grant(tuple(slot / _MICROSECONDS for slot in slots), retry, now / _MICROSECONDS)

    def admit(self, limit: Limit, n: int) -> float:
        """Take `n` at once, or nothing; return 0 where taken, else in how many seconds to ask.

        What nobody asked for is saved up for one second. Any `n` is taken once what was taken
        before has been paid off, and is then paid off itself: on average the limit holds.

        Raises `LimitsUnavailable` when Redis is away.
        """
        interval = _MICROSECONDS / limit.per_second
        with redis_errors():
            wait = cast(
                "int",
                self._admit(
                    keys=[f"{KEY_PREFIX}admitted:{limit.key}"],
                    args=[n, interval, max(0.0, _MICROSECONDS - interval)],
                ),
            )
        return wait / _MICROSECONDS
