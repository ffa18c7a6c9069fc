"""How each provider account is doing: a circuit breaker and a measured pace, in one Redis hash.

One round trip folds a whole batch in; one more reads all accounts. Both are hints: losing them
costs speed, never a message, so a Redis that is away means "nothing known" and raises nothing.

The breaker opens when an account is refused (wrong credentials, suspended), or when nearly all of
its last messages failed. It stays open for 30 s, then twice as long each time, up to 10 minutes.
Half-open is the mere passing of time: the next batch is the trial. Its success closes the breaker,
its failure opens it again at once.

An account may refuse one sender (whose domain is mistyped) and take all the others. So it counts as
refused where it turns most of a batch away, and has turned away about a second's worth of messages
since it last took as many. What is less takes traffic away by degrees, as failures do.

Errors and latency are of the last minute or so: what is old counts for less and less, so that an
account that nobody uses any more gets another chance.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from app.limits.connection import LimitsUnavailable, RedisClient, redis_errors
from converge_producer.queues import KEY_PREFIX

_log = structlog.get_logger(__name__)
_SCRIPT = Path(__file__).with_name("after_batch.lua").read_text(encoding="utf-8")
_FIELDS = ("open_until", "latency", "pace", "lately_ok", "lately_failed", "lately_at")


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and for how long. Times in seconds, shares from 0 to 1."""

    cool_down_s: float = 30.0
    longest_cool_down_s: float = 600.0
    opens_at_share: float = 0.9
    fewest_messages: int = 20
    fewest_refused: int = 3
    """Refused in a row; of an account that lately took more than so many a second, a second's."""
    memory_messages: int = 30
    newest_weight: float = 0.3
    forgotten_after_s: int = 86_400
    window_s: float = 60.0
    small_batch: int = 64
    doubted_messages: float = 5.0
    """Good messages supposed, so that one failure among few is not taken for many."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an account.

    `open_until`: the breaker lets nothing through before (None: closed, or time has passed).
    `errors`: the share of messages that failed, came too fast or were refused for reasons of the
    account lately, 0 to 1. `latency_s`: seconds that a small batch took lately. `pace_per_s`:
    messages a second that one worker gets through. None of them: not known.
    """

    open_until: datetime | None = None
    errors: float = 0.0
    latency_s: float | None = None
    pace_per_s: float | None = None


class AccountHealth:
    """The health of all accounts, kept in one Redis. Safe over threads."""

    def __init__(self, redis: RedisClient, settings: BreakerSettings | None = None) -> None:
        self._redis = redis
        self._settings = settings or BreakerSettings()
        self._fold = redis.register_script(_SCRIPT)

    def after_batch(
        self,
        account: str,
        *,
        ok: int,
        failed: int,
        seconds: float,
        limited: int = 0,
        refused: int = 0,
    ) -> None:
        """Fold one batch in.

        `ok` counts messages for which the account did its work, which includes recipients and
        contents that it rejected; `failed` those that were retryable or ambiguous. `limited` are
        those for which we were too fast: they take traffic away as failures do, and open no
        breaker. `refused` are those that it rejected for reasons of the account: they do so, too,
        and open the breaker once there are enough of them in a row. `seconds` is the time inside
        the provider, without waiting for permits.
        """
        of = self._settings
        try:
            with redis_errors():
                self._fold(
                    keys=[_key(account)],
                    args=[
                        ok,
                        failed,
                        refused,
                        seconds,
                        of.cool_down_s,
                        of.longest_cool_down_s,
                        of.opens_at_share,
                        of.fewest_messages,
                        of.memory_messages,
                        of.newest_weight,
                        of.forgotten_after_s,
                        of.window_s,
                        of.small_batch,
                        limited,
                        of.fewest_refused,
                    ],
                )
        except LimitsUnavailable as error:
            _log.warning("account_health_not_kept", account=account, reason=str(error))

    def health(self, accounts: Iterable[str], now: datetime | None = None) -> dict[str, Health]:
        """Return the health of each account; of one never heard of, or with Redis away, the best.

        `now` (aware UTC; without it Redis's own clock) decides whether a cool-down is over, and how
        old what is known is.
        """
        names = list(dict.fromkeys(accounts))
        try:
            with redis_errors():
                asking = self._redis.pipeline(transaction=False)
                asking.time()
                for name in names:
                    asking.hmget(_key(name), *_FIELDS)
                (seconds, micros), *rows = asking.execute()
        except LimitsUnavailable as error:
            _log.warning("account_health_unknown", reason=str(error))
            return {name: Health() for name in names}
        now = now or datetime.fromtimestamp(seconds + micros / 1e6, UTC)
        return {name: self._read(row, now) for name, row in zip(names, rows, strict=True)}

    def _read(self, row: list[bytes | str | None], now: datetime) -> Health:
        open_until, latency, pace, ok, failed, at = (float(value or 0) for value in row)
        until = datetime.fromtimestamp(open_until, UTC)
        age = max(0.0, now.timestamp() - at)
        fade = math.exp(-age / self._settings.window_s)
        counted = (ok + failed) * fade + self._settings.doubted_messages
        return Health(
            open_until=until if until > now else None,
            errors=failed * fade / counted,
            latency_s=latency if latency and age < 2 * self._settings.window_s else None,
            pace_per_s=pace or None,
        )

    def reachable(self) -> bool:
        """Say whether Redis answers."""
        try:
            with redis_errors():
                return bool(self._redis.ping())
        except LimitsUnavailable:
            return False

    def forget(self, account: str) -> None:
        """Close the breaker and forget what was measured: an operator says that it is mended
        (`converge limits retry`).

        Raises `LimitsUnavailable`.
        """
        with redis_errors():
            self._redis.delete(_key(account))


def _key(account: str) -> str:
    return f"{KEY_PREFIX}account:{account}"
