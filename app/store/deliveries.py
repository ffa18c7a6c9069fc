"""Deliveries: released, claimed, settled, watched. Every move is a compare-and-set on the state."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.domain.vocabulary import DeliveryState
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Flow:
    """Waiting work that takes its turn as one: a sender's campaign within a channel and lane."""

    sender_id: int
    brand_id: int
    campaign: str
    test: bool


@dataclass(frozen=True, slots=True)
class Released:
    """A delivery that was given a hint: whose losses decide whether it goes alone."""

    id: int
    account: str
    losses: int


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


def waiting_flows(connection: Connection, channel: str, lane: str) -> list[Flow]:
    """The flows with planned deliveries, found by skipping through the index from one to the next.

    The cost grows with the number of flows, not with the number of rows that wait.
    """
    rows = connection.execute(
        text("""
            WITH RECURSIVE flows AS (
                (SELECT sender_id, campaign, test, brand_id FROM deliveries
                  WHERE state = 'planned' AND channel = :channel AND lane = :lane
                  ORDER BY sender_id, campaign, test LIMIT 1)
                UNION ALL
                SELECT next.* FROM flows f CROSS JOIN LATERAL (
                    SELECT sender_id, campaign, test, brand_id FROM deliveries d
                     WHERE state = 'planned' AND channel = :channel AND lane = :lane
                       AND (d.sender_id, d.campaign, d.test) > (f.sender_id, f.campaign, f.test)
                     ORDER BY sender_id, campaign, test LIMIT 1) next
            )
            SELECT sender_id, brand_id, campaign, test FROM flows"""),
        {"channel": channel, "lane": lane},
    )
    return [Flow(*row) for row in rows]


def release(
    connection: Connection,
    channel: str,
    lane: str,
    account: str,
    known: Collection[str],
    shares: Sequence[tuple[Flow, int]],
    hint_lost_s: float,
) -> list[Released]:
    """Take due deliveries of each flow, at most its share, as queued for `account`.

    A delivery that an account of `known` was assigned to before keeps it: only settle moves it.
    After `hint_lost_s` seconds without a claim the hint counts as lost.
    """
    flows = [
        {"sender_id": f.sender_id, "campaign": f.campaign, "test": f.test, "share": share}
        for f, share in shares
    ]
    rows = connection.execute(
        text("""
            WITH picked AS MATERIALIZED (
                SELECT d.id FROM json_to_recordset(CAST(:flows AS json)) AS f(
                           sender_id int, campaign text, test boolean, share int)
                 CROSS JOIN LATERAL (
                    SELECT id FROM deliveries
                     WHERE state = 'planned' AND channel = :channel AND lane = :lane
                       AND sender_id = f.sender_id AND campaign = f.campaign AND test = f.test
                       AND due_at <= now()
                     ORDER BY due_at LIMIT f.share FOR UPDATE SKIP LOCKED) d
            )
            UPDATE deliveries d SET state = 'queued',
                   account = CASE WHEN d.account = ANY(CAST(:known AS text[]))
                                  THEN d.account ELSE :account END,
                   due_at = now() + make_interval(secs => :lost)
              FROM picked WHERE d.id = picked.id
            RETURNING d.id, d.account, d.losses"""),
        {
            "flows": as_rows(flows),
            "channel": channel,
            "lane": lane,
            "account": account,
            "known": list(known),
            "lost": hint_lost_s,
        },
    )
    return [Released(*row) for row in rows]


def outstanding(
    connection: Connection, accounts: Collection[str], limit: int
) -> dict[tuple[str, str], int]:
    """How many deliveries are hinted and not claimed yet, by account and lane, `limit` at most.

    Bounded: the dispatcher releases no more than about two seconds of an account's pace.
    """
    rows = connection.execute(
        text("""
            SELECT a.account, l.lane, q.waiting
              FROM unnest(CAST(:accounts AS text[])) AS a(account)
             CROSS JOIN unnest(ARRAY['urgent', 'normal', 'bulk']) AS l(lane)
             CROSS JOIN LATERAL (SELECT count(*) AS waiting FROM (
                 SELECT FROM deliveries WHERE state = 'queued' AND account = a.account
                    AND lane = l.lane LIMIT :limit) bounded) q"""),
        {"accounts": list(accounts), "limit": limit},
    )
    return {(row[0], row[1]): row[2] for row in rows}


def take_back(
    connection: Connection, ids: Collection[int], after_s: float, reason: str | None
) -> None:
    """Put queued deliveries back to planned, to be released again after `after_s` seconds."""
    connection.execute(
        text("""
            UPDATE deliveries SET state = 'planned', reason = coalesce(:reason, reason),
                   due_at = now() + make_interval(secs => :after)
             WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'queued'"""),
        {"ids": list(ids), "after": after_s, "reason": reason},
    )


def release_lost_hints(connection: Connection, limit: int) -> int:
    """Make queued deliveries whose hint was never claimed planned again; return how many.

    Accounts are found by skipping through the index, so that those no longer configured count.
    """
    done = connection.execute(
        text("""
            WITH RECURSIVE lines AS (
                (SELECT account, lane FROM deliveries WHERE state = 'queued'
                  ORDER BY account, lane LIMIT 1)
                UNION ALL
                SELECT next.* FROM lines l CROSS JOIN LATERAL (
                    SELECT account, lane FROM deliveries d
                     WHERE state = 'queued' AND (d.account, d.lane) > (l.account, l.lane)
                     ORDER BY account, lane LIMIT 1) next
            ), lost AS MATERIALIZED (
                SELECT d.id FROM lines l CROSS JOIN LATERAL (
                    SELECT id FROM deliveries
                     WHERE state = 'queued' AND account = l.account AND lane = l.lane
                       AND due_at <= now()
                     ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED) d
            )
            UPDATE deliveries d SET state = 'planned', due_at = now()
              FROM lost WHERE d.id = lost.id"""),
        {"limit": limit},
    )
    return done.rowcount


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
    UPDATE deliveries d SET
           state = CASE WHEN i.state <> 'open' THEN 'cancelled'
                        WHEN i.expires_at <= now() THEN 'expired' ELSE 'failed' END,
           reason = CASE WHEN i.state <> 'open' THEN 'intent_' || i.state
                         WHEN i.expires_at <= now() THEN 'expires_at'
                         ELSE 'endpoint_' || e.state END,
           due_at = CASE WHEN i.state = 'open' AND i.expires_at > now() THEN now() END
      FROM intents i, endpoints e
     WHERE d.id = ANY(CAST(:ids AS bigint[])) AND d.state || '' = 'queued'
       AND d.account = :account
       AND i.id = d.intent_id AND e.id = d.endpoint_id
       AND (i.state <> 'open' OR i.expires_at <= now() OR e.state <> 'active')"""


def hand_back(connection: Connection, ids: Collection[int], token: UUID) -> None:
    """Put claimed deliveries back to planned before anything was tried: their work is paused."""
    connection.execute(
        text("""
            UPDATE deliveries SET state = 'planned', due_at = now()
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
) -> list[tuple[int, UUID, str]]:
    """Settle what was claimed under `token`, in bulk; return (id, intent, state) of what moved.

    A row is `{"id", "state", "due_at", "reason", "attempts", "account", "receipt_ref", "outcome",
    "outcome_reason", "ref", "started_at", "finished_at"}`; `outcome` null is no attempt (the row
    was put back before it was tried). A delivery whose lease ended meanwhile (`unknown`) is still
    settled by the token that it was claimed under; every attempt is recorded in any case, and one
    heard of after its lease keeps `lease_ended` as its reason where it has no other.
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
    return [(row[0], row[1], row[2]) for row in done]


_SETTLE = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id bigint, state text, due_at timestamptz, reason text, attempts smallint,
            account text, receipt_ref text, outcome text, outcome_reason text, ref text,
            started_at timestamptz, finished_at timestamptz)
    ), mine AS MATERIALIZED (
        SELECT d.id FROM deliveries d JOIN rows USING (id)
         WHERE d.claim_token = :token AND d.state IN ('sending', 'unknown')
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
    )
    UPDATE deliveries d SET
           state = CASE WHEN i.state <> 'open' AND r.state IN ('planned', 'unknown')
                        THEN 'cancelled' ELSE r.state END,
           due_at = CASE WHEN i.state = 'open' THEN r.due_at END,
           reason = r.reason, attempts = r.attempts, account = r.account,
           provider_ref = coalesce(r.receipt_ref, d.provider_ref),
           handed_over_at = CASE WHEN r.state = 'sent' THEN r.finished_at
                                 ELSE d.handed_over_at END
      FROM mine, rows r, intents i
     WHERE d.id = mine.id AND r.id = d.id AND i.id = d.intent_id
    RETURNING d.id, d.intent_id, d.state"""


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
    rows = connection.execute(
        text("""
            WITH due AS MATERIALIZED (
                SELECT id FROM deliveries
                 WHERE due_at <= now() AND due_at IS NOT NULL
                   AND state NOT IN ('planned', 'queued')
                 ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
            UPDATE deliveries d SET due_at = now() + make_interval(secs => :look_again)
              FROM due, intents i WHERE d.id = due.id AND i.id = d.intent_id
            RETURNING d.id, d.intent_id, d.state, i.kind, d.attempts, d.losses,
                      i.state = 'open', i.expires_at, d.reason, now()"""),
        {"limit": limit, "look_again": look_again_s},
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
    """Plan failed deliveries of open intents again, with fresh attempts; return those planned."""
    rows = connection.execute(
        text("""
            WITH mine AS (
                SELECT d.id FROM deliveries d JOIN intents i ON i.id = d.intent_id
                 WHERE d.id = ANY(CAST(:ids AS bigint[])) AND d.state = 'failed'
                   AND i.state = 'open' AND i.expires_at > now()
                 ORDER BY d.id FOR UPDATE OF d)
            UPDATE deliveries d SET state = 'planned', due_at = now(), attempts = 0, losses = 0,
                   account = '' FROM mine WHERE d.id = mine.id RETURNING d.id"""),
        {"ids": list(ids)},
    )
    return list(rows.scalars())
