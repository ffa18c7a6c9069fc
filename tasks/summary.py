"""What a task says of itself: counts, and never anything private."""

from collections.abc import Mapping
from typing import Any

from converge_producer.wire import WIRE_VERSION


class UnknownPayload(Exception):
    """The payload is of a version that no release reads, or of none."""


class NewerPayload(Exception):
    """The payload is of a version that a release to come will read."""


def check_version(payload: Mapping[str, Any]) -> None:
    """Take this version's payloads and those of the one before.

    Raises `NewerPayload` or `UnknownPayload`. A hint of another version is let go: the ledger finds
    its rows, and hints at them again.
    """
    version = payload.get("v")
    if version in (WIRE_VERSION, WIRE_VERSION - 1):
        return
    if isinstance(version, int) and version > WIRE_VERSION:
        raise NewerPayload(f"version {version}; this release reads {WIRE_VERSION}")
    raise UnknownPayload(f"version {version!r:.20}; this release reads {WIRE_VERSION}")


def count_line(counts: Mapping[str, int]) -> str:
    """Counts as one line: `sent 180, retry 15, rejected 5`."""
    return ", ".join(f"{word} {count}" for word, count in counts.items() if count) or "nothing"
