"""How each provider account is doing: a circuit breaker and a measured pace, in one Redis hash.

One round trip folds a whole batch in; one more reads all accounts. Both are hints: losing them
costs speed, never a message, so a Redis that is away means "nothing known" and raises nothing.

The breaker opens when an account is refused (wrong credentials, suspended), or when nearly all of
its last messages failed. It stays open for 30 s, then twice as long each time, up to 10 minutes.
Half-open is the mere passing of time: the next batch is the trial. Its success closes the breaker,
its failure opens it again at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import structlog

from app.limits.connection import LimitsUnavailable, RedisClient, redis_errors
from converge_producer.queues import KEY_PREFIX

_log = structlog.get_logger(__name__)
_SCRIPT = Path(__file__).with_name("after_batch.lua").read_text(encoding="utf-8")
_FIELDS = ("open_until", "share", "latency", "pace")


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and for how long. Times in seconds, shares from 0 to 1."""

    cool_down_s: float = 30.0
    longest_cool_down_s: float = 600.0
    opens_at_share: float = 0.9
    fewest_messages: int = 20
    memory_messages: int = 30
    newest_weight: float = 0.3
    forgotten_after_s: int = 86_400


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an account.

    `open_until`: the breaker lets nothing through before (None: closed, or time has passed).
    `error_share`: failed messages among the last few dozen, 0 to 1. `latency_s`: seconds that a
    batch takes. `pace_per_s`: messages a second that one worker gets through; None: not measured.
    """

    open_until: datetime | None = None
    error_share: float = 0.0
    latency_s: float | None = None
    pace_per_s: float | None = None


class AccountHealth:
    """The health of all accounts, kept in one Redis. Safe over threads."""

    def __init__(self, redis: RedisClient, settings: BreakerSettings | None = None) -> None:
        self._redis = redis
        self._settings = settings or BreakerSettings()
        self._fold = redis.register_script(_SCRIPT)

    def after_batch(
        self, account: str, *, ok: int, failed: int, account_rejected: bool, seconds: float
    ) -> None:
        """Fold one batch in.

        `ok` counts messages for which the account did its work, which includes recipients and
        contents that it rejected; `failed` those that were retryable or ambiguous. `seconds` is
        the time inside the provider, without waiting for permits.
        """
        of = self._settings
        try:
            with redis_errors():
                self._fold(
                    keys=[_key(account)],
                    args=[
                        ok,
                        failed,
                        int(account_rejected),
                        seconds,
                        of.cool_down_s,
                        of.longest_cool_down_s,
                        of.opens_at_share,
                        of.fewest_messages,
                        of.memory_messages,
                        of.newest_weight,
                        of.forgotten_after_s,
                    ],
                )
        except LimitsUnavailable as error:
            _log.warning("account_health_not_kept", account=account, reason=str(error))

    def health(self, accounts: Iterable[str], now: datetime) -> dict[str, Health]:
        """Return the health of each account; of one never heard of, or with Redis away, the best.

        `now` (aware UTC) only decides whether a cool-down is over.
        """
        names = list(dict.fromkeys(accounts))
        try:
            with redis_errors():
                asking = self._redis.pipeline(transaction=False)
                for name in names:
                    asking.hmget(_key(name), *_FIELDS)
                rows = cast("list[list[bytes | str | None]]", asking.execute())
        except LimitsUnavailable as error:
            _log.warning("account_health_unknown", reason=str(error))
            return {name: Health() for name in names}
        return {name: _health(row, now) for name, row in zip(names, rows, strict=True)}

    def reachable(self) -> bool:
        """Say whether Redis answers."""
        try:
            with redis_errors():
                return bool(self._redis.ping())
        except LimitsUnavailable:
            return False

    def forget(self, account: str) -> None:
        """Close the breaker and forget what was measured: an operator says that it is mended.

        Raises `LimitsUnavailable`.
        """
        with redis_errors():
            self._redis.delete(_key(account))


def _key(account: str) -> str:
    return f"{KEY_PREFIX}account:{account}"


def _health(row: list[bytes | str | None], now: datetime) -> Health:
    open_until, share, latency, pace = (float(value or 0) for value in row)
    until = datetime.fromtimestamp(open_until, UTC)
    return Health(until if until > now else None, share, latency or None, pace or None)
