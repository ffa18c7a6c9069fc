"""What a log line may hold: event and fields, and never a word that an exception says."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from app.observe.logging import configure_logging, where

PRIVATE = "ada@example.com"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
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
