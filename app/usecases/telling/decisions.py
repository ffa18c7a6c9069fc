"""Decisions as sentences: what was decided, for which way, and why not for the others."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from app.domain.decision import BARS, Reason
from app.usecases.telling.plain import PREFERRED, by, end, left, listed, when, words

_CAUSES: Final = {"accepted": "Decided on arrival", "due": "Decided again"}
# Which considered channel a `send` means, and what it waits for.
_WAYS: Final = {
    "chosen": "",
    "unhealthy": ", none of whose accounts can take it now: it waits for one",
    "paused": ", which is paused: it waits for that",
}
_WAITS: Final = {
    "in_flight": "wait, for a message is on its way",
    "last_step": "wait until {until}: no step follows, and it may still be seen",
    "not_yet_unseen": "wait until {until}: what was sent may still be seen in time",
    "send_after": "wait until {until}: it is not to be said earlier",
}


def decided(decision: Mapping[str, Any], expires_at: datetime) -> str:
    """A decision about an intent: `Decided on arrival: step 1, by email.`"""
    cause = _CAUSES.get(decision["cause"], f"Decided ({words(decision['cause'])})")
    way = way_of(decision)
    if way is not None:
        told = f"step {way['step']}, {by(way['channel'])}{_WAYS[way['why']]}"
        if way["told"] in PREFERRED:
            told += f", {PREFERRED[way['told']]}"
    elif decision["verdict"] == "wait":
        told = wait(decision, expires_at)
    else:
        told = f"stop, for {end(decision['reason'])}"
    return f"{cause}: {told}.{left_out(decision, way)}"


def way_of(decision: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The way that a decision takes."""
    if decision["verdict"] != "send":
        return None
    ways = [one for one in decision["considered"] if one["endpoint_id"] is not None]
    return next((one for why in _WAYS for one in ways if one["why"] == why), None)


def left_out(decision: Mapping[str, Any], way: Mapping[str, Any] | None) -> str:
    """The channels that were left, together where the reason is the same."""
    ways: dict[str, list[str]] = defaultdict(list)
    for one in decision["considered"]:
        if one is not way:
            why = left(one["why"], one["told"], one["until"])
            ways[why].append(f"{by(one['channel'])} (step {one['step']})")
    told = [f"{listed(each, 'or')}: {why}" for why, each in ways.items()]
    return f" Not {'; not '.join(told)}." if told else ""


def wait(decision: Mapping[str, Any], expires_at: datetime) -> str:
    """What is waited for, and until when."""
    until, reason = decision["until"], decision["reason"]
    if reason in BARS:
        return f"wait until {when(until)}: {_hope(decision, expires_at)}"
    told = _WAITS.get(reason, f"wait until {{until}}: {words(reason)}")
    return told.format(until=when(until))


def _hope(decision: Mapping[str, Any], expires_at: datetime) -> str:
    """What may become of what waits for a bar to end."""
    bars = [one for one in decision["considered"] if one["why"] in BARS]
    if decision["until"] < expires_at and any(one["until"] == decision["until"] for one in bars):
        return "it may be said then"
    if not any(one["until"] for one in bars):
        return "the customer may still allow it"
    unless = ", unless the customer allows it sooner" if _is_a_no(bars) else ""
    return f"it expires then, before it may be said{unless}"


def _is_a_no(bars: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the bars is a word of the customer's, which they may take back."""
    return any(one["why"] in (Reason.NO_CONSENT, Reason.MUTED_SENDER) for one in bars)
