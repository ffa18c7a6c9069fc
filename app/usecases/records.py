"""Decisions as the ledger keeps them."""

from datetime import datetime, timedelta
from typing import Any

from app.domain.decision import Decision, Send, Stop, Verdict


def considered_record(decision: Decision) -> list[list[Any]]:
    """Every channel weighed: [step, channel, why, endpoint id or null]."""
    return [
        [one.step, one.channel.value, one.why.value, one.endpoint_id] for one in decision.considered
    ]


def verdict_fields(
    verdict: Verdict, now: datetime, account: str, hint_lost_s: float
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
    }
    if isinstance(verdict, Send):
        fields.update(
            verdict="send",
            step=verdict.step,
            channel=verdict.channel.value,
            endpoint_id=verdict.endpoint_id,
            state="queued" if account else "planned",
            due_at=now + timedelta(seconds=hint_lost_s) if account else verdict.at,
            account=account,
        )
    elif isinstance(verdict, Stop):
        fields.update(verdict="stop", reason=verdict.reason)
    else:
        fields.update(until=verdict.until, reason=verdict.reason)
    return fields
