"""Logs: one event name with fields per line, JSON for machines and colours for a terminal."""

import logging
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

_ROOT = Path(__file__).parents[2]
# These tell of each task or request what our own lines or Flower tell better.
_QUIETER = {
    "celery.apps.worker": logging.WARNING,
    "celery.worker.consumer.connection": logging.WARNING,
    "celery.worker.strategy": logging.CRITICAL,  # it quotes the arguments
    "celery.worker.request": logging.WARNING,
    "celery.app.trace": logging.CRITICAL,  # its lines quote exceptions; `QuietTask` logs failures
    "celery.beat": logging.WARNING,
    "alembic": logging.WARNING,
    "urllib3": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "tornado.access": logging.ERROR,
}


_CONSUMER = "celery.worker.consumer.consumer"
_NOT_TAKEN = {
    "Received unregistered task": "unknown task",
    "Received invalid task": "invalid task",
    "Received and deleted": "no task",
    "Can't decode": "cannot be decoded",
}
"""How Celery begins what it says of a message that it does not take, and what we say."""
_TASK_NAME = re.compile(r"[\w.]{1,100}")


def configure_logging(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "console"] = "auto",
) -> None:
    """Set up structlog and the standard library's logging, both to standard error.

    `auto` is the console form on a terminal and JSON elsewhere. May be called again.
    """
    for_people = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        quiet_exceptions,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, at_least in _QUIETER.items():
        logging.getLogger(name).setLevel(max(at_least, root.level))
    logging.getLogger(_CONSUMER).addFilter(_quiet_bodies)  # once, however often it is added


def _quiet_bodies(record: logging.LogRecord) -> bool:
    """Tell without its body of a message that no task takes: Celery quotes the whole of it."""
    said = str(record.msg)
    if "body" not in said:
        return True
    told = (problem for begins, problem in _NOT_TAKEN.items() if said.startswith(begins))
    fields = {"problem": next(told, "not taken")}
    found = record.args if isinstance(record.args, tuple) else ()
    for error in (each for each in found if isinstance(each, Exception)):
        fields["kind"] = type(error).__name__
        if isinstance(error, KeyError) and _TASK_NAME.fullmatch(name := str(error.args[0])):
            fields["task"] = name
    structlog.get_logger(_CONSUMER).error("message_not_taken", **fields)
    return False


def quiet_exceptions(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace an exception by its kinds and places: its text may quote a row or an address."""
    del logger, method
    problem = event.pop("exc_info", None)
    if problem is True:
        problem = sys.exc_info()[1]
    if isinstance(problem, tuple):
        problem = problem[1]
    if isinstance(problem, BaseException):
        event["exception"] = where(problem)
    return event


def where(error: BaseException) -> str:
    """Kind and place of an exception and of what caused it, without a word that it says."""
    told = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    place = _place(error.__traceback__)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{told} at {place}" + (f", from {where(cause)}" if cause is not None else "")


def _place(trace: TracebackType | None) -> str:
    """The innermost frame of our own code, and the innermost of all where that is another."""
    frames = traceback.extract_tb(trace)
    ours = [
        frame
        for frame in frames
        if Path(frame.filename).is_relative_to(_ROOT) and "site-packages" not in frame.filename
    ]
    chosen = ours[-1:] + [frame for frame in frames[-1:] if frame not in ours[-1:]]
    return ", ".join(f"{_short(frame.filename)}:{frame.lineno}" for frame in chosen) or "nowhere"


def _short(filename: str) -> str:
    path = Path(filename)
    _, installed, inside = filename.rpartition("site-packages/")
    if installed:
        return inside
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else path.name
