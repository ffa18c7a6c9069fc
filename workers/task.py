"""The base of our tasks: what an exception says stays in this process."""

from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry
from celery.worker.request import Request
from structlog.contextvars import bound_contextvars

from app.observe.logging import where
from workers.gate import gate

log = structlog.get_logger()


class TaskFailed(Exception):
    """A task raised: the kind of the exception and the place in our code, and nothing that it said.

    Celery puts an exception's text and traceback into events, which Flower shows; a database error,
    for one, quotes the row.
    """


class ShapedRequest(Request):  # type: ignore[misc]  # Celery ships no types
    """A request whose body has the shape of one.

    Celery would let what has another shape end the worker, and the next one that gets it back.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Raises `InvalidTaskError`, for which Celery rejects the message."""
        try:
            super().__init__(*args, **options)
        except (TypeError, ValueError, LookupError, AttributeError):
            raise InvalidTaskError("of no shape that is known") from None


class QuietTask(Task):  # type: ignore[misc]  # Celery ships no types
    """Runs a task so that only a `TaskFailed` leaves it."""

    abstract = True
    Request = ShapedRequest

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; raises `TaskFailed` for whatever it raises. Its log lines say whose."""
        request = self.request
        with bound_contextvars(task_id=request.id, worker=request.hostname):
            try:
                gate.enter()
                return self.run(*args, **kwargs)
            except (Ignore, Reject, Retry):
                raise
            except Exception as error:  # noqa: BLE001  # told on without its text, just below
                place = where(error)
            log.error("task_failed", task=self.name, error=place)
        raise TaskFailed(place)
