"""The inbox: what came back from outside, kept before it is read, each fact once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.store.session import as_rows

TRACKING = "tracking"
"""The source of what our own links report; every other source is a provider account."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One thing to keep. `external_id` names it within its source, so a repeat is kept once.

    It is read once `wait_s` seconds are over; `delivery_id` is the message that it is a fetch of.
    """

    source: str
    external_id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery_id: int | None = None
    wait_s: float = 0.0


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


def keep_arrivals(connection: Connection, arrivals: Sequence[Arrival]) -> int:
    """Keep what came in, all of it or nothing; return how much of it is new.

    In one order, so that two who keep the same at once wait for each other and no more.
    """
    done = connection.execute(
        text("""
            INSERT INTO inbox (source, external_id, body, headers, delivery_id, due_at)
            SELECT a.source, a.external_id, a.body, CAST(a.headers AS jsonb), a.delivery_id,
                   now() + make_interval(secs => a.wait_s)
              FROM unnest(CAST(:sources AS text[]), CAST(:names AS text[]),
                          CAST(:bodies AS bytea[]), CAST(:headers AS text[]),
                          CAST(:deliveries AS bigint[]), CAST(:waits AS float8[]))
                   AS a(source, external_id, body, headers, delivery_id, wait_s)
             ORDER BY a.source, a.external_id
            ON CONFLICT (source, external_id) DO NOTHING"""),
        {
            "sources": [one.source for one in arrivals],
            "names": [one.external_id for one in arrivals],
            "bodies": [one.body for one in arrivals],
            "headers": [orjson.dumps(dict(one.headers)).decode() for one in arrivals],
            "deliveries": [one.delivery_id for one in arrivals],
            "waits": [one.wait_s for one in arrivals],
        },
    )
    return done.rowcount


def inbox_waits(connection: Connection) -> bool:
    """Say whether something in the inbox is due to be read."""
    return bool(
        connection.execute(
            text("SELECT EXISTS (SELECT FROM inbox WHERE due_at <= now())")
        ).scalar_one()
    )


def take_inbox(connection: Connection, limit: int, most_bytes: int) -> list[Received]:
    """Lock what is due to be read, the oldest first, until the transaction ends.

    Bodies of `most_bytes` in all, and the one that goes beyond: there are long ones.
    """
    rows = connection.execute(
        text("""
            WITH due AS MATERIALIZED (
                SELECT id, due_at, octet_length(body) AS bytes FROM inbox
                 WHERE due_at <= now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
            ), upto AS (
                SELECT id, due_at, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS before FROM due)
            SELECT i.id, i.source, i.external_id, i.body, i.headers, i.received_at, i.tries
              FROM upto JOIN inbox i ON i.id = upto.id
             WHERE upto.before < :most_bytes ORDER BY upto.due_at, upto.id"""),
        {"limit": limit, "most_bytes": most_bytes},
    )
    return [Received(row[0], row[1], row[2], bytes(row[3]), *row[4:]) for row in rows]


def take_these(connection: Connection, ids: Collection[int]) -> list[Received]:
    """Lock these, due or not, until the transaction ends; those that somebody reads are left."""
    rows = connection.execute(
        text("""
            SELECT id, source, external_id, body, headers, received_at, tries FROM inbox
             WHERE id = ANY(CAST(:ids AS bigint[])) AND (due_at IS NOT NULL OR problem IS NOT NULL)
             ORDER BY id FOR UPDATE SKIP LOCKED"""),
        {"ids": list(ids)},
    )
    return [Received(row[0], row[1], row[2], bytes(row[3]), *row[4:]) for row in rows]


MOST_FETCHES = 5_000
"""Of so many that wait a verdict is made; whoever fetches more is no person."""


def fetches_waiting(
    connection: Connection, delivery_ids: Collection[int]
) -> list[tuple[bytes, datetime]]:
    """The notes of fetches of messages that are not read yet, and when each came in."""
    rows = connection.execute(
        text("""
            SELECT body, received_at FROM inbox
             WHERE delivery_id = ANY(CAST(:ids AS bigint[])) AND due_at IS NOT NULL LIMIT :most"""),
        {"ids": list(delivery_ids), "most": MOST_FETCHES},
    )
    return [(bytes(row.body), row.received_at) for row in rows]


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


def unfinished_inbox(connection: Connection, *, waiting: bool, limit: int) -> list[dict[str, Any]]:
    """What could not be read, the newest first; with `waiting` also what will be tried again.

    A row is `{"id", "source", "received_at", "tries", "problem", "again_at" (null: never),
    "bytes"}`: never the body.
    """
    rows = connection.execute(
        text("""
            SELECT id, source, received_at, tries, problem, due_at AS again_at,
                   octet_length(body) AS bytes
              FROM (SELECT * FROM (SELECT * FROM inbox WHERE due_at IS NULL AND problem IS NOT NULL
                                    ORDER BY id DESC LIMIT :limit) unreadable
                     UNION ALL
                    SELECT * FROM (SELECT * FROM inbox WHERE due_at IS NOT NULL AND :waiting
                                    ORDER BY id DESC LIMIT :limit) waiting) unfinished
             ORDER BY id DESC LIMIT :limit"""),
        {"waiting": waiting, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def read_inbox_again(connection: Connection, ids: Collection[int] | None) -> list[int]:
    """Let what could not be read be read again, now: these, or all of it; return which."""
    which = "id = ANY(CAST(:ids AS bigint[]))" if ids is not None else "due_at IS NULL"
    rows = connection.execute(
        text(f"""
            UPDATE inbox SET due_at = now(), tries = 0
             WHERE problem IS NOT NULL AND {which} RETURNING id"""),  # noqa: S608  # of two constants
        {} if ids is None else {"ids": list(ids)},
    )
    return sorted(rows.scalars())
