"""Pages of lists: opaque cursors that say where a list goes on."""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from app.usecases.errors import FieldError

T = TypeVar("T")

Rows = tuple[list[dict[str, Any]], str | None]
"""One page, and the cursor of the next (None: it was the last)."""
MOST_ROWS = 500


class BadFilter(FieldError):
    """A filter or cursor cannot be used; `field` says which, `reason` what it may be."""


def bounded(limit: int) -> int:
    """A page's length: from 1 to `MOST_ROWS`."""
    return max(1, min(limit, MOST_ROWS))


def page_by_id(rows: list[dict[str, Any]], limit: int) -> Rows:
    """Cut a list that goes by id, of which one row more than `limit` was read."""
    more = len(rows) > limit
    return rows[:limit], cursor_of(rows[limit - 1]["id"]) if more else None


def page_by_time(rows: list[dict[str, Any]], limit: int) -> Rows:
    """Cut a list that goes by time of acceptance and id."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], cursor_of(last["accepted_at"].isoformat(), last["id"])


def read_time(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Where a list by time goes on; raises `BadFilter`."""
    if cursor is None:
        return None
    return read_parts(cursor, lambda at, key: (datetime.fromisoformat(at), UUID(key)))


def read_id(cursor: str | None) -> int | None:
    """Where a list by id goes on; raises `BadFilter`."""
    return None if cursor is None else read_parts(cursor, int)


def cursor_of(*parts: object) -> str:
    """An opaque cursor of parts without spaces."""
    return base64.urlsafe_b64encode(" ".join(map(str, parts)).encode()).decode().rstrip("=")


def read_parts(cursor: str, read: Callable[..., T]) -> T:
    """What `read` makes of a cursor's parts; where it raises `ValueError`, raises `BadFilter`."""
    padded = cursor.encode() + b"=" * (-len(cursor) % 4)
    try:
        # binascii.Error and UnicodeError are ValueErrors; a wrong number of parts is a TypeError.
        return read(*base64.urlsafe_b64decode(padded).decode().split(" "))
    except (ValueError, TypeError) as error:
        raise BadFilter("cursor", "is not one that this list gave") from error
