"""Copies of what the ledger holds, as each process keeps them for a moment."""

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Copy(Generic[T]):
    """A copy at most `fresh_s` seconds old, and as much older as reading it anew takes.

    One caller reads; meanwhile the others go by the copy that there is, for they may hold the very
    connections that the reader waits for. Safe over threads.
    """

    def __init__(self, read: Callable[[], T], fresh_s: float) -> None:
        self._read = read
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._known: tuple[T, float] | None = None

    def __call__(self) -> T:
        """The copy; only where there is none yet, everybody waits for it."""
        known = self._known
        if known is not None and self._fresh(known):
            return known[0]
        if not self._lock.acquire(blocking=known is None):
            assert known is not None  # noqa: S101  # who has none waits for the lock
            return known[0]
        try:
            known = self._known
            return known[0] if known is not None and self._fresh(known) else self.put(self._read())
        finally:
            self._lock.release()

    def put(self, value: T) -> T:
        """Take what was read just now as the copy; return it."""
        self._known = value, time.monotonic()
        return value

    def renewed(self) -> T:
        """The copy, read anew. It may be waited for, so the caller holds no connection."""
        with self._lock:
            return self.put(self._read())

    def forget(self) -> None:
        """Let the next look read it anew.

        What was known stays for those who look meanwhile: they do not wait for the reading.
        """
        known = self._known
        if known is not None:
            self._known = known[0], -math.inf

    def _fresh(self, known: tuple[T, float]) -> bool:
        return time.monotonic() - known[1] <= self._fresh_s
