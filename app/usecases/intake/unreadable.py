"""Refuse a chunk that no release can read; nobody waits for the answer, so the ledger keeps it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import DataError

from app.store.refusals import insert_refusals
from app.usecases.intake.binding import said_of
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)


def refuse_unread(
    runtime: Runtime, chunk: UUID, brand: str, documents: Sequence[Any], reason: str
) -> int:
    """Keep a refusal for each document of a chunk, as it came; return how many there are.

    What cannot be kept as JSON is kept without what it said.
    """
    known = runtime.catalog().brands.get(brand)
    rows = [
        {
            "line": line,
            "sender": said_of(document)[0],
            "key": said_of(document)[1],
            "intent_id": None,
            "field": "chunk",
            "code": "unreadable_chunk",
            "reason": f"the chunk cannot be read: {reason}",
            "document": document,
        }
        for line, document in enumerate(documents)
    ]
    brand_id = known.id if known else None
    try:
        with runtime.engine.begin() as connection:
            insert_refusals(connection, chunk, brand, brand_id, rows)
    except (DataError, TypeError):
        bare = [row | {"document": None, "sender": None, "key": None} for row in rows]
        with runtime.engine.begin() as connection:
            insert_refusals(connection, chunk, "", None, bare)
    _log.warning("chunk_unreadable", chunk=str(chunk), intents=len(rows), reason=reason)
    return len(rows)
