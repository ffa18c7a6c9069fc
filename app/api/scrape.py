"""The page of /metrics, made at most once a second however many ask for it."""

import time
from typing import Final

import anyio
import anyio.to_thread

from app.observe.exposition import render
from app.usecases.operating.metrics import measure
from app.usecases.runtime import Runtime

FRESH_S: Final = 1.0


class Scrape:
    """The page; whoever asks while it is made waits for it without a thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = anyio.Lock()
        self._page = b""
        self._made_at = float("-inf")

    async def __call__(self) -> bytes:
        """The page, at most `FRESH_S` seconds old."""
        async with self._lock:
            if time.monotonic() - self._made_at > FRESH_S:
                self._page = await anyio.to_thread.run_sync(self._make)
                self._made_at = time.monotonic()
            return self._page

    def _make(self) -> bytes:
        measured = measure(self._runtime)
        return render(measured.gauges, measured.totals)
