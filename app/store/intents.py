"""Intents and their decisions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.domain.decision import PastDelivery
from app.domain.vocabulary import Channel, DeliveryState, IntentState
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An open intent as the next decision needs it; its row is locked."""

    id: UUID
    brand_id: int
    sender_id: int
    customer_id: int
    policy_id: int
    urgency: str
    campaign: str
    test: bool
    send_after: datetime | None
    expires_at: datetime
    past: tuple[PastDelivery, ...]


def ledger_now(connection: Connection) -> datetime:
    """The clock: the database's."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def insert_accepted(
    connection: Connection, brand_id: int, rows: Sequence[Mapping[str, Any]]
) -> dict[UUID, int | None]:
    """Insert intents with their first decision and, where it says so, their first delivery.

    Return the ids that were new, each with the id of its delivery; one that was there already is
    left as it is. See `_INSERT_ACCEPTED` for a row's fields.
    """
    done = connection.execute(
        text(_INSERT_ACCEPTED), {"brand_id": brand_id, "rows": as_rows(list(map(dict, rows)))}
    )
    return {row[0]: row[1] for row in done}


_INSERT_ACCEPTED = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, sender_id int, topic_id int, customer_id bigint, content_id bigint,
            policy_id int, key text, fingerprint text, kind text, urgency text, campaign text,
            data jsonb, test boolean, send_after timestamptz, expires_at timestamptz,
            decide_at timestamptz, decided_at timestamptz, verdict text, until timestamptz,
            reason text, considered jsonb, step smallint, channel text, endpoint_id bigint,
            state text, due_at timestamptz, account text)
    ), new AS (
        INSERT INTO intents (id, brand_id, sender_id, topic_id, customer_id, content_id,
            policy_id, key, fingerprint, kind, urgency, campaign, data, test, send_after,
            expires_at, decide_at)
        SELECT id, :brand_id, sender_id, topic_id, customer_id, content_id, policy_id, key,
            decode(fingerprint, 'hex'), kind, urgency, campaign, data, test, send_after,
            expires_at, decide_at
          FROM rows
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), noted AS (
        INSERT INTO decisions (intent_id, number, at, cause, verdict, until, reason, considered)
        SELECT id, 1, decided_at, 'accepted', verdict, until, reason, considered
          FROM rows JOIN new USING (id)
    ), planned AS (
        INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
            campaign, test, account, state, due_at)
        SELECT id, :brand_id, sender_id, endpoint_id, step, channel, urgency, campaign, test,
            account, state, due_at
          FROM rows JOIN new USING (id)
         WHERE endpoint_id IS NOT NULL
        RETURNING intent_id, id
    )
    SELECT new.id, planned.id FROM new LEFT JOIN planned ON planned.intent_id = new.id"""


def fingerprints(connection: Connection, ids: Collection[UUID]) -> dict[UUID, bytes]:
    """What intents that are there already say, as hashes."""
    rows = connection.execute(
        text("SELECT id, fingerprint FROM intents WHERE id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": list(ids)},
    )
    return {row.id: bytes(row.fingerprint) for row in rows}


def lock_open(connection: Connection, ids: Collection[UUID]) -> list[OpenIntent]:
    """Lock those of the intents that are open, by id, and read them with their deliveries."""
    intents = connection.execute(
        text("""
            SELECT id, brand_id, sender_id, customer_id, policy_id, urgency, campaign, test,
                   send_after, expires_at
              FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
             ORDER BY id FOR UPDATE"""),
        {"ids": list(ids)},
    ).all()
    # A statement of its own, so that it sees what was committed while the lock was awaited.
    past: dict[UUID, list[PastDelivery]] = {row.id: [] for row in intents}
    deliveries = connection.execute(
        text("""
            SELECT intent_id, step, channel, endpoint_id, state, handed_over_at
              FROM deliveries WHERE intent_id = ANY(CAST(:ids AS uuid[])) ORDER BY step, id"""),
        {"ids": list(past)},
    )
    for intent_id, step, channel, endpoint_id, state, handed_over_at in deliveries:
        past[intent_id].append(
            PastDelivery(step, Channel(channel), endpoint_id, DeliveryState(state), handed_over_at)
        )
    return [OpenIntent(**row._mapping, past=tuple(past[row.id])) for row in intents]  # noqa: SLF001


def customer_endpoints(
    connection: Connection, customer_ids: Collection[int]
) -> dict[int, list[tuple[int, Channel]]]:
    """The usable endpoints of customers, oldest first."""
    found: dict[int, list[tuple[int, Channel]]] = {key: [] for key in customer_ids}
    rows = connection.execute(
        text("""
            SELECT customer_id, id, channel FROM endpoints
             WHERE customer_id = ANY(CAST(:ids AS bigint[])) AND state = 'active' ORDER BY id"""),
        {"ids": list(customer_ids)},
    )
    for customer_id, endpoint_id, channel in rows:
        found[customer_id].append((endpoint_id, Channel(channel)))
    return found


def note_decisions(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[UUID, int]:
    """Write decisions about locked open intents and all that follows from them.

    A row is `{"id", "at", "cause", "verdict", "until", "reason", "considered", "decide_at",
    "ended" (a final state or null), "step", "channel", "endpoint_id", "state", "due_at",
    "account"}`. Clocks of the intent's handed-over deliveries are stopped by a new delivery and
    by an end; a `wait` sets the clock of the last one. Returns the ids of new deliveries.
    """
    done = connection.execute(text(_NOTE_DECISIONS), {"rows": as_rows(list(map(dict, rows)))})
    return {row[0]: row[1] for row in done}


_NOTE_DECISIONS = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, at timestamptz, cause text, verdict text, until timestamptz, reason text,
            considered jsonb, decide_at timestamptz, ended text, step smallint, channel text,
            endpoint_id bigint, state text, due_at timestamptz, account text)
    ), moved AS (
        UPDATE intents i SET state = coalesce(r.ended, 'open'), reason = r.reason,
               decide_at = CASE WHEN r.ended IS NULL THEN r.decide_at END,
               ended_at = CASE WHEN r.ended IS NOT NULL THEN r.at END
          FROM rows r WHERE i.id = r.id AND i.state = 'open'
           AND (r.ended IS NOT NULL OR i.decide_at IS DISTINCT FROM r.decide_at)
    ), quiet AS (
        UPDATE deliveries d SET
               due_at = CASE WHEN d.state IN ('sent', 'delivered') AND r.verdict = 'wait'
                              AND r.until < r.decide_at
                              AND d.step = (SELECT max(l.step) FROM deliveries l
                                             WHERE l.intent_id = d.intent_id)
                             THEN r.until END
          FROM rows r WHERE d.intent_id = r.id AND d.due_at IS NOT NULL
           AND d.state IN ('sent', 'delivered', 'failed')
    ), noted AS (
        INSERT INTO decisions (intent_id, number, at, cause, verdict, until, reason, considered)
        SELECT r.id, 1 + coalesce((SELECT max(number) FROM decisions p WHERE p.intent_id = r.id),
                                  0),
               r.at, r.cause, r.verdict, r.until, r.reason, r.considered
          FROM rows r
    ), planned AS (
        INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
            campaign, test, account, state, due_at)
        SELECT r.id, i.brand_id, i.sender_id, r.endpoint_id, r.step, r.channel, i.urgency,
            i.campaign, i.test, r.account, r.state, r.due_at
          FROM rows r JOIN intents i USING (id) WHERE r.endpoint_id IS NOT NULL
        ON CONFLICT ON CONSTRAINT one_delivery_per_step_and_endpoint DO NOTHING
        RETURNING intent_id, id
    )
    SELECT intent_id, id FROM planned"""


def take_due_intents(connection: Connection, limit: int, look_again_s: float) -> list[UUID]:
    """Take open intents whose time has come; each comes again after `look_again_s` seconds."""
    rows = connection.execute(
        text("""
            WITH due AS (
                SELECT id FROM intents WHERE decide_at <= now()
                 ORDER BY decide_at LIMIT :limit FOR UPDATE SKIP LOCKED)
            UPDATE intents i SET decide_at = now() + make_interval(secs => :look_again)
              FROM due WHERE i.id = due.id RETURNING i.id"""),
        {"limit": limit, "look_again": look_again_s},
    )
    return list(rows.scalars())


def open_intents_of(
    connection: Connection,
    *,
    brand_id: int | None,
    sender_id: int | None,
    campaign: str | None,
    limit: int,
) -> list[UUID]:
    """Some open intents of a sender or campaign. For operators: it reads every open intent."""
    rows = connection.execute(
        text("""
            SELECT id FROM intents WHERE decide_at IS NOT NULL
               AND (CAST(:brand_id AS int) IS NULL OR brand_id = :brand_id)
               AND (CAST(:sender_id AS int) IS NULL OR sender_id = :sender_id)
               AND (CAST(:campaign AS text) IS NULL OR campaign = :campaign)
             LIMIT :limit"""),
        {"brand_id": brand_id, "sender_id": sender_id, "campaign": campaign, "limit": limit},
    )
    return list(rows.scalars())


def end_intents(
    connection: Connection, ids: Collection[UUID], state: IntentState, reason: str
) -> list[UUID]:
    """End those of the intents that are open, and cancel what has not left yet; return them."""
    lock = text(
        "SELECT id FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open' "
        "ORDER BY id FOR UPDATE"
    )
    open_ids = list(connection.execute(lock, {"ids": list(ids)}).scalars())
    connection.execute(
        text("""
            UPDATE intents SET state = :state, reason = :reason, decide_at = NULL,
                   ended_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))"""),
        {"ids": open_ids, "state": state.value, "reason": reason},
    )
    cancel_deliveries(connection, open_ids, reason)
    return open_ids


def mark_seen(connection: Connection, seen: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """Mark locked open intents as seen, and cancel every other delivery of theirs.

    A row is `{"id", "delivery_id", "seen_as", "at"}`. Returns those that were open until now.
    """
    done = connection.execute(
        text("""
            UPDATE intents i SET state = 'seen', reason = '', decide_at = NULL, ended_at = now(),
                   seen_delivery_id = r.delivery_id, seen_as = r.seen_as
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id uuid, delivery_id bigint, seen_as text)
             WHERE i.id = r.id AND i.state = 'open' RETURNING i.id"""),
        {"rows": as_rows(list(map(dict, seen)))},
    )
    ids = list(done.scalars())
    cancel_deliveries(connection, ids, "seen")
    return ids


def cancel_deliveries(
    connection: Connection,
    intent_ids: Collection[UUID],
    reason: str,
    state: DeliveryState = DeliveryState.CANCELLED,
) -> None:
    """End what has not left yet of locked intents as `state`, and stop their clocks.

    What is being sent this moment cannot be recalled: it is marked as crossed.
    """
    connection.execute(
        text("""
            WITH mine AS (
                SELECT id FROM deliveries WHERE intent_id = ANY(CAST(:ids AS uuid[]))
                   AND due_at IS NOT NULL ORDER BY id FOR UPDATE)
            UPDATE deliveries d SET
                   crossed = d.state IN ('sending', 'unknown'),
                   reason = CASE WHEN d.state IN ('planned', 'queued') THEN :reason
                                 ELSE d.reason END,
                   due_at = CASE WHEN d.state IN ('sending', 'unknown') THEN d.due_at END,
                   state = CASE WHEN d.state IN ('planned', 'queued') THEN :state
                                ELSE d.state END
              FROM mine WHERE d.id = mine.id"""),
        {"ids": list(intent_ids), "reason": reason, "state": state.value},
    )
