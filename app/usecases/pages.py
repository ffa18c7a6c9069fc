"""Pages of lists: opaque cursors that say where a list goes on."""

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

Rows = tuple[list[dict[str, Any]], str | None]
"""One page, and the cursor of the next (None: it was the last)."""
MOST_ROWS = 500


class BadFilter(Exception):
    """A filter or cursor cannot be used; `field` says which, `reason` what it may be."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def bounded(limit: int) -> int:
    """A page's length: from 1 to `MOST_ROWS`."""
    return max(1, min(limit, MOST_ROWS))


def page_by_id(rows: list[dict[str, Any]], limit: int) -> Rows:
    """Cut a list that goes by id, of which one row more than `limit` was read."""
    more = len(rows) > limit
    return rows[:limit], _cursor(rows[limit - 1]["id"]) if more else None


def page_by_time(rows: list[dict[str, Any]], limit: int) -> Rows:
    """Cut a list that goes by time of acceptance and id."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], _cursor(last["accepted_at"].isoformat(), last["id"])


def read_time(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Where a list by time goes on; raises `BadFilter`."""
    if cursor is None:
        return None
    try:
        at, key = _parts(cursor)
        return datetime.fromisoformat(at), UUID(key)
    except ValueError as error:
        raise BadFilter("cursor", "is not one that this list gave") from error


def read_id(cursor: str | None) -> int | None:
    """Where a list by id goes on; raises `BadFilter`."""
    if cursor is None:
        return None
    try:
        (number,) = _parts(cursor)
        return int(number)
    except ValueError as error:
        raise BadFilter("cursor", "is not one that this list gave") from error


def _cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(" ".join(map(str, parts)).encode()).decode().rstrip("=")


def _parts(cursor: str) -> list[str]:
    # binascii.Error and UnicodeError are ValueErrors.
    padded = cursor.encode() + b"=" * (-len(cursor) % 4)
    return base64.urlsafe_b64decode(padded).decode().split(" ")
