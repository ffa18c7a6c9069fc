"""The story of an intent in plain sentences: what happened, in order, and what happens next.

Pure: it reads the dicts that `inspect` makes, whose addresses are masked already.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from app.domain.decision import BARS, Reason
from app.domain.pause import Pause
from app.domain.policy import Policy
from app.domain.vocabulary import IntentState
from app.usecases.telling.decisions import decided, left_out, wait, way_of
from app.usecases.telling.plain import (
    ACCOUNTS_LEFT,
    EVENTS,
    OUTCOMES,
    because,
    by,
    end,
    left,
    named,
    span,
    when,
    words,
)

Entry = dict[str, Any]

_ENDS: Final = {
    "seen": "Seen: {seen_as} on {seen_on}. Nothing more is sent.",
    "exhausted": "Ended without being seen: {reason}.",
    "expired": "Expired before it was seen.",
    "cancelled": "Cancelled: {reason}.",
}
_NEXT: Final = {
    "planned": "{message} leaves when its time has come and an account has room{why}.",
    "queued": "A worker takes {message}; if none does, it is passed on again.",
    "sending": "{account} is being handed {message}; without a verdict by then, its outcome is "
    "unknown.",
    "unknown": "Nobody knows whether {message} left; by then it is decided whether to send it "
    "again.",
    "failed": "The next step is decided, for {message} failed{why}.",
}


def entries(intent: Mapping[str, Any], policy: Policy | None) -> list[Entry]:
    """Everything that happened, oldest first.

    An entry is `{"at", "what" (accepted, decided, attempt, event, refused, ended), "id" (within
    the intent and `what`), "text"}`, and what is said of: `{"channel", "address", "delivery",
    "outcome", "event", "verdict", "until"}`, where it is said.
    """
    told = [_entry(intent["accepted_at"], "accepted", "", _accepted(intent))]
    gone = _taken_back(intent)
    told += [
        _entry(
            one["at"],
            "decided",
            one["number"],
            _taken_back_first(gone[one["number"]]) + decided(one, intent["expires_at"]),
            verdict=one["verdict"],
            until=one["until"],
        )
        for one in intent["decisions"]
    ]
    for delivery in intent["deliveries"]:
        told += _attempts(intent, delivery, policy)
    told += [_event(intent, one) for one in intent["events"]]
    told += [
        _entry(one["refused_at"], "refused", one["id"], refused(one)) for one in intent["refusals"]
    ]
    if intent["ended_at"] is not None:
        told.append(_entry(intent["ended_at"], "ended", "", _ended(intent)))
    # Sorting is stable: what happened in one transaction stays in the order above.
    return sorted(told, key=lambda entry: entry["at"])


def timeline(told: Iterable[Entry]) -> list[Entry]:
    """Entries as an intent shows them: `{"at", "what", "text"}`."""
    return [{name: one[name] for name in ("at", "what", "text")} for one in told]


def refused_timeline(refusals: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """The timeline of an intent that was never taken."""
    told = [_entry(one["refused_at"], "refused", one["id"], refused(one)) for one in refusals]
    return timeline(sorted(told, key=lambda entry: entry["at"]))


def _entry(at: datetime, what: str, number: object, text: str, **more: Any) -> Entry:
    return {"at": at, "what": what, "id": str(number), "text": text, **more}


def _attempts(
    intent: Mapping[str, Any], delivery: Mapping[str, Any], policy: Policy | None
) -> list[Entry]:
    last = len(delivery["attempts"]) - 1
    return [
        _entry(
            one["finished_at"],
            "attempt",
            f"{delivery['id']}:{place}",
            _tried(delivery, one)
            + _clock(intent, delivery, one, policy)
            + (_chosen(delivery) if place == last else ""),
            channel=delivery["channel"],
            address=delivery["address"],
            delivery=delivery["id"],
            outcome=one["outcome"],
        )
        for place, one in enumerate(delivery["attempts"])
    ]


def _event(intent: Mapping[str, Any], event: Mapping[str, Any]) -> Entry:
    spoken = [one for one in intent["deliveries"] if one["id"] == event["delivery"]]
    told = EVENTS.get(event["type"], words(event["type"]).capitalize())
    where = f", {by(event['channel'])}" if event["channel"] else ""
    return _entry(
        event["at"],
        "event",
        event["id"],
        f"{told}{where}{because(event['reason'])}.",
        channel=event["channel"],
        address=spoken[0]["address"] if spoken else None,
        delivery=event["delivery"],
        event=event["type"],
    )


def _accepted(intent: Mapping[str, Any]) -> str:
    campaign = f", campaign {intent['campaign']}" if intent["campaign"] else ""
    test = " It is a test and stays in the sandbox." if intent["test"] else ""
    later = f" It is not to be said before {when(at)}." if (at := intent["send_after"]) else ""
    customer = intent["customer"] or "whoever wrote"
    return (
        f"Accepted for {customer} from {intent['sender']}: topic {intent['topic']}, "
        f"{intent['kind']}, {intent['urgency']}, policy {intent['policy']}{campaign}; "
        f"it expires {when(intent['expires_at'])}.{later}{test}"
    )


def _taken_back(intent: Mapping[str, Any]) -> Mapping[int, list[Mapping[str, Any]]]:
    """Deliveries that came to nothing before anything was tried, by the decision that followed."""
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for delivery in intent["deliveries"]:
        if not _came_to_nothing(delivery):
            continue
        planned = [
            one["number"]
            for one in intent["decisions"]
            if (way := way_of(one)) is not None
            and (way["step"], way["channel"]) == (delivery["step"], delivery["channel"])
        ]
        after = [
            one["number"]
            for one in intent["decisions"]
            if planned and one["number"] > planned[-1] and one["reason"] != "in_flight"
        ]
        if after:
            found[after[0]].append(delivery)
    return found


def _taken_back_first(gone: Iterable[Mapping[str, Any]]) -> str:
    """What was taken back before the decision that a sentence goes on with."""
    return "".join(
        f"{_message(one)} was taken back before it left{because(one['reason'])}. " for one in gone
    )


def _came_to_nothing(delivery: Mapping[str, Any]) -> bool:
    """Whether it was taken back, or failed, while its intent went on and nothing was tried yet."""
    return not delivery["attempts"] and (
        delivery["state"] == "failed"
        or (delivery["state"] == "cancelled" and delivery["reason"] in {*BARS, Reason.UNHEALTHY})
    )


def _message(delivery: Mapping[str, Any]) -> str:
    return f"The {named(delivery['channel'])} message to {delivery['address']}"


def _tried(delivery: Mapping[str, Any], attempt: Mapping[str, Any]) -> str:
    outcome = OUTCOMES.get(attempt["outcome"], words(attempt["outcome"]))
    crossed = ""
    if delivery["crossed"] and attempt["outcome"] == "accepted":
        crossed = " It crossed with the end of the intent and could not be recalled."
    way = f"{_capital(by(delivery['channel']))} to {delivery['address']}"
    return (
        f"{way}, try {max(1, attempt['number'])}: "
        f"{attempt['account']} {outcome}{because(attempt['reason'])}.{crossed}"
    )


def _clock(
    intent: Mapping[str, Any],
    delivery: Mapping[str, Any],
    attempt: Mapping[str, Any],
    policy: Policy | None,
) -> str:
    """When the clock of what was handed over starts and ends, and what follows then."""
    at = delivery["handed_over_at"]
    if policy is None or attempt["outcome"] != "accepted" or at is None or delivery["crossed"]:
        return ""
    step = delivery["step"]
    timeout = policy.timeout(step - 1)
    if timeout is None:
        return f" No step follows; it has until {when(intent['expires_at'])} to be seen."
    rings_at = when(at + timedelta(seconds=timeout))
    return (
        f" Its clock runs from now: unless it is seen within {span(timeout)}, by {rings_at}, "
        f"step {step + 1}{_channels(policy, step + 1)} follows."
    )


def _capital(told: str) -> str:
    return told[0].upper() + told[1:]


def _channels(policy: Policy | None, step: int) -> str:
    if policy is None or step > len(policy.steps):
        return ""
    return f" ({' or '.join(map(named, policy.steps[step - 1].channels))})"


def _chosen(delivery: Mapping[str, Any]) -> str:
    """On what grounds the account was chosen, where there were several; said with the last try."""
    if not delivery["choice"]:
        return ""
    told = ", ".join(
        f"{one['account']} {ACCOUNTS_LEFT[one['left']]}"
        if one["left"]
        else f"{one['account']} {one['share']:.0%}{_account_grounds(one)}"
        for one in delivery["choice"]
    )
    return f" Shares of the accounts then: {told}."


def _account_grounds(one: Mapping[str, Any]) -> str:
    grounds = [
        f"weight {one['weight']}",
        f"{one['cost_micros']} micros each" if one["cost_micros"] else "",
        f"{one['errors']:.0%} errors" if one["errors"] else "",
        "slow" if one["slow"] else "",
    ]
    return f" ({', '.join(ground for ground in grounds if ground)})"


def refused(refusal: Mapping[str, Any]) -> str:
    """A refusal, as a sentence."""
    field = f"{refusal['field']}: " if refusal["field"] else ""
    return f"Refused: {field}{refusal['reason']}."


def _ended(intent: Mapping[str, Any]) -> str:
    told = _ENDS[intent["state"]].format(
        seen_as=words(intent["seen_as"]),
        seen_on=named(intent["seen_on"] or ""),
        reason=end(intent["reason"]),
    )
    unsent = [
        f" {_message(one)} had not left, and does not."
        for one in intent["deliveries"]
        if one["state"] in ("cancelled", "expired")
        and not one["attempts"]
        and not _came_to_nothing(one)
    ]
    return told + "".join(unsent)


def what_next(
    intent: Mapping[str, Any], policy: Policy | None, pauses: Sequence[Pause], now: datetime
) -> Entry:
    """What happens next and when: `{"at" (None: nothing, or not known), "text"}`."""
    if intent["state"] != IntentState.OPEN:
        return {"at": None, "text": "Nothing: it has ended."}
    for delivery in reversed(intent["deliveries"]):
        told = _NEXT.get(delivery["state"])
        # A failure that was decided upon waits for nothing.
        if told is not None and delivery["due_at"] is not None:
            return _next_of(intent, delivery, told, pauses, now)
    return _after_hand_over(intent, policy)


def _next_of(
    intent: Mapping[str, Any],
    delivery: Mapping[str, Any],
    told: str,
    pauses: Sequence[Pause],
    now: datetime,
) -> Entry:
    message, due_at = _message(delivery), delivery["due_at"]
    if delivery["state"] in ("planned", "queued"):
        paused = [pause.started_at for pause in pauses if _holds(pause, intent, delivery)]
        if paused:
            since = when(min(paused))
            return {
                "at": None,
                "text": f"{message} is held by a pause since {since}; it leaves when that ends.",
            }
        if delivery["reason"] in BARS and due_at > now:
            held = f"{message} is held: {left(delivery['reason'], None, due_at)}."
            ends = intent["expires_at"]
            if ends <= due_at:
                return {"at": ends, "text": f"{held} It expires before that, {when(ends)}."}
            return {"at": due_at, "text": f"{held} Then it is asked again."}
    text = told.format(
        message=message if told.startswith("{message}") else message[0].lower() + message[1:],
        account=delivery["account"],
        why=because(delivery["reason"]),
    )
    return {"at": max(now, due_at), "text": text}


def _holds(pause: Pause, intent: Mapping[str, Any], delivery: Mapping[str, Any]) -> bool:
    return pause.fits(
        brand_id=intent["brand_id"],
        channel=delivery["channel"],
        sender_id=intent["sender_id"],
        campaign=intent["campaign"] or "",
        account=delivery["account"],
    )


def _after_hand_over(intent: Mapping[str, Any], policy: Policy | None) -> Entry:
    last = intent["decisions"][-1] if intent["decisions"] else None
    if last is not None and last["verdict"] == "wait":
        reason = last["reason"]
        if reason in BARS:
            told = wait(last, intent["expires_at"])
            return {"at": last["until"], "text": f"{_capital(told)}.{left_out(last, None)}"}
        if reason == "send_after":
            return {"at": last["until"], "text": "It is said then, and not earlier."}
    handed = [one for one in intent["deliveries"] if one["state"] in ("sent", "delivered")]
    if handed and handed[-1]["due_at"] is not None:
        step = handed[-1]["step"] + 1
        text = f"Unless it is seen by then, step {step}{_channels(policy, step)}."
        return {"at": handed[-1]["due_at"], "text": text}
    if handed:
        return {"at": intent["expires_at"], "text": "It waits to be seen; then it ends."}
    return {"at": intent["decide_at"], "text": "It is decided how to say it."}
