"""What beat ticks. Ticks are idempotent, so any number of beats may run at once."""

from typing import Any

from converge_producer.queues import CONTROL, TASK_DISPATCH, TASK_UPKEEP
from converge_producer.wire import WIRE_VERSION


def schedule(dispatch_s: float, upkeep_s: float) -> dict[str, dict[str, Any]]:
    """Return beat's schedule.

    A tick never expires: Celery would compare beat's clock with the worker's, and where one of them
    is wrong nothing would be dispatched any more. A tick that finds it is late is dropped by its
    task instead (`every_s` says how often they come).
    """
    return {
        name: {
            "task": name,
            "schedule": interval_s,
            "args": ({"v": WIRE_VERSION, "every_s": interval_s},),
            "options": {"queue": CONTROL, "argsrepr": "<tick>"},
        }
        for name, interval_s in ((TASK_DISPATCH, dispatch_s), (TASK_UPKEEP, upkeep_s))
    }
