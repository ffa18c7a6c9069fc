"""The way into the inbox: what arrives together is kept together, and answered once it is safe.

A commit costs the disk the same for one row as for hundreds. So while one commit runs, arrivals
gather, and the next commit takes all of them; nobody waits for company when nothing runs.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

import anyio
import anyio.to_thread
import structlog

from app.api.problems import Problem
from app.store.inbox import Arrival
from app.usecases.hearing.hooks import keep
from app.usecases.hearing.links import Nudge
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4_000_000
MOST_WAITING: Final = 5_000

_Waiting = tuple[Arrival, asyncio.Future[None]]


class Keeper:
    """Keeps arrivals by group commit. Belongs to one event loop."""

    def __init__(self, runtime: Runtime, nudge: Nudge) -> None:
        self._runtime = runtime
        self._nudge = nudge
        self._thread = anyio.CapacityLimiter(1)
        self._waiting: deque[_Waiting] = deque()
        self._work: asyncio.Task[None] | None = None
        self._nudging: asyncio.Task[None] | None = None

    async def keep(self, arrival: Arrival) -> None:
        """Return once this is committed; raises `Problem` (503) where that was not to be."""
        if len(self._waiting) >= MOST_WAITING:
            raise _not_kept()
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, kept))
        if self._work is None:
            self._work = asyncio.create_task(self._commit_all())
        await kept

    async def _commit_all(self) -> None:
        while self._waiting:
            batch = self._batch()
            try:
                new, failed = await anyio.to_thread.run_sync(
                    keep, self._runtime, [arrival for arrival, _ in batch], limiter=self._thread
                )
            except Exception:  # noqa: BLE001  # whatever it was, each of them must be answered
                _log.warning("arrivals_not_kept", count=len(batch), exc_info=True)
                new, failed = 0, frozenset(range(len(batch)))
            _answer(batch, failed)
            if new and (self._nudging is None or self._nudging.done()):
                self._nudging = asyncio.create_task(anyio.to_thread.run_sync(self._nudge))
        self._work = None

    def _batch(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0].body)
        while self._waiting and len(batch) < BATCH_ROWS and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].body)
        return batch


def _answer(batch: Iterable[_Waiting], failed: frozenset[int]) -> None:
    for n, (_, kept) in enumerate(batch):
        if kept.done():  # nobody waits for it any more
            continue
        if n in failed:
            kept.set_exception(_not_kept())
        else:
            kept.set_result(None)


def _not_kept() -> Problem:
    return Problem(
        503,
        "not_kept",
        "this could not be kept; send it again, which makes nothing twice",
        headers={"Retry-After": "2"},
    )
