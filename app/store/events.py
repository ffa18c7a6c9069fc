"""Events: the facts that came back about deliveries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.store.addresses import same_address
from app.store.deliveries import IN_DOUBT
from app.store.session import as_rows

RECENT_INTENTS = 200
"""How many of a customer's intents, the newest first, are searched for earlier deliveries."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A delivery that feedback is about."""

    id: int
    intent_id: UUID
    endpoint_id: int
    account: str
    provider_ref: str | None
    handed_over_at: datetime | None
    policy_id: int
    trace: str | None
    brand_id: int
    customer_id: int
    sender_id: int
    kind: str
    channel: str


_SPOKEN = """
    SELECT d.id, d.intent_id, d.endpoint_id, d.account, d.provider_ref, d.handed_over_at,
           i.policy_id, i.trace, i.brand_id, i.customer_id, i.sender_id, i.kind, d.channel
      FROM deliveries d JOIN intents i ON i.id = d.intent_id """


def find_by_id(connection: Connection, ids: Collection[int]) -> dict[int, Spoken]:
    """Find deliveries by id."""
    rows = connection.execute(
        text(_SPOKEN + "WHERE d.id = ANY(CAST(:ids AS bigint[]))"), {"ids": list(ids)}
    )
    return {row.id: Spoken(*row) for row in rows}


def find_by_ref(connection: Connection, account: str, refs: Collection[str]) -> dict[str, Spoken]:
    """Find deliveries by the reference that the account's provider gave them."""
    rows = connection.execute(
        text(
            _SPOKEN + "WHERE d.account = :account AND d.provider_ref = ANY(CAST(:refs AS text[]))"
        ),
        {"account": account, "refs": list(refs)},
    )
    return {str(row.provider_ref): Spoken(*row) for row in rows}


def find_without_ref(
    connection: Connection, account: str, ids: Collection[int]
) -> dict[int, Spoken]:
    """Find deliveries by id of which the account's provider may have taken a try, and gave us no
    reference: no verdict came, or none yet."""
    rows = connection.execute(
        text(f"""{_SPOKEN}
             WHERE d.id = ANY(CAST(:ids AS bigint[])) AND d.account = :account
               AND d.provider_ref IS NULL
               AND (d.state IN ('sending', 'unknown', 'failed')
                    OR d.state IN ('planned', 'queued') AND {IN_DOUBT})"""),
        {"account": account, "ids": list(ids)},
    )
    return {row.id: Spoken(*row) for row in rows}


def learn_refs(connection: Connection, refs: Mapping[int, str]) -> None:
    """Keep the references of deliveries of which we had none: their provider has them.

    What waited to be tried again is sent; what is being sent is left to its worker, or to the end
    of its lease.
    """
    connection.execute(
        text("""
            WITH mine AS (
                SELECT d.id, r.ref, d.state <> 'sending' AND d.state <> 'failed' AS waited
                  FROM deliveries d
                  JOIN unnest(CAST(:ids AS bigint[]), CAST(:refs AS text[])) AS r(id, ref)
                 USING (id)
                 WHERE d.provider_ref IS NULL
                   AND d.state IN ('sending', 'unknown', 'failed', 'planned', 'queued')
                 ORDER BY d.id FOR UPDATE OF d)
            UPDATE deliveries d SET provider_ref = mine.ref,
                   state = CASE WHEN waited THEN 'sent' ELSE d.state END,
                   reason = CASE WHEN NOT waited THEN d.reason END,
                   handed_over_at = CASE WHEN waited THEN now() ELSE d.handed_over_at END,
                   due_at = CASE WHEN NOT waited THEN d.due_at
                                 WHEN i.state = 'open' THEN now() END
              FROM mine, intents i WHERE d.id = mine.id AND i.id = d.intent_id"""),
        {"ids": list(refs), "refs": list(refs.values())},
    )


def find_by_address(
    connection: Connection, account: str, asked: Sequence[Mapping[str, Any]], within_s: float
) -> dict[int, Spoken]:
    """Find what was last handed over to an address through the account, not long ago.

    Asked is `{"n", "address", "latest" (not handed over after it; null: whenever)}`; told by `n`.
    """
    rows = connection.execute(
        text(f"""
            SELECT DISTINCT ON (a.n) a.n, d.id, d.intent_id, d.endpoint_id, d.account,
                   d.provider_ref, d.handed_over_at, i.policy_id, i.trace, i.brand_id,
                   i.customer_id, i.sender_id, i.kind, d.channel
              FROM json_to_recordset(CAST(:asked AS json)) AS a(
                   n int, address text, latest timestamptz)
             CROSS JOIN brands b
              JOIN endpoints e ON e.brand_id = b.id AND {same_address("e", "a.address")}
             CROSS JOIN LATERAL (
                  SELECT id, policy_id, trace, brand_id, customer_id, sender_id, kind FROM intents
                   WHERE customer_id = e.customer_id
                   ORDER BY accepted_at DESC LIMIT :recent) i
              JOIN deliveries d ON d.intent_id = i.id AND d.endpoint_id = e.id
             WHERE d.account = :account
               AND d.handed_over_at > now() - make_interval(secs => :within)
               AND (a.latest IS NULL OR d.handed_over_at <= a.latest)
             ORDER BY a.n, d.handed_over_at DESC"""),  # noqa: S608  # constants of ours
        {
            "account": account,
            "asked": as_rows(list(map(dict, asked))),
            "within": within_s,
            "recent": RECENT_INTENTS,
        },
    )
    return {row[0]: Spoken(*row[1:]) for row in rows}


def find_before(connection: Connection, ids: Collection[int]) -> list[tuple[int, Spoken]]:
    """Find what went to the same endpoint through the same account before each delivery.

    Of intents that are still open alone; each is told with the later delivery's id.
    """
    rows = connection.execute(
        text("""
            SELECT last.id, d.id, d.intent_id, d.endpoint_id, d.account, d.provider_ref,
                   d.handed_over_at, i.policy_id, i.trace, i.brand_id, i.customer_id,
                   i.sender_id, i.kind, d.channel
              FROM deliveries last
              JOIN intents l ON l.id = last.intent_id
             CROSS JOIN LATERAL (
                  SELECT id, state, policy_id, trace, brand_id, customer_id, sender_id, kind
                    FROM intents WHERE customer_id = l.customer_id
                   ORDER BY accepted_at DESC LIMIT :recent) i
              JOIN deliveries d ON d.intent_id = i.id AND d.endpoint_id = last.endpoint_id
             WHERE last.id = ANY(CAST(:ids AS bigint[])) AND i.state = 'open'
               AND d.account = last.account AND d.id <> last.id
               AND d.handed_over_at <= last.handed_over_at
             ORDER BY last.id, d.id"""),
        {"ids": list(ids), "recent": RECENT_INTENTS},
    )
    return [(row[0], Spoken(*row[1:])) for row in rows]


def links_followed(
    connection: Connection, intent_ids: Collection[UUID]
) -> list[tuple[int, int, datetime]]:
    """Links of ours that were followed, by whomever: of which delivery, which link, and when."""
    rows = connection.execute(
        text("""
            SELECT delivery_id, CAST(split_part(external_id, ':', 3) AS int), at FROM events
             WHERE intent_id = ANY(CAST(:ids AS uuid[])) AND source = 'tracking'
               AND split_part(external_id, ':', 2) = 'clicked'"""),
        {"ids": list(intent_ids)},
    )
    return [(row[0], row[1], row[2]) for row in rows]


def insert_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Write events down, each fact once; return the places in `rows` of those that were new.

    A row is `{"n", "source", "external_id", "intent_id", "delivery_id", "type", "reason", "at",
    "detail"}`, where `n` is its place.
    """
    done = connection.execute(
        text("""
            WITH rows AS MATERIALIZED (
                SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
                    n int, source text, external_id text, intent_id uuid, delivery_id bigint,
                    type text, reason text, at timestamptz, detail jsonb)
            ), new AS (
                INSERT INTO events (source, external_id, intent_id, delivery_id, type, reason,
                                    at, detail)
                SELECT source, external_id, intent_id, delivery_id, type, reason, at, detail
                  FROM rows ORDER BY source, external_id
                ON CONFLICT ON CONSTRAINT one_event_per_fact DO NOTHING
                RETURNING source, external_id
            )
            SELECT rows.n FROM rows JOIN new USING (source, external_id)"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )
    return list(done.scalars())


def mark_delivered(connection: Connection, ids: Collection[int], sources: Sequence[str]) -> None:
    """Note that deliveries arrived; their escalation clocks go on.

    `sources` are the states from which this is possible.
    """
    connection.execute(
        text("""
            WITH mine AS (
                SELECT id FROM deliveries WHERE id = ANY(CAST(:ids AS bigint[]))
                   AND state = ANY(CAST(:sources AS text[])) ORDER BY id FOR UPDATE)
            UPDATE deliveries d SET state = 'delivered',
                   handed_over_at = coalesce(d.handed_over_at, now()),
                   due_at = CASE WHEN i.state = 'open' AND d.state = 'sent' THEN d.due_at
                                 WHEN i.state = 'open' THEN now() END
              FROM mine, intents i WHERE d.id = mine.id AND i.id = d.intent_id"""),
        {"ids": list(ids), "sources": list(sources)},
    )


def mark_failed(
    connection: Connection, reasons: Mapping[int, str], sources: Sequence[str]
) -> list[UUID]:
    """Note that handed-over deliveries did not arrive; return their intents, to be decided at once.

    `sources` are the states from which this is possible.
    """
    rows = connection.execute(
        text("""
            WITH mine AS (
                SELECT d.id, r.reason FROM deliveries d
                  JOIN unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS r(id, reason)
                 USING (id)
                 WHERE d.state = ANY(CAST(:sources AS text[])) ORDER BY d.id FOR UPDATE OF d)
            UPDATE deliveries d SET state = 'failed', reason = mine.reason,
                   due_at = CASE WHEN i.state = 'open' THEN now() END
              FROM mine, intents i WHERE d.id = mine.id AND i.id = d.intent_id
            RETURNING d.intent_id"""),
        {
            "ids": list(reasons),
            "reasons": list(reasons.values()),
            "sources": list(sources),
        },
    )
    return list(rows.scalars())
