"""The inbox as operators see it: what could not be read, and having it read again."""

from collections.abc import Collection
from typing import Any

from app.store import audit
from app.store.inbox import read_inbox_again, unfinished_inbox
from app.usecases.operating.control import Operator
from app.usecases.runtime import Runtime

NAMED = 100
"""How many ids the audit keeps of one change, beside how many there were."""


def unfinished(
    runtime: Runtime, *, unreadable: bool = False, limit: int = 50
) -> tuple[list[dict[str, Any]], bool]:
    """What came in and is not read, the newest first, and whether there is more.

    `{"id", "source" (the account), "received_at", "tries", "problem" (null: not tried yet),
    "again_at" (null: never, unless somebody says so), "bytes"}`; `unreadable` leaves out what is
    tried again by itself.
    """
    with runtime.engine.begin() as connection:
        rows = unfinished_inbox(connection, waiting=not unreadable, limit=limit + 1)
    return rows[:limit], len(rows) > limit


def read_again(runtime: Runtime, ids: Collection[int] | None, by: Operator) -> list[int]:
    """Have these read again, or everything that was given up; return which will be."""
    with runtime.engine.begin() as connection:
        again = read_inbox_again(connection, ids)
        if again:
            subject = {"ids": again[:NAMED], "count": len(again)}
            audit.note(
                connection,
                actor=by.name,
                action="inbox.retry",
                subject=subject,
                reason=by.reason,
            )
    if again:
        runtime.hints.feedback()
    return again
