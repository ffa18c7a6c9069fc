"""What a log line may hold: event and fields, and never a word that an exception says."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.worker.consumer.consumer import Consumer
from kombu.message import Message

from app.observe.logging import configure_logging, where

PRIVATE = "ada@example.com"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    for _ in range(2):  # as workers do
        configure_logging("info", "json")
    yield output
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _fail() -> None:
    try:
        _ = {}[PRIVATE]
    except KeyError as error:
        raise ValueError(f"no such row: {PRIVATE}") from error


def test_a_line_is_an_event_with_fields(lines: io.StringIO) -> None:
    structlog.get_logger().info("batch_sent", deliveries=200)
    structlog.get_logger().debug("not_said")
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (line["event"], line["deliveries"], line["level"]) == ("batch_sent", 200, "info")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("logger", ["structlog", "logging"])
def test_an_exception_is_kinds_and_places(lines: io.StringIO, logger: str) -> None:
    try:
        _fail()
    except ValueError:
        if logger == "structlog":
            structlog.get_logger().exception("failed")
        else:
            logging.getLogger("somebody.else").exception("failed")
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert PRIVATE not in lines.getvalue()
    assert line["exception"].startswith("ValueError at tests/unit/test_house_logging.py:")
    assert ", from KeyError at tests/unit/test_house_logging.py:" in line["exception"]


def test_somebody_elses_code_shows_where_we_called_it() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(PRIVATE)
    place = where(caught.value)
    assert place.startswith("json.decoder.JSONDecodeError at tests/unit/test_house_logging.py:")
    assert "decoder.py:" in place
    assert PRIVATE not in place


def test_what_is_said_within_a_task_names_the_task_and_its_worker(lines: io.StringIO) -> None:
    app = Celery("test", task_cls="workers.task:QuietTask", set_as_current=False)

    @app.task(name="speak")  # type: ignore[untyped-decorator]  # Celery ships no types
    def speak(private: str) -> None:
        structlog.get_logger().info("said")
        raise ValueError(private)

    done = speak.apply((PRIVATE,))
    structlog.get_logger().info("afterwards")
    said, failed, afterwards = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (said["event"], said["task_id"]) == ("said", done.id)
    assert said["worker"]
    assert (failed["event"], failed["task"], failed["task_id"]) == ("task_failed", "speak", done.id)
    assert "task_id" not in afterwards
    assert PRIVATE not in lines.getvalue()


def _message() -> Message:
    return Message(
        body=json.dumps([[{"to": PRIVATE}], {}, {}]),
        channel=SimpleNamespace(no_ack_consumers=None, basic_ack=_nothing, basic_reject=_nothing),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "1", "task": "intents.take", "argsrepr": PRIVATE},
        properties={"correlation_id": PRIVATE},
    )


def _nothing(*_: Any, **__: Any) -> None:
    """As if the broker had been told."""


Told = Callable[[Any, Message], object]


@pytest.mark.parametrize(
    ("tell", "problem", "named"),
    [
        (
            lambda consumer, message: Consumer.on_unknown_task(
                consumer, message.body, message, KeyError("intents.take")
            ),
            "unknown task",
            {"kind": "KeyError", "task": "intents.take"},
        ),
        (
            lambda consumer, message: Consumer.on_unknown_task(
                consumer, message.body, message, KeyError(f"intents {PRIVATE}")
            ),
            "unknown task",
            {"kind": "KeyError"},
        ),
        (
            lambda consumer, message: Consumer.on_unknown_message(consumer, PRIVATE, message),
            "no task",
            {},
        ),
        (
            lambda consumer, message: Consumer.on_invalid_task(
                consumer, message.body, message, InvalidTaskError(PRIVATE)
            ),
            "invalid task",
            {"kind": "InvalidTaskError"},
        ),
        (
            lambda consumer, message: Consumer.on_decode_error(
                consumer, message, ValueError(PRIVATE)
            ),
            "cannot be decoded",
            {"kind": "ValueError"},
        ),
    ],
)
def test_what_no_worker_takes_is_told_without_its_body(
    lines: io.StringIO, tell: Told, problem: str, named: dict[str, str]
) -> None:
    consumer = SimpleNamespace(
        app=SimpleNamespace(backend=SimpleNamespace(mark_as_failure=_nothing)),
        event_dispatcher=None,
        connection_errors=(),
    )
    consumer._message_report = lambda *told: Consumer._message_report(consumer, *told)
    tell(consumer, _message())
    (line,) = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert PRIVATE not in lines.getvalue()
    told = {name: line[name] for name in ("event", "problem", "task", "kind") if name in line}
    assert told == {"event": "message_not_taken", "problem": problem} | named


def test_a_broker_that_is_away_is_still_told(lines: io.StringIO) -> None:
    consumer = SimpleNamespace(conninfo=SimpleNamespace(as_uri=lambda: "redis://broker/0"))
    Consumer.on_connection_error_before_connected(consumer, OSError("refused"))
    assert "consumer: Cannot connect to redis://broker/0: refused" in lines.getvalue()
