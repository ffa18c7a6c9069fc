"""Intents and decisions as the ledger keeps them."""

from datetime import datetime, timedelta
from typing import Any

from app.domain.decision import Decision, Send, Stop, Verdict, Wait
from app.usecases.delivering.accounts import Choice
from app.usecases.intake.binding import Bound


def intent_fields(
    one: Bound, customer_id: int, content_id: int, expires_at: datetime
) -> dict[str, Any]:
    """The columns of an intent that was taken."""
    return {
        "id": one.id,
        "sender_id": one.sender_id,
        "topic_id": one.topic_id,
        "customer_id": customer_id,
        "content_id": content_id,
        "policy_id": one.policy_id,
        "key": one.key,
        "fingerprint": one.fingerprint.hex(),
        "kind": one.kind,
        "urgency": one.urgency,
        "campaign": one.campaign,
        "data": one.data,
        "when_blocked": one.when_blocked,
        "send_after": one.send_after,
        "expires_at": expires_at,
    }


def first_decision(decision: Decision, expires_at: datetime) -> dict[str, Any]:
    """What the decision on arrival adds to its intent; its verdict is `verdict_fields`."""
    verdict = decision.verdict
    return {
        "decide_at": verdict.until if isinstance(verdict, Wait) else expires_at,
        "considered": considered_record(decision),
    }


def considered_record(decision: Decision) -> list[list[Any]]:
    """Every channel weighed: [step, channel, why, endpoint id or null], and where something stands
    in its way, until when (or null) and what it is."""
    return [
        [one.step, one.channel.value, one.why.value, one.endpoint_id]
        + ([one.until, one.told] if one.told else [])
        for one in decision.considered
    ]


def verdict_fields(
    verdict: Verdict, now: datetime, choice: Choice, hint_lost_s: float
) -> dict[str, Any]:
    """The columns that a verdict fills in a decision and in its delivery.

    With an account the delivery is queued at once, and its hint follows the commit; without one
    it is planned for the dispatcher.
    """
    fields: dict[str, Any] = {
        "verdict": "wait",
        "until": None,
        "reason": "",
        "step": None,
        "channel": None,
        "endpoint_id": None,
        "state": None,
        "due_at": None,
        "account": "",
        "choice_id": None,
    }
    if isinstance(verdict, Send):
        fields.update(
            verdict="send",
            step=verdict.step,
            channel=verdict.channel.value,
            endpoint_id=verdict.endpoint_id,
            state="queued" if choice.account else "planned",
            due_at=now + timedelta(seconds=hint_lost_s) if choice.account else verdict.at,
            account=choice.account,
            choice_id=choice.record,
        )
    elif isinstance(verdict, Stop):
        fields.update(verdict="stop", reason=verdict.reason)
    else:
        fields.update(until=verdict.until, reason=verdict.reason)
    return fields
