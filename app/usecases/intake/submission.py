"""What is handed in to be accepted, and what becomes of each document of it."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Submission:
    """Who hands in a chunk, and how: `chunk` makes a repeat harmless, `keep_refusals` says that
    nobody waits for the answer, so refusals are kept in the ledger."""

    brand: str
    chunk: UUID
    senders: Collection[str] | None = None
    test: bool = False
    keep_refusals: bool = False
    trace: str | None = None
    """The `traceparent` under which all of the chunk was enqueued, if it shall be traced."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one document. `status`: accepted, exists, conflict or refused."""

    line: int
    status: str
    id: UUID | None = None
    key: str | None = None
    field: str | None = None
    code: str | None = None
    reason: str | None = None
