"""Events: the facts that came back about deliveries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.store.session import as_rows


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


_SPOKEN = """
    SELECT d.id, d.intent_id, d.endpoint_id, d.account, d.provider_ref, d.handed_over_at,
           i.policy_id
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
                   due_at = CASE WHEN d.state = 'sent' THEN d.due_at
                                 WHEN i.state = 'open' THEN now() END
              FROM mine, intents i WHERE d.id = mine.id AND i.id = d.intent_id"""),
        {"ids": list(ids), "sources": list(sources)},
    )


def mark_bounced(
    connection: Connection, reasons: Mapping[int, str], sources: Sequence[str]
) -> list[UUID]:
    """Note that handed-over deliveries came back; return their intents, to be decided at once."""
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
