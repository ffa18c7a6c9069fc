"""What must be true whatever breaks, held against what the providers took.

The quick look is taken after each fault, at what is new since the last one. The whole look is taken
once the dust has settled. A trigger keeps every move of a state, and everything that changes what
was to stay as it was written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.settlement import ALONE_AFTER_LOSSES
from app.domain.states import DELIVERY_MOVES, INTENT_MOVES
from tests.chaos.world import World

OVERDUE_S = 90.0
"""So long after its time nobody has looked at a row: it is held for ever, or lost."""
SOME = 20
CROSSED_S = 30.0
"""Longer than any process stands still between its look at an intent and what it does then."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be; `intents` are those whose stories may tell why."""

    what: str
    intents: Sequence[Any] = ()

    def __str__(self) -> str:
        return self.what


@dataclass
class Looked:
    """How far the quick looks have come."""

    arrivals: int = 0
    promised: int = 0
    hindered_at: dict[str, float] = field(default_factory=dict)


def prepare(world: World) -> None:
    """Let the ledger keep what happens to states, attempts and events."""
    world.execute("""
        CREATE TABLE chaos.moves (
            number bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, kind text NOT NULL,
            id text NOT NULL, old text NOT NULL, new text NOT NULL, allowed boolean NOT NULL);
        CREATE INDEX ON chaos.moves (number) WHERE NOT allowed;
        CREATE INDEX ON chaos.moves (id);
        CREATE TABLE chaos.spoilt (what text NOT NULL, delivery_id bigint NOT NULL)""")
    for table, moves in (("deliveries", DELIVERY_MOVES), ("intents", INTENT_MOVES)):
        allowed = " ".join(f"{old}>{new}" for old, news in moves.items() for new in news)
        world.execute(f"""
            CREATE FUNCTION chaos.moved_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO chaos.moves (at, kind, id, old, new, allowed) VALUES (
                    clock_timestamp(), '{table}', new.id, old.state, new.state,
                    old.state || '>' || new.state = ANY(string_to_array('{allowed}', ' ')));
                RETURN NULL;
            END $$;
            CREATE TRIGGER moved AFTER UPDATE ON {table} FOR EACH ROW
                WHEN (old.state <> new.state) EXECUTE FUNCTION chaos.moved_{table}()""")
    world.execute("""
        CREATE FUNCTION chaos.spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO chaos.spoilt VALUES (TG_OP || ' of ' || TG_TABLE_NAME, old.delivery_id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER gone AFTER DELETE ON attempts FOR EACH ROW EXECUTE FUNCTION chaos.spoil();
        CREATE TRIGGER changed AFTER UPDATE ON attempts FOR EACH ROW
            WHEN (old.outcome <> 'ambiguous' AND old.outcome <> new.outcome)
            EXECUTE FUNCTION chaos.spoil();
        CREATE TRIGGER changed AFTER UPDATE OR DELETE ON events FOR EACH ROW
            EXECUTE FUNCTION chaos.spoil()""")


def quick(world: World, looked: Looked) -> list[Violation]:
    """Look at what is new. Raises `OperationalError` while the ledger is away."""
    arrivals, arrived = world.arrivals.since(looked.arrivals)
    promised, ids = world.load.promised_since(looked.promised)
    found = [*_unrecorded(world, arrived), *_broken_promises(world, ids)]
    found += [*_not_allowed(world), *_overdue(world, looked), *_refused(world)]
    looked.arrivals, looked.promised = arrivals, promised
    return found


def _unrecorded(world: World, arrived: Mapping[int, int]) -> list[Violation]:
    """What was taken more often than attempts are recorded (or in hand), or without a doubt."""
    if not arrived:
        return []
    rows = world.rows(
        """
        SELECT d.id, d.intent_id, d.state,
               count(a) FILTER (WHERE a.outcome IN ('accepted', 'ambiguous')) AS told,
               count(a) FILTER (WHERE a.outcome = 'ambiguous'
                                   OR a.reason = 'lease_ended') AS doubts,
               d.claim_token IS NOT NULL AND NOT coalesce(
                   bool_or(a.claim_token = d.claim_token), false) AS in_hand
          FROM deliveries d LEFT JOIN attempts a ON a.delivery_id = d.id
         WHERE d.id = ANY(CAST(:ids AS bigint[])) GROUP BY d.id""",
        ids=list(arrived),
    )
    found = [
        Violation(
            f"delivery {row.id} ({row.state}) was taken {arrived[row.id]} times, of which "
            f"{row.told} are recorded, {row.doubts} of those as doubtful"
            + (", and one is in hand" if row.in_hand else ""),
            [row.intent_id],
        )
        for row in rows
        if arrived[row.id] > min(row.told + row.in_hand, 1 + row.doubts)
    ]
    unknown = set(arrived) - {row.id for row in rows}
    return found + [Violation(f"delivery {one} was taken and is not known") for one in unknown]


def _broken_promises(world: World, ids: Sequence[Any]) -> list[Violation]:
    if not ids:
        return []
    lost = world.rows(
        """
        SELECT p.id FROM unnest(CAST(:ids AS uuid[])) AS p(id)
         WHERE NOT EXISTS (SELECT FROM intents i WHERE i.id = p.id)""",
        ids=list(ids),
    )
    return [Violation(f"intent {row.id} was accepted and is lost") for row in lost]


def _refused(world: World) -> list[Violation]:
    """Nothing that is enqueued here gives a reason to refuse it."""
    rows = world.rows("SELECT key, intent_id, field, code, reason FROM refusals")
    over_broker = [
        Violation(f"{row.key} was refused: {row.field} {row.code}: {row.reason}", [row.intent_id])
        for row in rows
    ]
    return over_broker + [
        Violation(f"{one.id} was refused ({one.status}): {one.field}: {one.reason}", [one.id])
        for one in world.load.refused
    ]


def _not_allowed(world: World) -> list[Violation]:
    moves = world.rows("""
        SELECT m.kind, m.id, m.old, m.new, coalesce(d.intent_id::text, m.id) AS intent_id
          FROM chaos.moves m
          LEFT JOIN deliveries d ON m.kind = 'deliveries' AND d.id::text = m.id
         WHERE NOT m.allowed ORDER BY number""")
    spoilt = world.rows("""
        SELECT s.what, s.delivery_id, d.intent_id
          FROM chaos.spoilt s LEFT JOIN deliveries d ON d.id = s.delivery_id""")
    return [
        *(
            Violation(f"{row.kind} {row.id} went from {row.old} to {row.new}", [row.intent_id])
            for row in moves
        ),
        *(Violation(f"{row.what}: delivery {row.delivery_id}", [row.intent_id]) for row in spoilt),
    ]


def _overdue(world: World, looked: Looked) -> list[Violation]:
    """Rows that nobody has looked at for long after their time.

    What waits for an account waits with reason while all accounts of its channel are unhealthy;
    so does what has cost workers, until no other such delivery is out.
    """
    now = world.rows("SELECT extract(epoch FROM now())::float8")[0][0]
    health = world.runtime.health.health(world.runtime.accounts)
    for channel in world.runtime.resting_channels(health)[False]:
        looked.hindered_at[channel] = now
    rows = world.rows(
        """
        SELECT d.id, d.intent_id, d.state, d.channel, extract(epoch FROM d.due_at)::float8 AS due
          FROM deliveries d WHERE d.due_at < now() - make_interval(secs => :overdue)
           AND (d.losses < :alone OR d.state <> 'planned')
         UNION ALL
        SELECT NULL, i.id, i.state, '', extract(epoch FROM i.decide_at)::float8
          FROM intents i WHERE i.decide_at < now() - make_interval(secs => :overdue)""",
        overdue=OVERDUE_S,
        alone=ALONE_AFTER_LOSSES,
    )
    return [
        Violation(
            (f"delivery {row.id}" if row.id else f"intent {row.intent_id}")
            + f" is {row.state}, {now - row.due:.0f} s after its time",
            [row.intent_id],
        )
        for row in rows
        if row.state != "planned"
        or max(row.due, looked.hindered_at.get(row.channel, 0.0)) < now - OVERDUE_S
    ]


def unsettled(world: World) -> list[Violation]:
    """What is still to be done, or some of it. Raises `OperationalError` as `quick` does."""
    return _named(
        world,
        """
        (SELECT id, intent_id, 'is ' || state || ', and to be looked at ' || due_at FROM deliveries
          WHERE due_at IS NOT NULL LIMIT :some)
        UNION ALL
        (SELECT NULL, id, 'is to be decided since ' || decide_at FROM intents
          WHERE decide_at <= now() LIMIT :some)
        UNION ALL
        (SELECT NULL, NULL, 'unknown: ' || source || ' waits in the inbox' FROM inbox
          WHERE due_at <= now() LIMIT :some)""",
        some=SOME,
    )


def whole(world: World) -> list[Violation]:
    """Look at everything, once nothing is to be done any more."""
    arrived = dict(world.arrivals.counts)
    return [
        *_unrecorded(world, arrived),
        *_broken_promises(world, list(world.load.enqueued)),
        *_not_allowed(world),
        *_never_ended(world),
        *_never_arrived(world, arrived),
        *_silent_steps(world),
        *_spoken_too_late(world),
        *_tried_elsewhere(world),
        *_poisons(world),
        *_lost_receipts(world),
    ]


def _named(world: World, query: str, **parameters: Any) -> list[Violation]:
    """A violation for each row (id, intent_id, text) that a query finds."""
    return [
        Violation(
            f"delivery {row[0]} {row[2]}" if row[0] else f"intent {row[1]} {row[2]}", [row[1]]
        )
        for row in world.rows(query, **parameters)
    ]


def _never_ended(world: World) -> list[Violation]:
    return _named(
        world,
        """
        SELECT id, intent_id, state || ', which is no end' FROM deliveries
         WHERE state NOT IN ('sent', 'delivered', 'failed', 'cancelled', 'expired')
        UNION ALL
        SELECT id, intent_id, state || ' without a reason' FROM deliveries
         WHERE state = 'failed' AND coalesce(reason, '') = ''
        UNION ALL
        SELECT d.id, d.intent_id, 'has expired without ever being tried' FROM deliveries d
         WHERE state = 'expired'
           AND NOT EXISTS (SELECT FROM attempts a WHERE a.delivery_id = d.id)""",
    )


def _never_arrived(world: World, arrived: Mapping[int, int]) -> list[Violation]:
    return _named(
        world,
        """
        SELECT id, intent_id, state || ', and no provider ever took it' FROM deliveries
         WHERE state IN ('sent', 'delivered')
           AND id NOT IN (SELECT value::bigint FROM json_array_elements_text(
               CAST(:arrived AS json)))""",
        arrived=json.dumps(list(arrived)),
    )


def _silent_steps(world: World) -> list[Violation]:
    """Intents that are open, though there is a step to be taken that nothing waits for."""
    return _named(
        world,
        """
        SELECT NULL, i.id, 'is open, and nothing waits for its next step'
          FROM intents i JOIN policies p ON p.id = i.policy_id
          LEFT JOIN LATERAL (
               SELECT max(step) AS step, bool_or(state IN ('sent', 'delivered')) AS out
                 FROM deliveries d WHERE d.intent_id = i.id) last ON true
         WHERE i.state = 'open'
           AND (last.out IS NOT TRUE
                OR last.step < jsonb_array_length(p.document -> 'steps') - 1)""",
    )


def _spoken_too_late(world: World) -> list[Violation]:
    """What began to be sent though its intent had been seen long before."""
    return _named(
        world,
        """
        SELECT d.id, i.id, 'was begun after its intent had been ' || i.state
          FROM chaos.moves m JOIN deliveries d ON d.id::text = m.id JOIN intents i ON
               i.id = d.intent_id
         WHERE m.kind = 'deliveries' AND m.new = 'sending'
           AND m.at > i.ended_at + make_interval(secs => :crossed)""",
        crossed=CROSSED_S,
    )


def _tried_elsewhere(world: World) -> list[Violation]:
    """What another account began to send after one that may have taken it already."""
    return _named(
        world,
        """
        SELECT d.id, d.intent_id, 'was tried by ' || later.account || ' though '
               || doubt.account || ' may have taken it'
          FROM attempts doubt JOIN attempts later USING (delivery_id)
          JOIN deliveries d ON d.id = doubt.delivery_id
         WHERE doubt.outcome = 'ambiguous' AND later.account <> doubt.account
           AND later.started_at > doubt.finished_at""",
    )


def _poisons(world: World) -> list[Violation]:
    """Each poison is given up after three workers, and spoils nobody else's delivery.

    Whoever else is given up shall have lost workers to other faults: neither all in batches with a
    poison, nor the last one together with a poison that was tried alone.
    """
    return _named(
        world,
        """
        WITH poison AS (
            SELECT d.id, d.intent_id, d.state, d.reason, d.losses, d.channel,
                   (SELECT max(finished_at) FROM attempts WHERE delivery_id = d.id) AS died_at
              FROM deliveries d WHERE d.campaign = 'poison'
        ), batches AS (SELECT claim_token FROM attempts JOIN poison ON poison.id = delivery_id)
        SELECT id, intent_id, 'is poison, and ' || state || ' for ' || coalesce(reason, 'nothing')
               || ' after ' || losses || ' workers'
          FROM poison WHERE state <> 'failed' OR reason <> 'killed_its_worker' OR losses <> 3
        UNION ALL
        SELECT d.id, d.intent_id, 'was given up for a poison' FROM deliveries d
         CROSS JOIN LATERAL (
               SELECT max(finished_at) AS died_at,
                      bool_and(claim_token IN (SELECT claim_token FROM batches)) AS in_batches
                 FROM attempts WHERE delivery_id = d.id AND reason = 'lease_ended') lost
         WHERE d.reason = 'killed_its_worker' AND d.campaign <> 'poison'
           AND (lost.in_batches OR EXISTS (
               SELECT FROM poison WHERE poison.channel = d.channel AND
                      abs(extract(epoch FROM poison.died_at - lost.died_at)) < 2))""",
    )


def _lost_receipts(world: World) -> list[Violation]:
    """Receipts that were answered with 2xx: each is in the inbox, and read where it can be."""
    return [
        Violation(f"a receipt of {row.account} for {row.ref} was taken and {row.fate}")
        for row in world.rows(
            """
            SELECT r.account, r.ref, CASE WHEN i.id IS NULL THEN 'is lost'
                                          ELSE 'not read, though its delivery is known' END AS fate
              FROM json_to_recordset(CAST(:receipts AS json)) AS r(
                       name text, account text, id text, ref text)
              LEFT JOIN inbox i ON i.source = r.account AND i.external_id = r.name
             WHERE i.id IS NULL
                OR i.due_at IS NULL AND EXISTS (
                       SELECT FROM deliveries d
                        WHERE d.account = r.account AND d.provider_ref = r.ref)
                   AND NOT EXISTS (SELECT FROM events e
                                    WHERE e.source = r.account AND e.external_id = r.id)
            """,
            receipts=json.dumps(list(world.outside.receipts.values())),
        )
    ]
