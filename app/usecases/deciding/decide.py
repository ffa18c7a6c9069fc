"""Decide: open intents whose time has come get their next step, in one transaction a batch."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.domain.decision import (
    Decision,
    Reason,
    Send,
    Situation,
    Stop,
    Wait,
    WhenBlocked,
    decide,
)
from app.domain.vocabulary import DeliveryState, IntentState, Kind, Urgency
from app.limits.health import Health
from app.store.catalog import Catalog
from app.store.intents import (
    OpenIntent,
    cancel_deliveries,
    customer_endpoints,
    ledger_now,
    lock_open,
    note_decisions,
    withdraw_untried,
)
from app.store.pauses import pauses_lately
from app.usecases.deciding.persons import STRANGER, Known, persons
from app.usecases.delivering.accounts import Choice, Chooser, hint_urgent
from app.usecases.giving_way import again_if_undone
from app.usecases.intake.records import considered_record, verdict_fields
from app.usecases.observing import first_ids, observe_decided
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

Traced = tuple[UUID, str | None, str]
Decided = tuple[Collection[UUID], dict[str, int], dict[tuple[str, str], list[int]]]
"""Which intents, how many of each verdict, and the deliveries to hint at."""


def decide_intents(runtime: Runtime, ids: Collection[UUID], cause: str = "due") -> dict[str, int]:
    """Decide those of the intents that are open; return how many of each verdict."""
    health = runtime.health.health(runtime.accounts)
    began, traced = datetime.now(UTC), list[Traced]()

    @again_if_undone
    def decide() -> tuple[datetime, Decided]:
        traced.clear()
        with runtime.engine.begin() as connection:
            now = ledger_now(connection)
            return now, _decide(runtime, connection, ids, cause, health, traced)

    now, (decided, counts, urgent) = decide()
    hint_urgent(runtime, urgent, now)
    _log.info("decided", cause=cause, intent_ids=first_ids(decided), **counts)
    observe_decided(runtime, counts, traced, began)
    return counts


def _decide(
    runtime: Runtime,
    connection: Connection,
    ids: Collection[UUID],
    cause: str,
    health: Mapping[str, Health],
    traced: list[Traced],
) -> Decided:
    counts: dict[str, int] = defaultdict(int)
    urgent: dict[tuple[str, str], list[int]] = defaultdict(list)
    intents = lock_open(connection, ids)
    if not intents:
        return (), counts, urgent
    now = ledger_now(connection)
    rows = {row["id"]: row for row in _rows(runtime, connection, intents, now, cause, health)}
    _withdraw_replaced(connection, intents, rows)
    if runtime.tracing.on:
        traced += [
            (one.id, one.trace, rows[one.id]["verdict"])
            for one in intents
            if one.trace and one.id in rows
        ]
    new = note_decisions(connection, list(rows.values()))
    for intent_id, delivery_id in new.items():
        row = rows[intent_id]
        if row["account"]:
            urgent[row["channel"], row["account"]].append(delivery_id)
    ended: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    for row in rows.values():
        counts[row["verdict"]] += 1
        if row["ended"]:
            ended[row["ended"], row["reason"]].append(row["id"])
    for (state, reason), intent_ids in ended.items():
        late = state == IntentState.EXPIRED
        left = DeliveryState.EXPIRED if late else DeliveryState.CANCELLED
        cancel_deliveries(connection, intent_ids, reason, left)
    return rows.keys(), counts, urgent


def _withdraw_replaced(
    connection: Connection, intents: list[OpenIntent], rows: dict[UUID, dict[str, Any]]
) -> None:
    """Take back what another way replaces; where a worker was told of it meanwhile, it stays, and
    there is no decision."""
    replaced = [
        one.id
        for one in intents
        if rows[one.id]["verdict"] == "send" and any(each.untried for each in one.past)
    ]
    if replaced:
        gone = withdraw_untried(connection, replaced, Reason.UNHEALTHY)
        for intent_id in replaced:
            if intent_id not in gone:
                del rows[intent_id]


def _rows(
    runtime: Runtime,
    connection: Connection,
    intents: list[OpenIntent],
    now: datetime,
    cause: str,
    health: Mapping[str, Health],
) -> list[dict[str, Any]]:
    named = {intent.policy_id for intent in intents}
    senders = {intent.sender_id for intent in intents}  # and so their brands
    catalog = runtime.catalog.knowing(policies=named, senders=senders, connection=connection)
    policies = catalog.policies_by_id
    endpoints = customer_endpoints(connection, {intent.customer_id for intent in intents})
    pauses = pauses_lately(connection)
    resting = runtime.resting_channels(health)
    services = {test: runtime.services(test=test) for test in (False, True)}
    chooser = Chooser(runtime, connection, health, pauses)
    known = _persons(catalog, connection, intents)
    rows = []
    for intent in intents:
        who = known.get(intent.customer_id, STRANGER)
        decision = decide(
            Situation(
                policy=policies[intent.policy_id],
                brand_id=intent.brand_id,
                sender_id=intent.sender_id,
                campaign=intent.campaign,
                endpoints=endpoints[intent.customer_id],
                channels=runtime.channels(test=intent.test),
                resting=resting[intent.test],
                services=services[intent.test],
                expires_at=intent.expires_at,
                send_after=intent.send_after,
                past=intent.past,
                pauses=pauses,
                topic_id=intent.topic_id,
                kind=Kind(intent.kind),
                urgency=Urgency(intent.urgency),
                when_blocked=WhenBlocked(intent.when_blocked),
                person=who.person,
                rules=catalog.brands_by_id[intent.brand_id].rules,
                activity=who.activity,
            ),
            now,
        )
        choice = Choice()
        if isinstance(decision.verdict, Send) and intent.urgency == Urgency.URGENT:
            choice = chooser.choose(decision.verdict.channel, test=intent.test)
        rows.append(_row(runtime, intent, decision, now, cause, choice))
    return rows


def _persons(
    catalog: Catalog, connection: Connection, intents: list[OpenIntent]
) -> dict[int, Known]:
    """The customers of the intents, brand by brand."""
    by_brand: dict[int, list[OpenIntent]] = defaultdict(list)
    for intent in intents:
        by_brand[intent.brand_id].append(intent)
    found: dict[int, Known] = {}
    for brand_id, mine in by_brand.items():
        found |= persons(
            connection,
            catalog.brands_by_id[brand_id],
            {intent.customer_id for intent in mine},
            marketing=any(intent.kind == Kind.MARKETING for intent in mine),
        )
    return found


def _row(
    runtime: Runtime,
    intent: OpenIntent,
    decision: Decision,
    now: datetime,
    cause: str,
    choice: Choice,
) -> dict[str, Any]:
    verdict = decision.verdict
    own_clock = isinstance(verdict, Wait) and (verdict.own or not intent.past)
    return {
        "id": intent.id,
        "at": now,
        "cause": cause,
        "considered": considered_record(decision),
        # A clock that runs on a delivery is kept there; the intent's own is its deadline.
        "decide_at": verdict.until
        if isinstance(verdict, Wait) and own_clock
        else intent.expires_at,
        "ended": verdict.state.value if isinstance(verdict, Stop) else None,
        **verdict_fields(verdict, now, choice, runtime.timing.hint_lost),
    }
