"""Deliveries: claimed, settled, watched. Every move is a compare-and-set on the state."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from app.domain.settlement import ALONE_AFTER_LOSSES, MAX_LOSSES
from app.domain.vocabulary import DeliveryState
from app.store.session import as_rows, sql

# Not `EXISTS`, which the planner may turn into one look through all attempts there are.
IN_DOUBT = """(SELECT true FROM attempts a WHERE a.delivery_id = d.id
                    AND a.outcome = 'ambiguous' LIMIT 1) IS NOT NULL"""
"""Whether an account may have taken delivery `d`: then no other one may try it."""


class Claimed(NamedTuple):
    """A delivery in a worker's hands, with all that rendering and settling need."""

    id: int
    intent_id: UUID
    brand_id: int
    sender_id: int
    topic_id: int
    customer_id: int
    endpoint_id: int
    step: int
    attempts: int
    campaign: str
    address: str
    service: str
    content_id: int
    policy_id: int
    kind: str
    urgency: str
    when_blocked: str
    data: Mapping[str, Any]
    customer_name: str | None
    locale: str | None
    expires_at: datetime
    claimed_at: datetime
    trace: str | None = None
    again: bool = False
    """Whether it was in a worker's hands before."""
    particular: bool = True
    """Whether something is known of the customer that permission asks for."""


def claim(
    connection: Connection, ids: Collection[int], account: str, token: UUID, lease_s: float
) -> list[Claimed]:
    """Claim queued deliveries that may still go out: queued -> sending, with lease and token.

    A delivery that someone else claimed is left alone; one whose intent has ended or expired, or
    whose endpoint may not be used any more, ends here (`end_unclaimable`). One that is to be tried
    alone is not taken in company: a hint of its old batch may come late.
    """
    parameters = {
        "ids": list(ids),
        "account": account,
        "token": token,
        "lease": lease_s,
        "losses": MAX_LOSSES if len(ids) == 1 else ALONE_AFTER_LOSSES,
    }
    rows = connection.execute(sql(_CLAIM), parameters).all()
    if len(rows) < len(ids):
        connection.execute(sql(_END_UNCLAIMABLE), parameters)
    return list(map(Claimed._make, rows))


# `state || ''` keeps the planner off the partial index of queued rows: by statistics that are a
# moment old it is nearly empty, and every claim would read all of it instead of its own rows.
_CLAIM = """
    WITH picked AS MATERIALIZED (
        SELECT id, claim_token IS NOT NULL AS again FROM deliveries
         WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'queued' AND account = :account
           AND losses < :losses
         ORDER BY id FOR UPDATE SKIP LOCKED
    )
    UPDATE deliveries d SET state = 'sending', claim_token = :token,
           due_at = now() + make_interval(secs => :lease)
      FROM picked, intents i, endpoints e, customers c
     WHERE d.id = picked.id AND i.id = d.intent_id AND e.id = d.endpoint_id
       AND c.id = i.customer_id
       AND i.state = 'open' AND i.expires_at > now() AND e.state = 'active'
    RETURNING d.id, d.intent_id, d.brand_id, d.sender_id, i.topic_id, i.customer_id, d.endpoint_id,
              d.step, d.attempts, d.campaign, e.address, e.service, i.content_id, i.policy_id,
              i.kind, i.urgency, i.when_blocked, i.data,
              c.name, c.locale, i.expires_at, now(), i.trace, picked.again,
              c.particular OR c.wishes <> '{}'"""

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


def left_in_doubt(connection: Connection, ids: Collection[int]) -> set[int]:
    """Those of the deliveries that may have gone out already: a try of theirs had no verdict."""
    rows = connection.execute(
        sql("""
            SELECT delivery_id FROM attempts
             WHERE delivery_id = ANY(CAST(:ids AS bigint[])) AND outcome = 'ambiguous'"""),
        {"ids": list(ids)},
    )
    return set(rows.scalars())


def hand_back(connection: Connection, ids: Collection[int], token: UUID) -> None:
    """Put claimed deliveries back to planned before anything was tried: their work is paused.

    What no account has tried yet may go by another one.
    """
    connection.execute(
        sql("""
            UPDATE deliveries SET state = 'planned', due_at = now(),
                   account = CASE WHEN attempts = 0 THEN '' ELSE account END
             WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'sending'
               AND claim_token = :token"""),
        {"ids": list(ids), "token": token},
    )


def put_off(
    connection: Connection, rows: Sequence[Mapping[str, Any]], token: UUID
) -> Collection[int]:
    """Put claimed deliveries back before anything was tried, each until a time and for a reason;
    return those put back.

    A row is `{"id", "due_at", "reason"}`.
    """
    done = connection.execute(
        sql("""
            UPDATE deliveries d SET state = 'planned', due_at = r.due_at, reason = r.reason,
                   account = CASE WHEN d.attempts = 0 THEN '' ELSE d.account END
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id bigint, due_at timestamptz, reason text)
             WHERE d.id = r.id AND d.state = 'sending' AND d.claim_token = :token
            RETURNING d.id"""),
        {"rows": as_rows(rows), "token": token},
    )
    return list(done.scalars())


def withdraw(connection: Connection, reasons: Mapping[int, str]) -> list[UUID]:
    """Take back planned deliveries of open intents that may not be said now; return the intents,
    which are to be decided at once.

    Locks in the one order: intents, then deliveries.
    """
    parameters: dict[str, Any] = {"ids": list(reasons), "reasons": list(reasons.values())}
    parameters["intents"] = list(
        connection.execute(
            sql("""
                SELECT id FROM intents
                 WHERE id IN (SELECT intent_id FROM deliveries
                               WHERE id = ANY(CAST(:ids AS bigint[])))
                   AND state = 'open' ORDER BY id FOR UPDATE"""),
            parameters,
        ).scalars()
    )
    taken = connection.execute(
        sql("""
            WITH mine AS (
                SELECT d.id, r.reason FROM deliveries d
                  JOIN unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS r(id, reason)
                 USING (id)
                 WHERE d.state = 'planned' AND d.intent_id = ANY(CAST(:intents AS uuid[]))
                 ORDER BY d.id FOR UPDATE OF d
            ), taken AS (
                UPDATE deliveries d SET reason = mine.reason, account = '', due_at = NULL,
                       state = 'cancelled'
                  FROM mine WHERE d.id = mine.id RETURNING d.intent_id)
            UPDATE intents i SET decide_at = now() FROM taken WHERE i.id = taken.intent_id
            RETURNING i.id"""),
        parameters,
    )
    return list(dict.fromkeys(taken.scalars()))


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


def take_watched(
    connection: Connection, limit: int, look_again_s: float, *, undecided: bool = False
) -> list[Watched]:
    """Take deliveries whose clock rang; each rings again after `look_again_s` seconds.

    `undecided`: those alone of which no verdict is known, whose lease ended or that have been
    unknown for long enough.
    """
    # Two statements: joined in one, the planner reads all intents for a tick that finds nothing.
    due = connection.execute(
        sql(_RANG.format("AND state IN ('sending', 'unknown')" if undecided else "")),
        {"limit": limit},
    )
    ids = list(due.scalars())
    if not ids:
        return []
    rows = connection.execute(
        sql("""
            UPDATE deliveries d SET due_at = now() + make_interval(secs => :look_again)
              FROM intents i WHERE d.id = ANY(CAST(:ids AS bigint[])) AND i.id = d.intent_id
            RETURNING d.id, d.intent_id, d.state, i.kind, d.attempts, d.losses,
                      i.state = 'open', i.expires_at, d.reason, now()"""),
        {"ids": ids, "look_again": look_again_s},
    )
    return [Watched(row[0], row[1], DeliveryState(row[2]), *row[3:]) for row in rows]


_RANG = """
    SELECT id FROM deliveries
     WHERE due_at <= now() AND due_at IS NOT NULL AND state NOT IN ('planned', 'queued') {}
     ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED"""


def lose_leases(connection: Connection, ids: Collection[int], hear_out_s: float) -> None:
    """Mark deliveries whose lease ended as unknown, and record the attempt of which nothing was
    heard. The claim token stays, so that a slow worker can still say what happened; for
    `hear_out_s` seconds nothing else is done with them.

    What its provider has told of meanwhile (it has a reference) is sent.
    """
    connection.execute(
        sql("""
            WITH lost AS (
                UPDATE deliveries SET losses = losses + 1, attempts = attempts + 1,
                       state = CASE WHEN provider_ref IS NULL THEN 'unknown' ELSE 'sent' END,
                       handed_over_at = CASE WHEN provider_ref IS NOT NULL THEN now() END,
                       reason = 'lease_ended',
                       due_at = CASE WHEN provider_ref IS NULL
                                     THEN now() + make_interval(secs => :hear_out)
                                     ELSE now() END
                 WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'sending'
                RETURNING id, claim_token, attempts, account, provider_ref)
            INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, reason, ref,
                                  started_at, finished_at)
            SELECT id, claim_token, attempts, account, 'ambiguous', 'lease_ended', provider_ref,
                   now(), now()
              FROM lost
            ON CONFLICT (delivery_id, claim_token) DO NOTHING"""),
        {"ids": list(ids), "hear_out": hear_out_s},
    )


def resolve_unknown(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Move unknown deliveries on: a row is `{"id", "state", "due_at", "reason"}`."""
    connection.execute(
        sql("""
            UPDATE deliveries d SET state = r.state, due_at = r.due_at, reason = r.reason
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id bigint, state text, due_at timestamptz, reason text)
             WHERE d.id = r.id AND d.state = 'unknown'"""),
        {"rows": as_rows(rows)},
    )


def stop_clocks(connection: Connection, ids: Collection[int]) -> None:
    """Let nothing wait for handed-over or failed deliveries any more."""
    connection.execute(
        sql("""
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
            sql("""
                SELECT id FROM intents
                 WHERE id IN (SELECT intent_id FROM deliveries
                               WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'failed')
                   AND state IN ('open', 'exhausted') AND expires_at > now() AND content_id <> 0
                 ORDER BY id FOR UPDATE"""),
            parameters,
        ).scalars()
    )
    planned = connection.execute(
        sql("""
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
