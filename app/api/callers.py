"""Who calls: the bearer key (RFC 6750), checked against the ledger and remembered for seconds."""

import hashlib
import math
import threading
import time
from collections.abc import Mapping
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.problems import Problem
from app.store.keys import Key
from app.usecases.operating.keys import KeyRates, check_key
from app.usecases.runtime import Runtime

FRESH_S = 3.0
"""How long a key is remembered, so how long one that was revoked may still be used."""
REMEMBERED = 10_000

_bearer = HTTPBearer(
    auto_error=False, description="A key made with `converge keys create`; it names the brand."
)


class Keys:
    """Checks keys, and remembers good ones by a hash for `FRESH_S` seconds; safe over threads.

    Looking a SHA-256 digest up tells nothing about the key by the time it takes.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[bytes, tuple[Key, float]] = {}
        self._lock = threading.Lock()

    def remembered(self, text: str) -> Key | None:
        """A key that was good a moment ago."""
        found = self._known.get(_digest(text))
        return found[0] if found and found[1] > time.monotonic() else None

    def check(self, text: str) -> Key | None:
        """Ask the ledger."""
        key = check_key(self._runtime, text)
        if key is not None:
            with self._lock:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[_digest(text)] = key, time.monotonic() + FRESH_S
        return key


async def _caller(
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Key:
    """The key of a request; raises 401."""
    if given is None:
        raise _unauthorised("give a key: Authorization: Bearer KEY")
    key = await key_in_force(request, given.credentials)
    if key is None:
        raise _unauthorised("this key is not in force; make one with `converge keys create`")
    return key


async def key_in_force(request: Request, text: str) -> Key | None:
    """What a key allows that somebody gave, or None where it is not one of ours in force."""
    keys: Keys = request.app.state.parts.keys
    return keys.remembered(text) or await anyio.to_thread.run_sync(keys.check, text)


Caller = Annotated[Key, Depends(_caller)]
"""An endpoint's parameter of this type makes a key necessary."""


def hold_to_rate(rates: KeyRates, key: Key, intents: int) -> None:
    """Count intents against the key's rate; raises 429 where it has none left, and counts none."""
    wait_s = rates.wait_s(key, intents)
    if wait_s > 0:
        raise Problem(
            429,
            "too_many",
            f"this key may enqueue {rates.of(key):g} intents a second; nothing of this was taken",
            field="Authorization",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )


def may_see(key: Key, intent: Mapping[str, Any]) -> bool:
    """Whether a key reaches an intent of its brand: of its senders, and a test key of tests."""
    if key.senders is not None and intent.get("sender") not in key.senders:
        return False
    return bool(intent.get("test", True)) or not key.test


def _unauthorised(detail: str) -> Problem:
    return Problem(
        401, "unauthorized", detail, field="Authorization", headers={"WWW-Authenticate": "Bearer"}
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
