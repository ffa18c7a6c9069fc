"""What a producer hands intents to, and how it cuts them into chunks."""

import re
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from converge_producer.errors import Refusal

MAX_CHUNK_INTENTS: Final = 500
MAX_CHUNK_BYTES: Final = 1_000_000  # of JSON; a larger single intent is a chunk of its own

_KEY = re.compile(r"cv(?P<mode>[kt])_(?P<brand>.+)_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Checked intents that travel together: the JSON of each, its id, its place in what was given.

    `first` is the place (from 0) of the first one.
    """

    first: int
    ids: list[UUID]
    packed: list[str]


class Intake(Protocol):
    """One way of handing over."""

    def take(self, chunk: Chunk) -> list[Refusal]:
        """Hand a chunk over and return what was refused of it; raises `Unreachable`."""

    def close(self) -> None:
        """Close connections; the next `take` opens anew."""


def brand_of(key: str) -> str | None:
    """Return the brand that an API key names, or None when it is no key."""
    found = _KEY.fullmatch(key)
    return found["brand"] if found else None


def is_test_key(key: str | None) -> bool:
    """Say whether a key sends everything to the sandbox."""
    found = _KEY.fullmatch(key) if key else None
    return found is not None and found["mode"] == "t"


def chunked(ids: list[UUID], packed: list[str]) -> list[Chunk]:
    """Cut packed intents into chunks, in order, each within both limits."""
    chunks: list[Chunk] = []
    start = size = 0
    for place, one in enumerate(packed):
        weight = len(one) if one.isascii() else len(one.encode())
        if place > start and (
            place - start == MAX_CHUNK_INTENTS or size + weight > MAX_CHUNK_BYTES
        ):
            chunks.append(Chunk(start, ids[start:place], packed[start:place]))
            start, size = place, 0
        size += weight + 1
    if packed:
        chunks.append(Chunk(start, ids[start:], packed[start:]))
    return chunks
