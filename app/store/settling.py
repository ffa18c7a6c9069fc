"""Settling: what became of deliveries in a worker's hands, by the token of their claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.store.deliveries import IN_DOUBT
from app.store.session import as_rows, sql


@dataclass(frozen=True, slots=True)
class Settlement:
    """What follows from settling: `failed` are intents whose delivery failed; `unsent` deliveries
    of which it is known now, and was not before, that they did not go out."""

    failed: list[UUID]
    unsent: list[int]


def settle(
    connection: Connection,
    token: UUID,
    rows: Sequence[Mapping[str, Any]],
    *,
    account: str,
    task_id: UUID | None,
    worker: str,
) -> Settlement:
    """Settle what was claimed under `token`, in bulk; to settle it once more changes nothing.

    A row is `{"id", "state", "due_at", "reason", "attempts", "account", "receipt_ref", "outcome",
    "outcome_reason", "ref", "started_at", "finished_at"}`; `outcome` null is no attempt (the row
    was put back before it was tried). A `choice_id` beside them says that the row moves to another
    account, an empty `account` that any may take it; one whose attempts left a doubt stays, for
    that account alone may know its key.

    A delivery whose lease ended meanwhile is still settled by the token that it was claimed under,
    until a new attempt begins: where it waits for one already, proof that it went out, or never
    can, takes it back; where it was given up, proof that it went out does. One that was opened
    before we came to settle it stays delivered, and one whose provider told of it (it has a
    reference) is sent, though we had no verdict. Every attempt is recorded in any case, and one
    heard of after its lease keeps `lease_ended` as its reason where it has no other.
    """
    done = connection.execute(
        sql(_SETTLE),
        {
            "token": token,
            "rows": as_rows(rows),
            "account": account,
            "task_id": task_id,
            "worker": worker,
        },
    )
    failed: list[UUID] = []
    unsent: list[int] = []
    for key, intent_id, has_failed, not_sent in done:
        if has_failed:
            failed.append(intent_id)
        if not_sent:
            unsent.append(key)
    return Settlement(failed, unsent)


# A verdict once noted stays: only what was in doubt is noted anew. So a try is noted once.
_SETTLE = f"""
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id bigint, state text, due_at timestamptz, reason text, attempts smallint,
            account text, choice_id bigint, receipt_ref text, outcome text, outcome_reason text,
            ref text, started_at timestamptz, finished_at timestamptz)
    ), mine AS MATERIALIZED (
        SELECT d.id, d.state AS was,
               r.outcome = 'ambiguous' AND d.provider_ref IS NOT NULL AS told
          FROM deliveries d JOIN rows r USING (id)
         WHERE d.claim_token = :token
           AND (d.state IN ('sending', 'unknown')
                OR d.state IN ('planned', 'queued') AND r.state IN ('sent', 'failed')
                OR d.state = 'failed' AND d.reason IN ('lease_ended', 'killed_its_worker')
                   AND r.state = 'sent'
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
          WHERE attempts.outcome = 'ambiguous'
        RETURNING delivery_id
    ), moved AS (
        UPDATE deliveries d SET
               state = CASE WHEN d.state = 'delivered' THEN d.state
                            WHEN mine.told THEN 'sent'
                            WHEN i.state <> 'open' AND r.state IN ('planned', 'unknown')
                            THEN 'cancelled' ELSE r.state END,
               due_at = CASE WHEN d.state = 'delivered' THEN d.due_at
                             WHEN i.state = 'open' THEN r.due_at END,
               reason = CASE WHEN NOT coalesce(mine.told, false) THEN r.reason END,
               attempts = r.attempts,
               account = CASE WHEN (r.choice_id IS NOT NULL OR r.account = '' AND r.attempts > 0)
                                   AND {IN_DOUBT}
                              THEN :account ELSE r.account END,
               choice_id = coalesce(r.choice_id, d.choice_id),
               provider_ref = coalesce(r.receipt_ref, d.provider_ref),
               handed_over_at = CASE WHEN (r.state = 'sent' OR mine.told)
                                      AND d.state <> 'delivered'
                                     THEN r.finished_at ELSE d.handed_over_at END
          FROM mine, rows r, intents i
         WHERE d.id = mine.id AND r.id = d.id AND i.id = d.intent_id
        RETURNING d.id, d.intent_id, d.state, mine.was
    ), known AS (
        SELECT r.id, m.intent_id, m.state = 'failed' AS failed,
               CASE WHEN r.outcome IS NULL THEN m.was = 'sending'
                    ELSE n.delivery_id IS NOT NULL AND r.outcome NOT IN ('accepted', 'ambiguous')
               END AS unsent
          FROM rows r LEFT JOIN moved m USING (id) LEFT JOIN noted n ON n.delivery_id = r.id
    )
    SELECT id, intent_id, failed, unsent FROM known WHERE failed OR unsent"""  # noqa: S608  # our own words
