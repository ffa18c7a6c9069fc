"""The story of an intent in plain sentences: what happened, in order, and what happens next.

Pure: it reads the dicts that `inspect` makes, whose addresses are masked already.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.domain.policy import Policy

Entry = dict[str, Any]

_LEFT: Final = {
    "no_endpoint": "no address",
    "paused": "paused",
    "unhealthy": "no account can serve it",
    "lower_score": "another one comes first",
    "over": "tried already",
}
_CAUSES: Final = {"accepted": "on arrival", "due": "when its time came"}
_WAITS: Final = {
    "in_flight": "a message is on its way",
    "last_step": "no step follows; it may still be seen",
    "not_yet_unseen": "the message may still be seen in time",
    "send_after": "it is not to be said earlier",
}
_ENDS: Final = {
    "seen": "Seen: {seen_as} on {seen_on}. Nothing more is sent.",
    "exhausted": "Ended without being seen: {reason}.",
    "expired": "Expired before it was seen.",
    "cancelled": "Cancelled: {reason}.",
}
_OUTCOMES: Final = {
    "accepted": "took it",
    "retryable": "did not take it; it may be tried again",
    "rate_limited": "asked for a slower pace",
    "rejected": "refused it",
    "ambiguous": "gave no verdict; it may or may not have gone out",
}
_EVENTS: Final = {
    "delivered": "It arrived",
    "opened_by_machine": "A machine fetched it, which does not count as seen",
    "opened": "It was opened",
    "clicked": "A link in it was followed",
    "read": "It was read",
    "replied": "It was answered",
    "bounced": "It came back",
    "complained": "It was reported as unwanted",
    "unsubscribed": "The customer unsubscribed",
}


def timeline(intent: Mapping[str, Any]) -> list[Entry]:
    """Everything that happened, oldest first: `{"at", "what", "text"}`."""
    entries = [_entry(intent["accepted_at"], "accepted", _accepted(intent))]
    entries += [_entry(one["at"], "decided", _decided(one)) for one in intent["decisions"]]
    for delivery in intent["deliveries"]:
        entries += [
            _entry(one["finished_at"], "attempt", _tried(delivery, one))
            for one in delivery["attempts"]
        ]
    entries += [_entry(one["at"], "event", _came_back(one)) for one in intent["events"]]
    entries += [_entry(one["refused_at"], "refused", _refused(one)) for one in intent["refusals"]]
    if intent["ended_at"] is not None:
        entries.append(_entry(intent["ended_at"], "ended", _ended(intent)))
    # Sorting is stable: what happened in one transaction stays in the order above.
    return sorted(entries, key=lambda entry: entry["at"])


def refused_timeline(refusals: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """The timeline of an intent that was never taken."""
    told = [_entry(one["refused_at"], "refused", _refused(one)) for one in refusals]
    return sorted(told, key=lambda entry: entry["at"])


def what_next(intent: Mapping[str, Any], policy: Policy | None, now: datetime) -> Entry:
    """What happens next and when: `{"at" (None: nothing, or not known), "text"}`."""
    if intent["state"] != "open":
        return {"at": None, "text": "Nothing: it has ended."}
    for delivery in reversed(intent["deliveries"]):
        told = _NEXT.get(delivery["state"])
        # A failure that was decided upon waits for nothing.
        if told is not None and delivery["due_at"] is not None:
            text = told.format(
                **delivery, why=f" ({delivery['reason']})" if delivery["reason"] else ""
            )
            late = delivery["due_at"] is not None and delivery["due_at"] <= now
            return {"at": now if late else delivery["due_at"], "text": text}
    return _after_hand_over(intent, policy)


_NEXT: Final = {
    "planned": "The {channel} message to {address} leaves when its time has come and an account "
    "has room{why}.",
    "queued": "A worker takes the {channel} message to {address}; if none does, it is passed on "
    "again.",
    "sending": "{account} is being handed the {channel} message to {address}; without a verdict "
    "by then, its outcome is unknown.",
    "unknown": "Nobody knows whether the {channel} message to {address} left; by then it is "
    "decided whether to send it again.",
    "failed": "The next step is decided, since the {channel} message to {address} failed{why}.",
}


def _after_hand_over(intent: Mapping[str, Any], policy: Policy | None) -> Entry:
    handed = [one for one in intent["deliveries"] if one["state"] in ("sent", "delivered")]
    last = handed[-1] if handed else None
    if last is not None and last["due_at"] is not None:
        step = last["step"] + 1
        channels = ""
        if policy is not None and step <= len(policy.steps):
            channels = f" ({' or '.join(policy.steps[step - 1].channels)})"
        return {"at": last["due_at"], "text": f"Unless it is seen by then, step {step}{channels}."}
    if last is not None:
        return {"at": intent["expires_at"], "text": "It waits to be seen; then it ends."}
    return {"at": intent["decide_at"], "text": "It is decided how to say it."}


def _entry(at: datetime, what: str, text: str) -> Entry:
    return {"at": at, "what": what, "text": text}


def _accepted(intent: Mapping[str, Any]) -> str:
    campaign = f", campaign {intent['campaign']}" if intent["campaign"] else ""
    test = " It is a test and stays in the sandbox." if intent["test"] else ""
    return (
        f"Accepted for {intent['customer']} from {intent['sender']}: topic {intent['topic']}, "
        f"{intent['kind']}, {intent['urgency']}, policy {intent['policy']}{campaign}.{test}"
    )


def _decided(decision: Mapping[str, Any]) -> str:
    cause = _CAUSES.get(decision["cause"], decision["cause"])
    considered = decision["considered"]
    chosen = next((one for one in considered if one["why"] == "chosen"), None)
    way = chosen or next((one for one in considered if one["why"] == "paused"), None)
    left = "; ".join(
        f"step {one['step']} {one['channel']}: {_LEFT.get(one['why'], one['why'])}"
        for one in considered
        if one is not way
    )
    left = f" Left out: {left}." if left else ""
    if decision["verdict"] == "send" and way is not None:
        wait = "" if chosen else ", which is paused: it waits for that"
        return f"Decided {cause}: step {way['step']}, {way['channel']}{wait}.{left}"
    if decision["verdict"] == "wait":
        reason = _WAITS.get(decision["reason"], decision["reason"])
        return f"Decided {cause}: wait, {reason}.{left}"
    return f"Decided {cause}: stop, {_words(decision['reason'])}.{left}"


def _tried(delivery: Mapping[str, Any], attempt: Mapping[str, Any]) -> str:
    outcome = _OUTCOMES.get(attempt["outcome"], attempt["outcome"])
    reason = f" ({attempt['reason']})" if attempt["reason"] else ""
    crossed = ""
    if delivery["crossed"] and attempt["outcome"] == "accepted":
        crossed = " It crossed with the end of the intent and could not be recalled."
    return (
        f"{delivery['channel']} to {delivery['address']}, try {max(1, attempt['number'])}: "
        f"{attempt['account']} {outcome}{reason}.{crossed}"
    )


def _came_back(event: Mapping[str, Any]) -> str:
    told = _EVENTS.get(event["type"], event["type"])
    reason = f" ({event['reason']})" if event["reason"] not in ("", "person") else ""
    return f"{told}, on {event['channel'] or 'a channel'}{reason}."


def _refused(refusal: Mapping[str, Any]) -> str:
    field = f"{refusal['field']}: " if refusal["field"] else ""
    return f"Refused ({refusal['code']}): {field}{refusal['reason']}."


def _ended(intent: Mapping[str, Any]) -> str:
    return _ENDS[intent["state"]].format(
        seen_as=_words(intent["seen_as"]),
        seen_on=intent["seen_on"],
        reason=_words(intent["reason"]),
    )


def _words(code: str | None) -> str:
    return (code or "no reason given").replace("_", " ")
