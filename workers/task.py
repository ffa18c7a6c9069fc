"""The base of our tasks: what an exception says stays in this process."""

from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from app.observe.logging import where

log = structlog.get_logger()


class TaskFailed(Exception):
    """A task raised: the kind of the exception and the place in our code, and nothing that it said.

    Celery puts an exception's text and traceback into events, which Flower shows; a database error,
    for one, quotes the row.
    """


class QuietTask(Task):  # type: ignore[misc]  # Celery ships no types
    """Runs a task so that only a `TaskFailed` leaves it."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; raises `TaskFailed` for whatever it raises."""
        try:
            return self.run(*args, **kwargs)
        except (Ignore, Reject, Retry):
            raise
        except Exception as error:  # noqa: BLE001  # told on without its text, just below
            place = where(error)
        log.error("task_failed", task=self.name, task_id=self.request.id, error=place)
        raise TaskFailed(place)
