"""What is looked at again and again by those who watch; every count stops at its bound."""

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What lies about: the age of the oldest unread thing (seconds), counts of what is stuck."""

    inbox_oldest_s: float
    unreadable: int
    failed: int


def leftovers(connection: Connection, limit: int) -> Leftovers:
    """Look at the inbox's oldest, and count what could not be read and what failed."""
    row = connection.execute(
        text("""
            SELECT (SELECT coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8
                      FROM inbox WHERE due_at <= now()),
                   (SELECT count(*) FROM (SELECT FROM inbox
                     WHERE due_at IS NULL AND problem IS NOT NULL LIMIT :limit) u),
                   (SELECT count(*) FROM (SELECT FROM deliveries WHERE state = 'failed'
                     LIMIT :limit) f)"""),
        {"limit": limit},
    ).one()
    return Leftovers(*row)
