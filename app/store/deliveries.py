"""Deliveries: claimed, settled, watched. Every move is a compare-and-set on the state."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.domain.vocabulary import DeliveryState
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in a worker's hands, with all that rendering and settling need."""

    id: int
    intent_id: UUID
    brand_id: int
    sender_id: int
    endpoint_id: int
    step: int
    attempts: int
    campaign: str
    address: str
    service: str
    content_id: int
    policy_id: int
    kind: str
    data: Mapping[str, Any]
    customer_name: str | None
    locale: str | None
    expires_at: datetime
    claimed_at: datetime


def claim(
    connection: Connection, ids: Collection[int], account: str, token: UUID, lease_s: float
) -> list[Claimed]:
    """Claim queued deliveries that may still go out: queued -> sending, with lease and token.

    A delivery that someone else claimed is left alone; one whose intent has ended or expired, or
    whose endpoint may not be used any more, ends here (`end_unclaimable`).
    """
    parameters = {"ids": list(ids), "account": account, "token": token, "lease": lease_s}
    rows = connection.execute(text(_CLAIM), parameters).all()
    if len(rows) < len(ids):
        connection.execute(text(_END_UNCLAIMABLE), parameters)
    return [Claimed(*row) for row in rows]


# `state || ''` keeps the planner off the partial index of queued rows: by statistics that are a
# moment old it is nearly empty, and every claim would read all of it instead of its own rows.
_CLAIM = """
    WITH picked AS MATERIALIZED (
        SELECT id FROM deliveries
         WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'queued' AND account = :account
         ORDER BY id FOR UPDATE SKIP LOCKED
    )
    UPDATE deliveries d SET state = 'sending', claim_token = :token,
           due_at = now() + make_interval(secs => :lease)
      FROM picked, intents i, endpoints e, customers c
     WHERE d.id = picked.id AND i.id = d.intent_id AND e.id = d.endpoint_id
       AND c.id = i.customer_id
       AND i.state = 'open' AND i.expires_at > now() AND e.state = 'active'
    RETURNING d.id, d.intent_id, d.brand_id, d.sender_id, d.endpoint_id, d.step, d.attempts,
              d.campaign, e.address, e.service, i.content_id, i.policy_id, i.kind, i.data,
              c.name, c.locale, i.expires_at, now()"""

_END_UNCLAIMABLE = """
    WITH picked AS MATERIALIZED (
        SELECT d.id, i.state AS intent, i.expires_at <= now() AS late,
               coalesce(e.state, 'removed') AS endpoint
          FROM deliveries d JOIN intents i ON i.id = d.intent_id
          LEFT JOIN endpoints e ON e.id = d.endpoint_id
         WHERE d.id = ANY(CAST(:ids AS bigint[])) AND d.state || '' = 'queued'
           AND d.account = :account
           AND (i.state <> 'open' OR i.expires_at <= now() OR e.state IS DISTINCT FROM 'active')
         ORDER BY d.id FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE deliveries d SET
           state = CASE WHEN p.intent NOT IN ('open', 'expired') THEN 'cancelled'
                        WHEN p.late OR p.intent = 'expired' THEN 'expired' ELSE 'failed' END,
           reason = CASE WHEN p.intent <> 'open' THEN 'intent_' || p.intent
                         WHEN p.late THEN 'expires_at' ELSE 'endpoint_' || p.endpoint END,
           due_at = CASE WHEN p.intent = 'open' AND NOT p.late THEN now() END
      FROM picked p WHERE d.id = p.id"""


def hand_back(connection: Connection, ids: Collection[int], token: UUID) -> None:
    """Put claimed deliveries back to planned before anything was tried: their work is paused.

    What no account has tried yet may go by another one.
    """
    connection.execute(
        text("""
            UPDATE deliveries SET state = 'planned', due_at = now(),
                   account = CASE WHEN attempts = 0 THEN '' ELSE account END
             WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'sending'
               AND claim_token = :token"""),
        {"ids": list(ids), "token": token},
    )


def settle(
    connection: Connection,
    token: UUID,
    rows: Sequence[Mapping[str, Any]],
    *,
    account: str,
    task_id: UUID | None,
    worker: str,
) -> list[UUID]:
    """Settle what was claimed under `token`, in bulk; return the intents whose delivery failed.

    A row is `{"id", "state", "due_at", "reason", "attempts", "account", "receipt_ref", "outcome",
    "outcome_reason", "ref", "started_at", "finished_at"}`; `outcome` null is no attempt (the row
    was put back before it was tried). A delivery whose lease ended meanwhile is still settled by
    the token that it was claimed under, until a new attempt begins: where it waits for one already,
    proof that it went out, or never can, takes it back. One that was opened before we came to
    settle it stays delivered. Every attempt is recorded in any case, and one heard of after its
    lease keeps `lease_ended` as its reason where it has no other.
    """
    done = connection.execute(
        text(_SETTLE),
        {
            "token": token,
            "rows": as_rows(list(map(dict, rows))),
            "account": account,
            "task_id": task_id,
            "worker": worker,
        },
    )
    return list(done.scalars())


_SETTLE = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id bigint, state text, due_at timestamptz, reason text, attempts smallint,
            account text, receipt_ref text, outcome text, outcome_reason text, ref text,
            started_at timestamptz, finished_at timestamptz)
    ), mine AS MATERIALIZED (
        SELECT d.id FROM deliveries d JOIN rows r USING (id)
         WHERE d.claim_token = :token
           AND (d.state IN ('sending', 'unknown')
                OR d.state IN ('planned', 'queued') AND r.state IN ('sent', 'failed')
                OR d.state = 'delivered' AND r.state = 'sent')
         ORDER BY d.id FOR UPDATE OF d
    ), noted AS (
        INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, reason, ref,
                              started_at, finished_at, task_id, worker)
        SELECT id, :token, attempts, :account, outcome, outcome_reason, ref, started_at,
               finished_at, :task_id, :worker
          FROM rows WHERE outcome IS NOT NULL
        ON CONFLICT (delivery_id, claim_token) DO UPDATE SET outcome = excluded.outcome,
            reason = coalesce(excluded.reason, attempts.reason), ref = excluded.ref,
            started_at = excluded.started_at, finished_at = excluded.finished_at,
            task_id = excluded.task_id, worker = excluded.worker
    ), moved AS (
        UPDATE deliveries d SET
               state = CASE WHEN d.state = 'delivered' THEN d.state
                            WHEN i.state <> 'open' AND r.state IN ('planned', 'unknown')
                            THEN 'cancelled' ELSE r.state END,
               due_at = CASE WHEN d.state = 'delivered' THEN d.due_at
                             WHEN i.state = 'open' THEN r.due_at END,
               reason = r.reason, attempts = r.attempts, account = r.account,
               provider_ref = coalesce(r.receipt_ref, d.provider_ref),
               handed_over_at = CASE WHEN r.state = 'sent' AND d.state <> 'delivered'
                                     THEN r.finished_at ELSE d.handed_over_at END
          FROM mine, rows r, intents i
         WHERE d.id = mine.id AND r.id = d.id AND i.id = d.intent_id
        RETURNING d.intent_id, d.state
    )
    SELECT intent_id FROM moved WHERE state = 'failed'"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A delivery whose clock rang."""

    id: int
    intent_id: UUID
    state: DeliveryState
    kind: str
    attempts: int
    losses: int
    open: bool
    expires_at: datetime
    reason: str | None
    now: datetime


def take_watched(connection: Connection, limit: int, look_again_s: float) -> list[Watched]:
    """Take deliveries whose clock rang; each rings again after `look_again_s` seconds."""
    # Two statements: joined in one, the planner reads all intents for a tick that finds nothing.
    due = connection.execute(
        text("""
            SELECT id FROM deliveries
             WHERE due_at <= now() AND due_at IS NOT NULL AND state NOT IN ('planned', 'queued')
             ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED"""),
        {"limit": limit},
    )
    ids = list(due.scalars())
    if not ids:
        return []
    rows = connection.execute(
        text("""
            UPDATE deliveries d SET due_at = now() + make_interval(secs => :look_again)
              FROM intents i WHERE d.id = ANY(CAST(:ids AS bigint[])) AND i.id = d.intent_id
            RETURNING d.id, d.intent_id, d.state, i.kind, d.attempts, d.losses,
                      i.state = 'open', i.expires_at, d.reason, now()"""),
        {"ids": ids, "look_again": look_again_s},
    )
    return [Watched(row[0], row[1], DeliveryState(row[2]), *row[3:]) for row in rows]


def lose_leases(connection: Connection, ids: Collection[int]) -> None:
    """Mark deliveries whose lease ended as unknown, and record the attempt of which nothing was
    heard. The claim token stays, so that a slow worker can still say what happened."""
    connection.execute(
        text("""
            WITH lost AS (
                UPDATE deliveries SET state = 'unknown', losses = losses + 1,
                       attempts = attempts + 1, reason = 'lease_ended', due_at = now()
                 WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'sending'
                RETURNING id, claim_token, attempts, account)
            INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, reason,
                                  started_at, finished_at)
            SELECT id, claim_token, attempts, account, 'ambiguous', 'lease_ended', now(), now()
              FROM lost
            ON CONFLICT (delivery_id, claim_token) DO NOTHING"""),
        {"ids": list(ids)},
    )


def resolve_unknown(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Move unknown deliveries on: a row is `{"id", "state", "due_at", "reason"}`."""
    connection.execute(
        text("""
            UPDATE deliveries d SET state = r.state, due_at = r.due_at, reason = r.reason
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id bigint, state text, due_at timestamptz, reason text)
             WHERE d.id = r.id AND d.state = 'unknown'"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )


def stop_clocks(connection: Connection, ids: Collection[int]) -> None:
    """Let nothing wait for handed-over or failed deliveries any more."""
    connection.execute(
        text("""
            UPDATE deliveries SET due_at = NULL WHERE id = ANY(CAST(:ids AS bigint[]))
               AND state IN ('sent', 'delivered', 'failed')"""),
        {"ids": list(ids)},
    )


def replay(connection: Connection, ids: Collection[int]) -> list[int]:
    """Plan failed deliveries again, with fresh attempts; return those planned.

    An intent that was exhausted because they failed is open again until its deadline.
    """
    parameters: dict[str, Any] = {"ids": list(ids)}
    parameters["intents"] = list(
        connection.execute(
            text("""
                SELECT id FROM intents
                 WHERE id IN (SELECT intent_id FROM deliveries
                               WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'failed')
                   AND state IN ('open', 'exhausted') AND expires_at > now()
                 ORDER BY id FOR UPDATE"""),
            parameters,
        ).scalars()
    )
    planned = connection.execute(
        text("""
            WITH mine AS (
                SELECT id FROM deliveries
                 WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'failed'
                   AND intent_id = ANY(CAST(:intents AS uuid[])) ORDER BY id FOR UPDATE
            ), opened AS (
                UPDATE intents SET state = 'open', reason = NULL, ended_at = NULL,
                       decide_at = expires_at
                 WHERE id = ANY(CAST(:intents AS uuid[])) AND state = 'exhausted')
            UPDATE deliveries d SET state = 'planned', due_at = now(), attempts = 0, losses = 0,
                   account = '', provider_ref = NULL
              FROM mine WHERE d.id = mine.id RETURNING d.id"""),
        parameters,
    )
    return list(planned.scalars())
