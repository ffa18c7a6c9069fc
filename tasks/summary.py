"""What a task says of itself: counts, and never anything private."""

from collections.abc import Mapping
from typing import Any

from converge_producer.wire import WIRE_VERSION


class UnknownPayload(Exception):
    """The payload is of a version that this release does not read."""


def check_version(payload: Mapping[str, Any]) -> None:
    """Take this version's payloads and those of the one before; raises `UnknownPayload`."""
    if payload.get("v") not in (WIRE_VERSION, WIRE_VERSION - 1):
        raise UnknownPayload(f"version {payload.get('v')!r}; this release reads {WIRE_VERSION}")


def count_line(counts: Mapping[str, int]) -> str:
    """Counts as one line: `sent 180, retry 15, rejected 5`."""
    return ", ".join(f"{word} {count}" for word, count in counts.items() if count) or "nothing"
