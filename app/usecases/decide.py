"""Decide: open intents whose time has come get their next step, in one transaction a batch."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.domain.decision import (
    Decision,
    Reachable,
    Send,
    Situation,
    Stop,
    Wait,
    decide,
)
from app.domain.vocabulary import DeliveryState, IntentState, Urgency
from app.store.intents import (
    OpenIntent,
    cancel_deliveries,
    customer_endpoints,
    ledger_now,
    lock_open,
    note_decisions,
)
from app.store.pauses import pauses_lately
from app.usecases.accounts import choose_account, hint_urgent
from app.usecases.records import considered_record, verdict_fields
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)


def decide_intents(runtime: Runtime, ids: Collection[UUID], cause: str = "due") -> dict[str, int]:
    """Decide those of the intents that are open; return how many of each verdict."""
    with runtime.engine.begin() as connection:
        now = ledger_now(connection)
        counts, urgent = _decide(runtime, connection, ids, cause)
    hint_urgent(runtime, urgent, now)
    _log.info("decided", cause=cause, **counts)
    return counts


def _decide(
    runtime: Runtime, connection: Connection, ids: Collection[UUID], cause: str
) -> tuple[dict[str, int], dict[tuple[str, str], list[int]]]:
    counts: dict[str, int] = defaultdict(int)
    urgent: dict[tuple[str, str], list[int]] = defaultdict(list)
    intents = lock_open(connection, ids)
    if not intents:
        return counts, urgent
    now = ledger_now(connection)
    rows = {row["id"]: row for row in _rows(runtime, connection, intents, now, cause)}
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
    return counts, urgent


def _rows(
    runtime: Runtime,
    connection: Connection,
    intents: list[OpenIntent],
    now: datetime,
    cause: str,
) -> list[dict[str, Any]]:
    named = {intent.policy_id for intent in intents}
    policies = runtime.catalog.knowing(policies=named).policies_by_id
    endpoints = customer_endpoints(connection, {intent.customer_id for intent in intents})
    pauses = pauses_lately(connection)
    rows = []
    for intent in intents:
        decision = decide(
            Situation(
                policy=policies[intent.policy_id],
                brand_id=intent.brand_id,
                sender_id=intent.sender_id,
                campaign=intent.campaign,
                endpoints=[Reachable(*pair) for pair in endpoints[intent.customer_id]],
                channels=runtime.channels(test=intent.test),
                expires_at=intent.expires_at,
                send_after=intent.send_after,
                past=intent.past,
                pauses=pauses,
            ),
            now,
        )
        account = ""
        if isinstance(decision.verdict, Send) and intent.urgency == Urgency.URGENT:
            chosen = choose_account(
                runtime, decision.verdict.channel, test=intent.test, now=now, pauses=pauses
            )
            account = chosen.name if chosen else ""
        rows.append(_row(runtime, intent, decision, now, cause, account))
    return rows


def _row(
    runtime: Runtime,
    intent: OpenIntent,
    decision: Decision,
    now: datetime,
    cause: str,
    account: str,
) -> dict[str, Any]:
    verdict = decision.verdict
    first_start = isinstance(verdict, Wait) and not intent.past
    return {
        "id": intent.id,
        "at": now,
        "cause": cause,
        "considered": considered_record(decision),
        # A clock that runs on a delivery is kept there; the intent's own is its deadline.
        "decide_at": verdict.until
        if isinstance(verdict, Wait) and first_start
        else intent.expires_at,
        "ended": verdict.state.value if isinstance(verdict, Stop) else None,
        **verdict_fields(verdict, now, account, runtime.timing.hint_lost),
    }
