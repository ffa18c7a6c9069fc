"""The ticks of beat: dispatch and upkeep."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import shared_task

from app.bootstrap import runtime
from app.usecases.delivering.dispatch import dispatch
from app.usecases.operating.upkeep import upkeep
from converge_producer.queues import TASK_DISPATCH, TASK_UPKEEP
from tasks.summary import check_version, count_line

HEAPED = "dropped: another tick has just run"


@shared_task(name=TASK_DISPATCH)
def dispatch_tick(payload: dict[str, Any]) -> str:
    """Pass on everything whose time has come."""
    check_version(payload)
    return count_line(dispatch(runtime())) if _turns.take(TASK_DISPATCH, payload) else HEAPED


@shared_task(name=TASK_UPKEEP)
def upkeep_tick(payload: dict[str, Any]) -> str:
    """Take away what has served its time."""
    check_version(payload)
    return count_line(upkeep(runtime())) if _turns.take(TASK_UPKEEP, payload) else HEAPED


class Turns:
    """Drops ticks of a heap: those that gathered while no worker took any come all at once.

    It goes by this process's monotonic clock, so that nobody's time of day matters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, float] = {}

    def take(self, name: str, payload: Mapping[str, Any]) -> bool:
        """Say whether a tick is to be run: the last one was half an interval ago, or longer."""
        now = time.monotonic()
        with self._lock:
            early = now - self._taken.get(name, float("-inf")) < payload.get("every_s", 0) / 2
            if not early:
                self._taken[name] = now
            return not early


_turns = Turns()
