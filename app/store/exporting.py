"""Everything that is kept of one customer, read part by part."""

from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

Rows = list[dict[str, Any]]


def record_of(connection: Connection, customer_id: int) -> dict[str, Any]:
    """A customer's own row, and what is short of all that hangs on it."""
    (row,) = _all(
        connection,
        """
        SELECT ref, name, locale, timezone, timezone_own_at, attributes, wishes, as_of, test,
               created_at, updated_at
          FROM customers WHERE id = :id""",
        customer_id,
    )
    return row


_LISTS = {
    "endpoints": """
        SELECT id, channel, service, address, state, reason, own_at, given_at, verified_at,
               created_at, updated_at
          FROM endpoints WHERE customer_id = :id ORDER BY id""",
    "activity": "SELECT channel, at FROM activity WHERE customer_id = :id ORDER BY channel",
    "counts": "SELECT cap, slot, n FROM cap_counts WHERE customer_id = :id ORDER BY cap, slot",
    "audit": """
        SELECT at, actor, action, subject, reason FROM audit
         WHERE subject -> 'customer' = to_jsonb(CAST(:id AS bigint)) AND subject ? 'customer'
         ORDER BY id""",
}
SHORT = tuple(_LISTS)
"""What is short enough to be read at once."""


def short_list(connection: Connection, name: str, customer_id: int) -> Rows:
    """One of the `SHORT` lists."""
    return _all(connection, _LISTS[name], customer_id)


def consents_after(connection: Connection, customer_id: int, after: int, limit: int) -> Rows:
    """What a customer ever allowed or forbade, in order, a page at a time; `id` goes on."""
    return _all(
        connection,
        """
        SELECT c.id, c.at, c.allow, c.channel, e.address, s.name AS sender, t.name AS topic, c.kind,
               c.until, c.own AND c.source <> 'answer' AS own, c.source, c.actor, c.evidence
          FROM consents c
          LEFT JOIN endpoints e ON e.id = c.endpoint_id
          LEFT JOIN senders s ON s.id = c.sender_id
          LEFT JOIN topics t ON t.id = c.topic_id
         WHERE c.customer_id = :id AND c.id > :after ORDER BY c.id LIMIT :limit""",
        customer_id,
        after=after,
        limit=limit,
    )


def messages_after(connection: Connection, customer_id: int, after: int, limit: int) -> Rows:
    """What a customer wrote, in order, a page at a time; `id` goes on."""
    return _all(
        connection,
        """
        SELECT id, account, channel, service, from_address, to_identity, text,
               delivery_id AS answers, at, received_at
          FROM inbound_messages WHERE customer_id = :id AND id > :after ORDER BY id LIMIT :limit""",
        customer_id,
        after=after,
        limit=limit,
    )


def refusals_after(connection: Connection, customer_id: int, after: int, limit: int) -> Rows:
    """What was refused of what was meant for a customer, while it is kept; `id` goes on."""
    return _all(
        connection,
        """
        SELECT r.id, r.refused_at, r.sender, r.key, r.field, r.code, r.reason, r.document
          FROM customers c JOIN refusals r ON r.brand_id = c.brand_id
         WHERE c.id = :id AND r.id > :after AND r.document IS NOT NULL
           AND (r.document->>'to' = c.ref OR r.document->'to'->>'ref' = c.ref)
         ORDER BY r.id LIMIT :limit""",
        customer_id,
        after=after,
        limit=limit,
    )


def bodies(connection: Connection, ids: Collection[UUID]) -> Iterator[tuple[UUID, Any, Any]]:
    """What intents said: each one's content and data; null once that is no longer kept."""
    rows = connection.execute(
        text("""
            SELECT i.id, c.document, CASE WHEN i.content_id <> 0 THEN i.data END
              FROM intents i LEFT JOIN contents c ON c.id = i.content_id AND i.content_id <> 0
             WHERE i.id = ANY(CAST(:ids AS uuid[]))"""),
        {"ids": list(ids)},
    )
    for row in rows:
        yield row[0], row[1], row[2]


def _all(connection: Connection, statement: str, customer_id: int, **more: Any) -> Rows:
    rows = connection.execute(text(statement), {"id": customer_id, **more})
    return [dict(row) for row in rows.mappings()]
