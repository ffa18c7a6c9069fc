"""Timelines: everything that happened between a brand and one customer, in the order of time."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.store.reports import Found


@dataclass(frozen=True, slots=True)
class Place:
    """One thing that happened: which (`ref`, within its intent and sort), and where it stands.

    Places are in order by all of their parts; those without an intent have none.
    """

    at: datetime
    intent_id: UUID | None
    rank: int
    ref: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a customer may be seen: what is about these senders (None: all) or about none, and
    intents of tests alone or all."""

    senders: Collection[int] | None = None
    tests_alone: bool = False

    @property
    def narrow(self) -> bool:
        """Whether it is less than everything."""
        return self.senders is not None or self.tests_alone


SORTS = ("accepted", "consent", "message", "decided", "attempt", "event", "refused", "ended")
"""By rank: what comes first of several things of one intent that happened at one time."""


def places_of(
    connection: Connection,
    customer_id: int,
    bounds: Bounds,
    *,
    before: Place | None = None,
    since: datetime | None = None,
    limit: int,
) -> list[Place]:
    """What happened to a customer, the newest first; older than `before`, not older than `since`.

    It reads all intents of the one customer: a page costs what they have, not what others have.
    """
    values: dict[str, Any] = {
        "customer": customer_id,
        "senders": None if bounds.senders is None else list(bounds.senders),
        "tests": bounds.tests_alone,
        "narrow": bounds.narrow,
        "since": since,
        "limit": limit,
        "at": before.at if before else None,
        "intent": str(before.intent_id or "") if before else "",
        "rank": before.rank if before else 0,
        "ref": before.ref if before else "",
    }
    return [
        Place(at, UUID(intent) if intent else None, rank, ref)
        for at, intent, rank, ref in connection.execute(text(_PLACES), values)
    ]


_PLACES = """
    WITH mine AS MATERIALIZED (
        SELECT id, accepted_at, ended_at FROM intents
         WHERE customer_id = :customer AND (NOT :tests OR test)
           AND (CAST(:senders AS int[]) IS NULL OR sender_id = ANY(CAST(:senders AS int[])))
    ), told (at, intent, rank, ref) AS (
        SELECT accepted_at, id::text, 0, '' FROM mine
         UNION ALL
        SELECT c.at, '', 1, c.id::text FROM consents c
         WHERE c.customer_id = :customer
           AND (CAST(:senders AS int[]) IS NULL OR c.sender_id IS NULL
                OR c.sender_id = ANY(CAST(:senders AS int[])))
         UNION ALL
        SELECT m.at, coalesce(d.intent_id::text, ''), 2, m.id::text
          FROM inbound_messages m LEFT JOIN deliveries d ON d.id = m.delivery_id
         WHERE m.customer_id = :customer
           AND (NOT :narrow OR d.intent_id IN (SELECT id FROM mine))
         UNION ALL
        SELECT d.at, d.intent_id::text, 3, d.number::text
          FROM mine JOIN decisions d ON d.intent_id = mine.id
         UNION ALL
        SELECT a.finished_at, d.intent_id::text, 4, d.id || ':' || row_number() OVER (
                   PARTITION BY d.id ORDER BY a.started_at, a.number, a.claim_token) - 1
          FROM mine JOIN deliveries d ON d.intent_id = mine.id
          JOIN attempts a ON a.delivery_id = d.id
         UNION ALL
        SELECT e.at, e.intent_id::text, 5, e.id::text
          FROM mine JOIN events e ON e.intent_id = mine.id
         UNION ALL
        SELECT r.refused_at, r.intent_id::text, 6, r.id::text
          FROM mine JOIN refusals r ON r.intent_id = mine.id
         UNION ALL
        SELECT ended_at, id::text, 7, '' FROM mine WHERE ended_at IS NOT NULL
    )
    SELECT at, intent, rank, ref FROM told
     WHERE (CAST(:at AS timestamptz) IS NULL
            OR (at, intent, rank, ref) < (CAST(:at AS timestamptz), :intent, :rank, :ref))
       AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
     ORDER BY at DESC, intent DESC, rank DESC, ref DESC LIMIT :limit"""


def statements_by_id(connection: Connection, ids: Collection[int]) -> Found:
    """Statements of consent, with the address that they speak of, where it is still kept."""
    return _all(
        connection,
        """
        SELECT c.id, c.channel, c.sender_id, c.topic_id, c.kind, c.allow, c.until, c.own, c.source,
               c.endpoint_id IS NOT NULL AS of_address, e.channel AS address_channel, e.address
          FROM consents c LEFT JOIN endpoints e ON e.id = c.endpoint_id
         WHERE c.id = ANY(CAST(:ids AS bigint[]))""",
        ids,
    )


def messages_by_id(connection: Connection, ids: Collection[int]) -> Found:
    """Messages that came in, without what they say."""
    return _all(
        connection,
        """
        SELECT id, channel, service, from_address AS address, delivery_id AS delivery
          FROM inbound_messages WHERE id = ANY(CAST(:ids AS bigint[]))""",
        ids,
    )


def _all(connection: Connection, statement: str, ids: Collection[int]) -> Found:
    if not ids:
        return []
    rows = connection.execute(text(statement), {"ids": list(ids)}).mappings()
    return [dict(row) for row in rows]
