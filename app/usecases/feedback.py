"""Feedback: the inbox is read into events, and what was seen stops everywhere.

Everything about one batch happens in one transaction: the inbox rows, the events, the intents that
they show as seen and the deliveries that are cancelled for it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection

from app.channels.contract import HookRequest, Receipt, UnreadableHook, WebhookReader
from app.domain.evidence import Evidence, classify_click, classify_open, evidence_of, satisfies
from app.domain.states import may_become
from app.domain.vocabulary import DeliveryState, EventType
from app.store import events
from app.store.customers import mark_endpoints_invalid
from app.store.events import Spoken
from app.store.inbox import (
    TRACKING,
    Received,
    finish_inbox,
    keep_in_inbox,
    take_inbox,
)
from app.store.intents import mark_seen
from app.store.session import lock_intents
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

BATCH = 500
KEPT_FOR = timedelta(days=1)
"""How long what matches nothing yet is tried again: a receipt may overtake our own commit."""
AGAIN_CAP_S = 600.0


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about one delivery, ready to be written down."""

    source: str
    external_id: str
    spoken: Spoken
    event: EventType
    at: datetime
    reason: str = ""
    permanent: bool = True


def read_feedback(runtime: Runtime) -> dict[str, int]:
    """Read what waits in the inbox, batch after batch; return counts."""
    counts: dict[str, int] = defaultdict(int)
    while True:
        with runtime.engine.begin() as connection:
            received = take_inbox(connection, BATCH)
            if received:
                bounced = _read_batch(runtime, connection, received, counts)
        if not received:
            break
        if bounced:
            runtime.hints.decide(bounced)
    if counts:
        _log.info("feedback_read", **counts)
    return dict(counts)


def _read_batch(
    runtime: Runtime,
    connection: Connection,
    received: Sequence[Received],
    counts: dict[str, int],
) -> list[UUID]:
    facts: list[Fact] = []
    unread: list[dict[str, Any]] = []
    facts += _tracked(connection, [one for one in received if one.source == TRACKING], unread)
    facts += _receipts(
        runtime, connection, [one for one in received if one.source != TRACKING], unread
    )
    left = {row["id"] for row in unread}
    bounced = _record(runtime, connection, facts, counts)
    finish_inbox(connection, [one.id for one in received if one.id not in left])
    keep_in_inbox(connection, unread)
    counts["unread"] += len(unread)
    return bounced


def _tracked(
    connection: Connection, received: Sequence[Received], unread: list[dict[str, Any]]
) -> list[Fact]:
    """Fetches of our own pixels and links; who fetched is judged here, once."""
    fetches = [(one, orjson.loads(one.body)) for one in received]
    spoken = events.find_by_id(connection, {fetch["delivery"] for _, fetch in fetches})
    facts = []
    for one, fetch in fetches:
        delivery = spoken.get(fetch["delivery"])
        if delivery is None:
            unread.append({"id": one.id, "problem": "no such delivery", "again_s": None})
            continue
        handed = delivery.handed_over_at
        since = (one.received_at - handed).total_seconds() if handed else None
        classify = classify_click if fetch["event"] == EventType.CLICKED else classify_open
        verdict = classify(fetch["agent"], fetch["ip"], fetch["method"], since)
        name = f"{delivery.id}:{fetch['event']}:{fetch.get('index', 0)}:{verdict.event.value}"
        facts.append(Fact(TRACKING, name, delivery, verdict.event, one.received_at, verdict.reason))
    return facts


def _receipts(
    runtime: Runtime,
    connection: Connection,
    received: Sequence[Received],
    unread: list[dict[str, Any]],
) -> list[Fact]:
    """Webhooks of providers; what matches no delivery yet stays in the inbox."""
    read: dict[str, list[tuple[Received, Receipt]]] = defaultdict(list)
    for one in received:
        try:
            for receipt in _interpret(runtime, one):
                read[one.source].append((one, receipt))
        except UnreadableHook as problem:
            unread.append({"id": one.id, "problem": str(problem), "again_s": None})
        except _NotServed as problem:
            unread.append(_not_yet(one, str(problem)))
        except Exception as bug:  # noqa: BLE001  # one body never holds up all others
            _log.error("hook_not_read", account=one.source, inbox=one.id, kind=type(bug).__name__)
            unread.append({"id": one.id, "problem": "reading it failed", "again_s": None})
    facts = []
    waiting: dict[int, dict[str, Any]] = {}
    for account, pairs in read.items():
        spoken = events.find_by_ref(connection, account, {receipt.ref for _, receipt in pairs})
        for one, receipt in pairs:
            delivery = spoken.get(receipt.ref)
            if delivery is None:
                waiting[one.id] = _not_yet(one, "no delivery has this reference")
                continue
            facts.append(
                Fact(
                    account,
                    receipt.external_id,
                    delivery,
                    receipt.event,
                    receipt.at,
                    receipt.detail.get("reason", ""),
                    receipt.permanent,
                )
            )
    unread += waiting.values()
    return facts


class _NotServed(Exception):
    """The account is not configured in this process; in another, or in a moment, it may be."""


def _interpret(runtime: Runtime, one: Received) -> list[Receipt]:
    account = runtime.accounts.get(one.source)
    if account is None or not isinstance(account.provider, WebhookReader):
        raise _NotServed("no account of this name reads webhooks here")
    request = HookRequest(body=one.body, headers=one.headers, url="", received_at=one.received_at)
    return account.provider.read(request)


def _not_yet(one: Received, problem: str) -> dict[str, Any]:
    """Try again later, ever more seldom, for a day."""
    again_s = min(AGAIN_CAP_S, 2.0**one.tries)
    tried_s = sum(min(AGAIN_CAP_S, 2.0**n) for n in range(one.tries))
    return {
        "id": one.id,
        "problem": problem,
        "again_s": again_s if tried_s < KEPT_FOR.total_seconds() else None,
    }


def _record(
    runtime: Runtime, connection: Connection, facts: Sequence[Fact], counts: dict[str, int]
) -> list[UUID]:
    """Write events down and let them act; return the intents that a bounce sends back."""
    if not facts:
        return []
    # Locks in the one order: intents first, even where only their deliveries change.
    lock_intents(connection, sorted({str(fact.spoken.intent_id) for fact in facts}))
    new = [facts[n] for n in events.insert_events(connection, _event_rows(facts))]
    for fact in new:
        counts[fact.event.value] += 1
    arrived = {
        fact.spoken.id
        for fact in new
        if (evidence_of(fact.event) or Evidence.SENT) >= Evidence.DELIVERED
    }
    if arrived:
        events.mark_delivered(connection, arrived, may_become(DeliveryState.DELIVERED))
    seen = _seen(runtime, new)
    if seen:
        counts["seen"] += len(mark_seen(connection, seen))
    return _bounce(connection, [fact for fact in new if fact.event is EventType.BOUNCED])


def _seen(runtime: Runtime, new: Sequence[Fact]) -> list[dict[str, Any]]:
    """The surest fact of each intent that its policy takes as seen."""
    named = {fact.spoken.policy_id for fact in new}
    policies = runtime.catalog.knowing(policies=named).policies_by_id
    best: dict[UUID, tuple[Evidence, Fact]] = {}
    for fact in new:
        evidence = evidence_of(fact.event)
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


def _bounce(connection: Connection, bounces: Sequence[Fact]) -> list[UUID]:
    lasting = [fact for fact in bounces if fact.permanent]
    if not lasting:
        return []
    mark_endpoints_invalid(
        connection, {fact.spoken.endpoint_id: fact.reason or "bounced" for fact in lasting}
    )
    return events.mark_bounced(
        connection,
        {fact.spoken.id: fact.reason or "bounced" for fact in lasting},
        may_become(DeliveryState.FAILED),
    )


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
