"""Feedback: the inbox is read into events, and what was seen stops everywhere.

Everything about one batch happens in one transaction: the inbox rows, the messages, the events, the
intents that they show as seen and the deliveries that are cancelled for it. A batch that the ledger
does not take is read by halves: one bad row holds up no other.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from app.domain.evidence import Evidence, evidence_of, satisfies
from app.domain.states import may_become
from app.domain.vocabulary import DeliveryState, EventType
from app.store import events
from app.store.customers import lock_endpoints, mark_endpoints_invalid
from app.store.inbox import Received, finish_inbox, keep_in_inbox, take_inbox, take_these
from app.store.intents import cancel_deliveries, mark_seen
from app.store.persons import note_activity
from app.store.session import LEDGER_AWAY, lock_intents
from app.usecases.consent.noes import NoByFact
from app.usecases.delivering.accounts import hint_urgent
from app.usecases.giving_way import again_if_undone
from app.usecases.hearing.facts import read_facts
from app.usecases.hearing.heard import Heard
from app.usecases.hearing.opting import Opting
from app.usecases.hearing.reading import Fact
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

BATCH = 1_000
BATCH_BYTES = 16_000_000
"""No more of bodies, and one, is held in memory at once."""
AT_A_STRETCH_S = 10.0
WORDS_AT_ONCE = 50
"""Of so many rows words such as STOP are read at once: nobody is given an address meanwhile."""


@dataclass(slots=True)
class Done:
    """What a batch came to: facts that were new, intents seen, intents whose delivery failed."""

    new: Sequence[Fact] = ()
    seen: int = 0
    failed: list[UUID] = field(default_factory=list)
    answers: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    read: int = 0
    again: int = 0
    unreadable: int = 0
    not_ours: int = 0
    messages: int = 0
    later: Sequence[int] = ()
    """What is left to be read in batches of its own."""

    def counts(self) -> Counter[str]:
        """Counts of facts by their sort, and of all else."""
        counts = Counter(fact.event.value for fact in self.new)
        counts.update(seen=self.seen, unread=self.again + self.unreadable, messages=self.messages)
        return counts


def read_feedback(runtime: Runtime) -> dict[str, int]:
    """Read what waits in the inbox, batch after batch for a while; return counts.

    What is left is hinted by the next tick: a worker that is to stop waits for no long inbox. One
    thread of a process reads at a time: while much waits there are many hints, and the others have
    intents to accept and to decide.
    """
    if not _reading.acquire(blocking=False):
        return {}
    try:
        return _read_on(runtime)
    finally:
        _reading.release()


_reading = threading.Lock()


def _read_on(runtime: Runtime) -> dict[str, int]:
    counts: Counter[str] = Counter()
    ends = time.monotonic() + AT_A_STRETCH_S
    while time.monotonic() < ends:
        taken, told = _read(runtime, lambda connection: take_inbox(connection, BATCH, BATCH_BYTES))
        if not taken:
            break
        counts += told
    if counts:
        _log.info("feedback_read", **counts)
    return dict(counts)


def read_these(runtime: Runtime, ids: Collection[int]) -> None:
    """Read these of the inbox now, whether due or not."""
    _read(runtime, lambda connection: take_these(connection, ids))


def _read(
    runtime: Runtime, take: Callable[[Connection], list[Received]], *, again: bool = False
) -> tuple[int, Counter[str]]:
    """Read what is taken in one transaction; return how much was taken, and counts.

    What the ledger does not take is found by halves, so that it alone stays unread.
    """
    began = datetime.now(UTC)
    received: list[Received] = []

    @again_if_undone
    def feedback() -> Done:
        nonlocal received
        with runtime.engine.begin() as connection:
            received = take(connection)
            return _read_batch(runtime, connection, received) if received else Done()

    try:
        done = feedback()
        if not received:
            return 0, Counter()
    except (*LEDGER_AWAY, ProgrammingError):
        # The ledger is away, or of a schema beyond ours: all of it is still due.
        raise
    except Exception as error:  # noqa: BLE001  # told below, by its kind alone
        ids = [one.id for one in received]
        if len(ids) == 1 and again:
            done = _give_up(runtime, received[0], error)
        else:  # one alone is read once more: what it is about may have changed while it was read
            middle = (len(ids) + 1) // 2
            counts: Counter[str] = Counter()
            for part in filter(None, (ids[:middle], ids[middle:])):
                counts += _read(runtime, partial(take_these, ids=part), again=True)[1]
            return len(ids), counts
    tell_workers(runtime, done)
    _observe(runtime, done, began)
    counts = done.counts()
    for first in range(0, len(done.later), WORDS_AT_ONCE):
        words = done.later[first : first + WORDS_AT_ONCE]
        counts += _read(runtime, partial(take_these, ids=words))[1]
    return len(received), counts


def _give_up(runtime: Runtime, one: Received, error: Exception) -> Done:
    """Keep as unreadable what cannot be written down; an operator may have it read again."""
    _log.error("hook_not_read", account=one.source, inbox=one.id, exc_info=error)
    with runtime.engine.begin() as connection:
        if not take_these(connection, [one.id]):
            return Done()  # somebody else reads it
        row = {"id": one.id, "problem": "the ledger does not take it", "again_s": None}
        keep_in_inbox(connection, [row])
    return Done(unreadable=1)


def _read_batch(runtime: Runtime, connection: Connection, received: Sequence[Received]) -> Done:
    reading = read_facts(runtime, connection, received, words=len(received) <= WORDS_AT_ONCE)
    done = record(runtime, connection, reading.facts, reading.heard, reading.active)
    left = reading.unread.keys() | set(reading.later)
    finish_inbox(connection, [one.id for one in received if one.id not in left])
    if reading.unread:
        keep_in_inbox(connection, list(reading.unread.values()))
    done.unreadable = sum(row["again_s"] is None for row in reading.unread.values())
    done.again = len(reading.unread) - done.unreadable
    done.not_ours = len(reading.not_ours - left)
    done.read = len(received) - len(left) - done.not_ours
    done.later = reading.later
    done.messages = reading.messages
    return done


def tell_workers(runtime: Runtime, done: Done) -> None:
    """After the commit: what failed goes on at once, and answers leave at once."""
    if done.failed:
        runtime.hints.decide(done.failed)
    hint_urgent(runtime, done.answers, datetime.now(UTC))


def _observe(runtime: Runtime, done: Done, began: datetime) -> None:
    """Count a batch that was committed, and add what was heard to the traces of its intents."""
    tally = runtime.tally
    for event, count in Counter(fact.event.value for fact in done.new).items():
        tally.add("converge_events_total", count, event=event)
    tally.add("converge_intents_seen_total", done.seen)
    tally.add("converge_failures_total", len(done.failed))
    for result in ("read", "again", "unreadable", "not_ours"):
        tally.add("converge_inbox_read_total", getattr(done, result), result=result)
    if not runtime.tracing.on:
        return
    ended = datetime.now(UTC)
    for fact in done.new:
        runtime.tracing.record(
            "converge.event",
            fact.spoken.trace,
            began,
            ended,
            intent_id=str(fact.spoken.intent_id),
            delivery_id=fact.spoken.id,
            account=fact.spoken.account,
            outcome=fact.event.value,
        )


def record(
    runtime: Runtime,
    connection: Connection,
    facts: Sequence[Fact],
    heard: Sequence[Heard] = (),
    active: Sequence[Mapping[str, Any]] = (),
) -> Done:
    """Write events down and let them act.

    `heard` are words in messages, told as facts or not; `active` says who wrote, where and when.
    """
    if not facts and not heard and not active:
        return Done()
    noes = [
        NoByFact(one.no, f"{one.source}:{one.external_id}", one.spoken) for one in facts if one.no
    ]
    opting = Opting(runtime, connection, noes, heard) if noes or heard else None
    # Locks in the one order: people, what is theirs, then intents, even where only their
    # deliveries change.
    active = [*active, *map(_active, filter(_by_a_person, facts))]
    if active:
        note_activity(connection, active)
    bouncing = {fact.spoken.endpoint_id for fact in facts if _lost(fact) and _bounced(fact)}
    if bouncing:
        lock_endpoints(connection, bouncing)
    intents = {str(fact.spoken.intent_id) for fact in facts}
    lock_intents(connection, sorted(intents.union(opting.intents if opting else ())))
    answers = opting.act() if opting else {}
    refs = {fact.spoken.id: fact.ref for fact in facts if fact.ref}
    if refs:
        events.learn_refs(connection, refs)
    facts = [fact for fact in facts if fact.event is not EventType.ACCEPTED]
    new = [facts[n] for n in events.insert_events(connection, _event_rows(facts))]
    arrived, lost = _arrived_or_lost(new)
    seen = _seen(runtime, connection, new)
    ended = mark_seen(connection, seen) if seen else []
    if arrived:
        # After the intents, so that what was seen is written once: its clock stops with it.
        events.mark_delivered(connection, arrived, may_become(DeliveryState.DELIVERED))
    if ended:
        cancel_deliveries(connection, ended, "seen")
    bounced = {
        fact.spoken.endpoint_id: _why(fact) for fact in new if _lost(fact) and _bounced(fact)
    }
    if bounced:
        mark_endpoints_invalid(connection, bounced)
    failed = events.mark_failed(connection, lost, may_become(DeliveryState.FAILED)) if lost else []
    return Done(new, len(ended), failed, answers)


def _by_a_person(fact: Fact) -> bool:
    return fact.event in _PERSONAL


_PERSONAL = frozenset({EventType.OPENED, EventType.CLICKED, EventType.READ, EventType.REPLIED})


def _active(fact: Fact) -> dict[str, Any]:
    spoken = fact.spoken
    return {"customer_id": spoken.customer_id, "channel": spoken.channel, "at": fact.at}


def _arrived_or_lost(new: Iterable[Fact]) -> tuple[set[int], dict[int, str]]:
    """Which deliveries arrived, and which were lost and why: the latest that is told of each.

    Vendors report out of order, and some report a loss and then an arrival.
    """
    last: dict[int, Fact] = {}
    for fact in sorted(new, key=lambda fact: fact.at):
        if _lost(fact) or _arrived(fact):
            last[fact.spoken.id] = fact
    lost = {key: _why(fact) for key, fact in last.items() if _lost(fact)}
    return last.keys() - lost.keys(), lost


def _arrived(fact: Fact) -> bool:
    return (_evidence(fact) or Evidence.SENT) >= Evidence.DELIVERED


def _evidence(fact: Fact) -> Evidence | None:
    return Evidence.REPLIED if fact.written else evidence_of(fact.event)


def _bounced(fact: Fact) -> bool:
    return fact.event is EventType.BOUNCED


def _lost(fact: Fact) -> bool:
    return fact.event is EventType.FAILED or (_bounced(fact) and fact.permanent)


def _why(fact: Fact) -> str:
    return fact.reason or fact.event.value


def _seen(runtime: Runtime, connection: Connection, new: Sequence[Fact]) -> list[dict[str, Any]]:
    """The surest fact of each intent that its policy takes as seen."""
    named = {fact.spoken.policy_id for fact in new}
    policies = runtime.catalog.knowing(policies=named, connection=connection).policies_by_id
    best: dict[UUID, tuple[Evidence, Fact]] = {}
    for fact in new:
        evidence = _evidence(fact)
        seen_at = policies[fact.spoken.policy_id].seen_at
        if evidence is None or not satisfies(evidence, seen_at):
            continue
        known = best.get(fact.spoken.intent_id)
        if known is None or evidence > known[0]:
            best[fact.spoken.intent_id] = (evidence, fact)
    return [
        {"id": intent_id, "delivery_id": fact.spoken.id, "seen_as": fact.event.value}
        for intent_id, (_, fact) in best.items()
    ]


def _event_rows(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    unique = {(fact.source, fact.external_id): n for n, fact in reversed(list(enumerate(facts)))}
    return [
        {
            "n": n,
            "source": fact.source,
            "external_id": fact.external_id,
            "intent_id": fact.spoken.intent_id,
            "delivery_id": fact.spoken.id,
            "type": fact.event.value,
            "reason": fact.reason,
            "at": fact.at,
            "detail": {},
        }
        for n, fact in enumerate(facts)
        if unique[fact.source, fact.external_id] == n
    ]
