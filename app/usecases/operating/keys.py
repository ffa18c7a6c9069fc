"""API keys: made, shown once, checked in constant time, held to their rate, revoked.

A key reads `cvk_BRAND_PREFIX_SECRET` (`cvt_…` for a test key, which sends to the sandbox alone).
The prefix finds it; only a hash of the secret is kept. The secret holds 256 random bits, so one
round of SHA-256 is enough.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Sequence

import structlog

from app.limits.connection import LimitsUnavailable
from app.limits.rate import Limit, RateLimits
from app.store import audit
from app.store.keys import Key, find_key, insert_key, list_keys, revoke_key
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

LIVE = "cvk"
TEST = "cvt"


AWAY_S = 1.0
"""How long Redis is not asked again after it was away."""


class UnknownBrand(Exception):
    """The brand, or a sender of it, is not declared."""


class BadRate(Exception):
    """No such rate can be kept: it would let nothing pass, or never bind."""


class KeyRates:
    """Holds keys to their rates, over all API processes; safe over threads.

    When Redis is away everything passes: a limit guards against too much, and is no reason to
    refuse everything.
    """

    def __init__(self, limits: RateLimits, default: float | None) -> None:
        self._limits = limits
        self._default = default
        self._ask_after = float("-inf")

    def of(self, key: Key) -> float | None:
        """How many intents a second a key may enqueue."""
        return self._default if key.per_second is None else key.per_second

    def wait_s(self, key: Key, intents: int) -> float:
        """Take so many intents from a key's rate at once; or return how long to wait instead."""
        rate = self.of(key)
        if rate is None or time.monotonic() < self._ask_after:
            return 0.0
        try:
            return self._limits.admit(Limit(f"key:{key.id}", rate), intents)
        except LimitsUnavailable as away:
            self._ask_after = time.monotonic() + AWAY_S
            _log.warning("key_rates_not_held", reason=str(away))
            return 0.0


def create_key(
    runtime: Runtime,
    brand: str,
    *,
    senders: Sequence[str] | None = None,
    test: bool = False,
    label: str = "",
    per_second: float | None = None,
    actor: str = "cli",
) -> str:
    """Make a key and return it; it cannot be shown again.

    `per_second` is how many intents a second it may enqueue. Raises `UnknownBrand` or `BadRate`.
    """
    if per_second is not None and not 0 < per_second < math.inf:
        raise BadRate("rate: must be a number above 0 (to stop a key, revoke it)")
    runtime.catalog.forget()
    known = runtime.catalog().brands.get(brand)
    if known is None:
        raise UnknownBrand(f"brand: {brand!r} is not declared; see brands.toml")
    missing = sorted(set(senders or ()) - set(known.senders))
    if missing:
        raise UnknownBrand(f"senders: {', '.join(missing)} not declared; see brands.toml")
    prefix = secrets.token_hex(8)
    secret = secrets.token_urlsafe(32)
    with runtime.engine.begin() as connection:
        insert_key(
            connection,
            brand_id=known.id,
            prefix=prefix,
            secret_hash=_hash(secret),
            senders=senders,
            test=test,
            label=label,
            per_second=per_second,
        )
        audit.note(connection, actor=actor, action="key.create", subject={"prefix": prefix})
    return f"{TEST if test else LIVE}_{brand}_{prefix}_{secret}"


def check_key(runtime: Runtime, text: str) -> Key | None:
    """Return what a key allows, or None where it is not one of ours in force."""
    kind, _, rest = text.partition("_")
    brand, _, rest = rest.partition("_")
    prefix, _, secret = rest.partition("_")
    if kind not in (LIVE, TEST) or not secret:
        return None
    with runtime.engine.begin() as connection:
        key = find_key(connection, prefix)
    if key is None or not hmac.compare_digest(key.hash, _hash(secret)):
        return None
    return key if key.brand == brand and key.test == (kind == TEST) else None


def revoke(runtime: Runtime, prefix: str, actor: str = "cli") -> bool:
    """Revoke a key by its prefix; say whether there was one in force."""
    with runtime.engine.begin() as connection:
        done = revoke_key(connection, prefix)
        if done:
            audit.note(connection, actor=actor, action="key.revoke", subject={"prefix": prefix})
    return done


def all_keys(runtime: Runtime) -> list[Key]:
    """Every key, without any secret."""
    with runtime.engine.begin() as connection:
        return list_keys(connection)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
