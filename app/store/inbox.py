"""The inbox: what came back from outside, kept before it is read, each fact once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.store.session import as_rows

TRACKING = "tracking"
"""The source of what our own links report; every other source is a provider account."""


@dataclass(frozen=True, slots=True)
class Received:
    """One thing that came in. `body` is as it arrived; its source says how to read it."""

    id: int
    source: str
    external_id: str
    body: bytes
    headers: Mapping[str, str]
    received_at: datetime
    tries: int


def put_inbox(
    connection: Connection,
    source: str,
    external_id: str,
    body: bytes,
    headers: Mapping[str, Any],
) -> bool:
    """Keep what came in; say whether it is new."""
    done = connection.execute(
        text("""
            INSERT INTO inbox (source, external_id, body, headers)
            SELECT :source, :external_id, :body, h.headers
              FROM json_to_recordset(CAST(:headers AS json)) AS h(headers jsonb)
            ON CONFLICT (source, external_id) DO NOTHING"""),
        {
            "source": source,
            "external_id": external_id,
            "body": body,
            "headers": as_rows([{"headers": dict(headers)}]),
        },
    )
    return done.rowcount > 0


def inbox_waits(connection: Connection) -> bool:
    """Say whether something in the inbox is due to be read."""
    return bool(
        connection.execute(
            text("SELECT EXISTS (SELECT FROM inbox WHERE due_at <= now())")
        ).scalar_one()
    )


def take_inbox(connection: Connection, limit: int) -> list[Received]:
    """Lock what is due to be read, the oldest first, until the transaction ends."""
    rows = connection.execute(
        text("""
            SELECT id, source, external_id, body, headers, received_at, tries FROM inbox
             WHERE due_at <= now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"limit": limit},
    )
    return [Received(row[0], row[1], row[2], bytes(row[3]), *row[4:]) for row in rows]


def finish_inbox(connection: Connection, ids: Collection[int]) -> None:
    """Mark what was read, and forget who asked: addresses and agents have served their purpose."""
    connection.execute(
        text("""
            UPDATE inbox SET due_at = NULL, problem = NULL, body = '', headers = '{}'
             WHERE id = ANY(CAST(:ids AS bigint[]))"""),
        {"ids": list(ids)},
    )


def forget_inbox(connection: Connection, after_s: float, limit: int) -> int:
    """Remove what nobody waits for any more, of the `limit` oldest; return how many.

    Only the front of the inbox is looked at, however much is in it.
    """
    done = connection.execute(
        text("""
            DELETE FROM inbox WHERE id IN (
                SELECT id FROM (SELECT id, due_at, received_at FROM inbox
                                 ORDER BY id LIMIT :limit) oldest
                 WHERE due_at IS NULL AND received_at < now() - make_interval(secs => :after))"""),
        {"limit": limit, "after": after_s},
    )
    return done.rowcount


def keep_in_inbox(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Leave what could not be read: a row is `{"id", "problem", "again_s" (null: not again)}`."""
    connection.execute(
        text("""
            UPDATE inbox i SET problem = r.problem, tries = i.tries + 1,
                   due_at = now() + make_interval(secs => r.again_s)
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id bigint, problem text, again_s float8)
             WHERE i.id = r.id"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )
