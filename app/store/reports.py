"""Reports: intents and all that hangs on them, read for people. Nothing here changes anything."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

Found = list[dict[str, Any]]

_HEADS = """
    SELECT i.id, i.brand_id, i.sender_id, i.topic_id, i.policy_id, i.key, i.kind, i.urgency,
           i.campaign, i.test, i.state, i.reason, i.accepted_at, i.send_after, i.expires_at,
           i.decide_at, i.ended_at, i.seen_delivery_id, i.seen_as, c.ref
      FROM intents i JOIN customers c ON c.id = i.customer_id """


def intents_by_id(connection: Connection, ids: Collection[UUID]) -> Found:
    """Intents by id, the newest first."""
    return _all(
        connection,
        _HEADS + "WHERE i.id = ANY(CAST(:ids AS uuid[])) ORDER BY i.accepted_at DESC, i.id DESC",
        ids=list(ids),
    )


def intents_of_brand(
    connection: Connection,
    brand_id: int,
    *,
    ids: Collection[UUID] | None = None,
    customer: str | None = None,
    senders: Collection[int] | None = None,
    campaign: str | None = None,
    state: str | None = None,
    test: bool | None = None,
    before: tuple[datetime, UUID] | None = None,
    since: datetime | None = None,
    limit: int,
) -> Found:
    """Intents of a brand that fit every filter that is not None, the newest first.

    With a customer or ids an index finds them; otherwise they are read from the newest back.
    """
    conditions = ["i.brand_id = :brand_id"]
    values: dict[str, Any] = {"brand_id": brand_id, "limit": limit}
    for name, condition, value in (
        ("ids", "i.id = ANY(CAST(:ids AS uuid[]))", None if ids is None else list(ids)),
        (
            "customer",
            """i.customer_id = (
                SELECT id FROM customers WHERE brand_id = :brand_id AND ref = :customer)""",
            customer,
        ),
        (
            "senders",
            "i.sender_id = ANY(CAST(:senders AS int[]))",
            None if senders is None else list(senders),
        ),
        # As its index says it: that leaves out those of none.
        ("campaign", "i.campaign = :campaign" + " AND i.campaign <> ''" * bool(campaign), campaign),
        ("state", "i.state = :state", state),
        ("test", "i.test = :test", test),
        ("since", "i.accepted_at >= :since", since),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    if before is not None:
        conditions.append("(i.accepted_at, i.id) < (:before_at, CAST(:before_id AS uuid))")
        values["before_at"], values["before_id"] = before
    where = " AND ".join(conditions)
    return _all(
        connection,
        f"{_HEADS} WHERE {where} ORDER BY i.accepted_at DESC, i.id DESC LIMIT :limit",
        **values,
    )


def deliveries_of(connection: Connection, ids: Collection[UUID]) -> Found:
    """The deliveries of intents, by step; `address` is null where the endpoint is gone."""
    return _all(
        connection,
        """
        SELECT d.id, d.intent_id, d.step, d.channel, d.account, d.state, d.reason, d.due_at,
               d.attempts, d.crossed, d.provider_ref, d.handed_over_at, d.created_at, e.address,
               c.considered AS choice
          FROM deliveries d LEFT JOIN endpoints e ON e.id = d.endpoint_id
          LEFT JOIN choices c ON c.id = d.choice_id
         WHERE d.intent_id = ANY(CAST(:ids AS uuid[])) ORDER BY d.intent_id, d.step, d.id""",
        ids=list(ids),
    )


def attempts_of(connection: Connection, delivery_ids: Collection[int]) -> Found:
    """The attempts of deliveries, in the order in which they began."""
    return _all(
        connection,
        """
        SELECT delivery_id, number, account, outcome, reason, ref, started_at, finished_at,
               task_id AS task, worker
          FROM attempts WHERE delivery_id = ANY(CAST(:ids AS bigint[]))
         ORDER BY delivery_id, started_at, number, claim_token""",
        ids=list(delivery_ids),
    )


def events_of(connection: Connection, ids: Collection[UUID]) -> Found:
    """What came back about intents, in order."""
    return _all(
        connection,
        """
        SELECT e.intent_id, e.id, e.at, e.received_at, e.delivery_id AS delivery, d.channel, e.type,
               e.reason, e.source
          FROM events e LEFT JOIN deliveries d ON d.id = e.delivery_id
         WHERE e.intent_id = ANY(CAST(:ids AS uuid[])) ORDER BY e.at, e.id""",
        ids=list(ids),
    )


def decisions_of(connection: Connection, ids: Collection[UUID]) -> Found:
    """The decisions about intents, in order."""
    return _all(
        connection,
        """
        SELECT intent_id, number, at, cause, verdict, until, reason, considered
          FROM decisions WHERE intent_id = ANY(CAST(:ids AS uuid[]))
         ORDER BY intent_id, number""",
        ids=list(ids),
    )


_REFUSALS = """
    SELECT id, brand, sender, key, intent_id AS intent, field, code, reason, chunk,
           line + 1 AS line, refused_at, brand_id
      FROM refusals """


def refusals_of(connection: Connection, intent_ids: Collection[UUID]) -> Found:
    """Refusals that name these intents, the newest first."""
    return _all(
        connection,
        _REFUSALS + "WHERE intent_id = ANY(CAST(:ids AS uuid[])) ORDER BY id DESC LIMIT 100",
        ids=list(intent_ids),
    )


def refusals_to(
    connection: Connection,
    brand_ids: Collection[int],
    names: Collection[str],
    *,
    key: str | None,
    since: datetime | None,
    limit: int,
) -> Found:
    """Refusals meant for somebody named by ref or address, while their documents are kept.

    For operators: it reads the refusals of the brands, the newest first.
    """
    return _all(
        connection,
        _REFUSALS
        + """
         WHERE brand_id = ANY(CAST(:brand_ids AS int[])) AND document IS NOT NULL
           AND (jsonb_build_array(document->'to', document->'to'->'ref', document->'to'->'email',
                                  document->'to'->'phone', document->'to'->'chat',
                                  document->'to'->'social') ?| CAST(:names AS text[])
                OR jsonb_path_query_array(document, '$.to.*[*]') ?| CAST(:names AS text[]))
           AND (CAST(:key AS text) IS NULL OR key = :key)
           AND (CAST(:since AS timestamptz) IS NULL OR refused_at >= :since)
         ORDER BY id DESC LIMIT :limit""",
        brand_ids=list(brand_ids),
        names=list(names),
        key=key,
        since=since,
        limit=limit,
    )


def refusals(connection: Connection, brand_id: int | None, before: int | None, limit: int) -> Found:
    """Refusals, the newest first."""
    return _all(
        connection,
        _REFUSALS
        + """
         WHERE (CAST(:brand_id AS int) IS NULL OR brand_id = :brand_id)
           AND (CAST(:before AS bigint) IS NULL OR id < :before)
         ORDER BY id DESC LIMIT :limit""",
        brand_id=brand_id,
        before=before,
        limit=limit,
    )


_FAILED = """
    SELECT d.id, d.intent_id AS intent, i.key, d.brand_id, d.sender_id, c.ref AS customer,
           d.step, d.channel, e.address, d.account, d.attempts, d.reason, i.state AS intent_state,
           i.expires_at > now() AND i.state IN ('open', 'exhausted') AND i.content_id <> 0
               AS replayable,
           coalesce((SELECT max(a.finished_at) FROM attempts a WHERE a.delivery_id = d.id),
                    d.created_at) AS failed_at
      FROM deliveries d
      JOIN intents i ON i.id = d.intent_id
      JOIN customers c ON c.id = i.customer_id
      LEFT JOIN endpoints e ON e.id = d.endpoint_id """


def failed_deliveries(
    connection: Connection, brand_ids: Collection[int], before: int | None, limit: int
) -> Found:
    """Failed deliveries, the newest first, found brand by brand through their own index."""
    return _all(
        connection,
        _FAILED  # noqa: S608  # two constants
        + """
         WHERE d.id IN (
             SELECT f.id FROM unnest(CAST(:brand_ids AS int[])) AS b(id)
              CROSS JOIN LATERAL (
                  SELECT id FROM deliveries WHERE brand_id = b.id AND state = 'failed'
                     AND (CAST(:before AS bigint) IS NULL OR id < :before)
                   ORDER BY id DESC LIMIT :limit) f
              ORDER BY f.id DESC LIMIT :limit)
         ORDER BY d.id DESC""",
        brand_ids=list(brand_ids),
        before=before,
        limit=limit,
    )


def failed_delivery(connection: Connection, delivery_id: int) -> dict[str, Any] | None:
    """One failed delivery."""
    found = _all(connection, _FAILED + "WHERE d.id = :id AND d.state = 'failed'", id=delivery_id)
    return found[0] if found else None


def attempts_of_task(connection: Connection, task_id: UUID) -> Found:
    """What a Celery task tried, with the message of each attempt."""
    return _all(
        connection,
        """
        SELECT a.delivery_id AS delivery, d.intent_id AS intent, i.key, d.brand_id, d.channel,
               e.address, a.account, a.outcome, a.reason, d.state, a.started_at, a.finished_at,
               a.worker
          FROM attempts a
          JOIN deliveries d ON d.id = a.delivery_id
          JOIN intents i ON i.id = d.intent_id
          LEFT JOIN endpoints e ON e.id = d.endpoint_id
         WHERE a.task_id = :task_id ORDER BY a.delivery_id""",
        task_id=task_id,
    )


def customers_named(
    connection: Connection,
    brand_ids: Collection[int],
    refs: Collection[str],
    addresses: Collection[str],
) -> Found:
    """Customers by ref or by address, with their endpoints: a row for each endpoint."""
    return _all(
        connection,
        """
        WITH named AS (
            SELECT id FROM customers
             WHERE brand_id = ANY(CAST(:brand_ids AS int[])) AND ref = ANY(CAST(:refs AS text[]))
            UNION
            SELECT customer_id FROM endpoints
             WHERE brand_id = ANY(CAST(:brand_ids AS int[]))
               AND lower(address) = ANY(CAST(:small AS text[]))
               AND (channel = 'email' OR address = ANY(CAST(:addresses AS text[])))
        )
        SELECT c.id, c.brand_id, c.ref, e.channel, e.service, e.address, e.state, e.reason
          FROM named JOIN customers c USING (id) LEFT JOIN endpoints e ON e.customer_id = c.id
         ORDER BY c.id, e.id""",
        brand_ids=list(brand_ids),
        refs=list(refs),
        addresses=list(addresses),
        small=[one.lower() for one in addresses],
    )


def _all(connection: Connection, statement: str, **values: Any) -> Found:
    return [dict(row) for row in connection.execute(text(statement), values).mappings()]
