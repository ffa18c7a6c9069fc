"""What beat ticks. Ticks are idempotent, so any number of beats may run at once."""

from typing import Any

from converge_producer.queues import CONTROL, TASK_DISPATCH, TASK_UPKEEP
from converge_producer.wire import WIRE_VERSION


def schedule(dispatch_s: float, upkeep_s: float) -> dict[str, dict[str, Any]]:
    """Return beat's schedule; a tick that waited for most of an interval is not worth running."""
    return {
        name: {
            "task": name,
            "schedule": interval_s,
            "args": ({"v": WIRE_VERSION},),
            "options": {"queue": CONTROL, "expires": interval_s * 0.9, "argsrepr": "<tick>"},
        }
        for name, interval_s in ((TASK_DISPATCH, dispatch_s), (TASK_UPKEEP, upkeep_s))
    }
