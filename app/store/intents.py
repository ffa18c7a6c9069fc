"""Intents and their decisions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.domain.decision import PastDelivery, Reachable
from app.domain.vocabulary import Channel, DeliveryState, IntentState
from app.store.session import as_rows, sql


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An open intent as the next decision needs it; its row is locked."""

    id: UUID
    brand_id: int
    sender_id: int
    customer_id: int
    policy_id: int
    topic_id: int
    kind: str
    urgency: str
    campaign: str
    when_blocked: str
    test: bool
    send_after: datetime | None
    expires_at: datetime
    trace: str | None
    past: tuple[PastDelivery, ...]


def ledger_now(connection: Connection) -> datetime:
    """The clock: the database's."""
    now: datetime = connection.execute(sql("SELECT clock_timestamp()")).scalar_one()
    return now


def insert_accepted(
    connection: Connection,
    brand_id: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    test: bool,
    trace: str | None,
    now: datetime,
) -> dict[UUID, int | None]:
    """Insert intents with their first decision, of `now`, and, where it says so, their first
    delivery.

    Return the ids that were new, each with the id of its delivery; one that was there already is
    left as it is. See `_INSERT_ACCEPTED` for a row's fields.
    """
    done = connection.execute(
        sql(_INSERT_ACCEPTED),
        # What they share stands beside the rows: to read a field of a row costs a microsecond.
        {"brand_id": brand_id, "rows": as_rows(rows), "test": test, "trace": trace, "now": now},
    )
    return {row[0]: row[1] for row in done}


_INSERT_ACCEPTED = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, sender_id int, topic_id int, customer_id bigint, content_id bigint,
            policy_id int, key text, fingerprint text, kind text, urgency text, campaign text,
            data jsonb, when_blocked text, send_after timestamptz, expires_at timestamptz,
            decide_at timestamptz, verdict text, until timestamptz, reason text,
            considered jsonb, step smallint, channel text, endpoint_id bigint, state text,
            due_at timestamptz, account text, choice_id bigint)
    ), new AS (
        INSERT INTO intents (id, brand_id, sender_id, topic_id, customer_id, content_id,
            policy_id, key, fingerprint, kind, urgency, campaign, data, when_blocked, test,
            send_after, expires_at, decide_at, trace)
        SELECT id, :brand_id, sender_id, topic_id, customer_id, content_id, policy_id, key,
            decode(fingerprint, 'hex'), kind, urgency, campaign, data, when_blocked, :test,
            send_after, expires_at, decide_at, CAST(:trace AS text)
          FROM rows
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), noted AS (
        INSERT INTO decisions (intent_id, number, at, cause, verdict, until, reason, considered)
        SELECT id, 1, CAST(:now AS timestamptz), 'accepted', verdict, until, reason, considered
          FROM rows JOIN new USING (id)
    ), planned AS (
        INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
            campaign, test, account, choice_id, state, due_at)
        SELECT id, :brand_id, sender_id, endpoint_id, step, channel, urgency, campaign, :test,
            account, choice_id, state, due_at
          FROM rows JOIN new USING (id)
         WHERE endpoint_id IS NOT NULL
        RETURNING intent_id, id
    )
    SELECT new.id, planned.id FROM new LEFT JOIN planned ON planned.intent_id = new.id"""


def fingerprints(connection: Connection, ids: Collection[UUID]) -> dict[UUID, bytes]:
    """What intents that are there already say, as hashes."""
    if not ids:
        return {}
    rows = connection.execute(
        sql("SELECT id, fingerprint FROM intents WHERE id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": list(ids)},
    )
    return {row.id: bytes(row.fingerprint) for row in rows}


def lock_open(connection: Connection, ids: Collection[UUID]) -> list[OpenIntent]:
    """Lock those of the intents that are open, by id, and read them with their deliveries."""
    intents = connection.execute(
        sql("""
            SELECT id, brand_id, sender_id, customer_id, policy_id, topic_id, kind, urgency,
                   campaign, when_blocked, test, send_after, expires_at, trace
              FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
             ORDER BY id FOR UPDATE"""),
        {"ids": list(ids)},
    ).all()
    # A statement of its own, so that it sees what was committed while the lock was awaited.
    past: dict[UUID, list[PastDelivery]] = {row.id: [] for row in intents}
    deliveries = connection.execute(
        sql("""
            SELECT intent_id, step, channel, endpoint_id, state, handed_over_at,
                   state = 'cancelled' AND attempts = 0, state = 'planned' AND attempts = 0
              FROM deliveries WHERE intent_id = ANY(CAST(:ids AS uuid[])) ORDER BY step, id"""),
        {"ids": list(past)},
    )
    for intent_id, step, channel, endpoint_id, state, *more in deliveries:
        past[intent_id].append(
            PastDelivery(step, Channel(channel), endpoint_id, DeliveryState(state), *more)
        )
    return [OpenIntent(**row._mapping, past=tuple(past[row.id])) for row in intents]  # noqa: SLF001  # public, says SQLAlchemy


def customer_endpoints(
    connection: Connection, customer_ids: Collection[int]
) -> dict[int, list[Reachable]]:
    """The usable endpoints of customers, the best first: verified ones, then the oldest."""
    found: dict[int, list[Reachable]] = {key: [] for key in customer_ids}
    rows = connection.execute(
        sql("""
            SELECT customer_id, id, channel, service FROM endpoints
             WHERE customer_id = ANY(CAST(:ids AS bigint[])) AND state = 'active'
             ORDER BY verified_at IS NULL, id"""),
        {"ids": list(customer_ids)},
    )
    for customer_id, endpoint_id, channel, service in rows:
        found[customer_id].append(Reachable(endpoint_id, Channel(channel), service))
    return found


def note_decisions(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[UUID, int]:
    """Write decisions about locked open intents and all that follows from them.

    A row is `{"id", "at", "cause", "verdict", "until", "reason", "considered", "decide_at",
    "ended" (a final state or null), "step", "channel", "endpoint_id", "state", "due_at",
    "account", "choice_id"}`. Clocks of the intent's handed-over deliveries are stopped by a new
    delivery and by an end; a `wait` sets the clock of the last one. A `wait` that is the same as
    the intent's latest decision is not written again, nor one for the same clock, whenever it
    rings. Returns the ids of new deliveries.
    """
    done = connection.execute(sql(_NOTE_DECISIONS), {"rows": as_rows(rows)})
    return {row[0]: row[1] for row in done}


_NOTE_DECISIONS = """
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            id uuid, at timestamptz, cause text, verdict text, until timestamptz, reason text,
            considered jsonb, decide_at timestamptz, ended text, step smallint, channel text,
            endpoint_id bigint, state text, due_at timestamptz, account text, choice_id bigint)
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
        SELECT r.id, 1 + coalesce(l.number, 0), r.at, r.cause, r.verdict, r.until, r.reason,
               r.considered
          FROM rows r LEFT JOIN LATERAL (
               SELECT * FROM decisions p WHERE p.intent_id = r.id ORDER BY number DESC LIMIT 1
               ) l ON true
         -- To go on waiting as before is nothing new; it would bury the story of the intent. Nor is
         -- until when the clock of a delivery runs: a pause moves it once a minute.
         WHERE r.verdict <> 'wait' OR l.number IS NULL
            OR (r.verdict, r.reason, r.considered)
               IS DISTINCT FROM (l.verdict, l.reason, l.considered)
            OR (r.reason <> 'not_yet_unseen' AND r.until IS DISTINCT FROM l.until)
    ), planned AS (
        INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
            campaign, test, account, choice_id, state, due_at)
        SELECT r.id, i.brand_id, i.sender_id, r.endpoint_id, r.step, r.channel, i.urgency,
            i.campaign, i.test, r.account, r.choice_id, r.state, r.due_at
          FROM rows r JOIN intents i USING (id) WHERE r.endpoint_id IS NOT NULL
        ON CONFLICT ON CONSTRAINT one_delivery_per_step_and_endpoint
           -- What was withdrawn before anything was tried comes again once it may.
           DO UPDATE SET state = excluded.state, due_at = excluded.due_at, reason = NULL,
                         account = excluded.account, choice_id = excluded.choice_id,
                         due_since = NULL
            WHERE deliveries.state = 'cancelled' AND deliveries.attempts = 0
        RETURNING intent_id, id
    )
    SELECT intent_id, id FROM planned"""


def withdraw_untried(connection: Connection, ids: Collection[UUID], reason: str) -> set[UUID]:
    """Take back what is on its way of locked intents, where nothing of it was told to a worker yet;
    return those intents."""
    done = connection.execute(
        sql("""
            WITH mine AS (
                SELECT id, intent_id, state = 'planned' AND attempts = 0 AS untried
                  FROM deliveries WHERE intent_id = ANY(CAST(:ids AS uuid[]))
                   AND state IN ('planned', 'queued', 'sending', 'unknown')
                 ORDER BY id FOR UPDATE
            ), free AS (
                SELECT intent_id FROM mine GROUP BY intent_id HAVING bool_and(untried))
            UPDATE deliveries d SET state = 'cancelled', reason = :reason, account = '',
                   due_at = NULL
              FROM mine JOIN free USING (intent_id) WHERE d.id = mine.id
            RETURNING d.intent_id"""),
        {"ids": list(ids), "reason": reason},
    )
    return set(done.scalars())


def any_to_decide(connection: Connection) -> bool:
    """Whether the clock of an intent has rung, or that of a delivery whose verdict is known."""
    # In order, so that the planner goes by the indexes: where many are thought to match, it hopes
    # to meet one soon by reading the table.
    asks: bool = connection.execute(
        sql("""
            SELECT (SELECT true FROM intents WHERE decide_at <= now()
                     ORDER BY decide_at LIMIT 1) IS NOT NULL
                OR (SELECT true FROM deliveries
                     WHERE due_at <= now() AND due_at IS NOT NULL
                       AND state NOT IN ('planned', 'queued')
                       AND state NOT IN ('sending', 'unknown')
                     ORDER BY due_at LIMIT 1) IS NOT NULL""")
    ).scalar_one()
    return asks


def take_due_intents(connection: Connection, limit: int, look_again_s: float) -> list[UUID]:
    """Take open intents whose time has come; each comes again after `look_again_s` seconds."""
    rows = connection.execute(
        sql("""
            WITH due AS (
                SELECT id FROM intents WHERE decide_at <= now()
                 ORDER BY decide_at LIMIT :limit FOR UPDATE SKIP LOCKED)
            UPDATE intents i SET decide_at = now() + make_interval(secs => :look_again)
              FROM due WHERE i.id = due.id RETURNING i.id"""),
        {"limit": limit, "look_again": look_again_s},
    )
    return list(rows.scalars())


def end_intents(
    connection: Connection, ids: Collection[UUID], state: IntentState, reason: str
) -> list[UUID]:
    """End those of the intents that are open, and cancel what has not left yet; return them."""
    lock = sql(
        "SELECT id FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'open' "
        "ORDER BY id FOR UPDATE"
    )
    open_ids = list(connection.execute(lock, {"ids": list(ids)}).scalars())
    connection.execute(
        sql("""
            UPDATE intents SET state = :state, reason = :reason, decide_at = NULL,
                   ended_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))"""),
        {"ids": open_ids, "state": state.value, "reason": reason},
    )
    cancel_deliveries(connection, open_ids, reason)
    return open_ids


def mark_seen(connection: Connection, seen: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """Mark locked open intents as seen; return those that were open until now.

    A row is `{"id", "delivery_id", "seen_as"}`. Whatever else of theirs has not left is for
    `cancel_deliveries` to end, in the same transaction.
    """
    done = connection.execute(
        sql("""
            UPDATE intents i SET state = 'seen', reason = '', decide_at = NULL, ended_at = now(),
                   seen_delivery_id = r.delivery_id, seen_as = r.seen_as
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id uuid, delivery_id bigint, seen_as text)
             WHERE i.id = r.id AND i.state = 'open' RETURNING i.id"""),
        {"rows": as_rows(list(map(dict, seen)))},
    )
    return list(done.scalars())


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
        sql("""
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
