"""The decision: what to do next for one intent, and why, for every channel considered.

Pure: a situation and the time in, a decision out. Nothing is dropped silently: a step that cannot
be taken is passed on to the next one that can, and the record says why.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from app.domain.pause import paused_for
from app.domain.situation import (
    BARS,
    PastDelivery,
    Preferred,
    Reachable,
    Reason,
    Situation,
    WhenBlocked,
)
from app.domain.vocabulary import Channel, DeliveryState, IntentState, Kind
from app.domain.ways import Way, best, weigh_step

__all__ = [
    "BARS",
    "Considered",
    "Decision",
    "PastDelivery",
    "Preferred",
    "Reachable",
    "Reason",
    "Send",
    "Situation",
    "Stop",
    "Verdict",
    "Wait",
    "WhenBlocked",
    "decide",
]


class Considered(NamedTuple):
    """One channel of one step, and why it was taken or left.

    `until` says when a bar ends by itself; `told` names the statement or cap behind it, or of the
    chosen one why it came first (`Preferred`).
    """

    step: int
    channel: Channel
    why: Reason
    endpoint_id: int | None = None
    until: datetime | None = None
    told: str = ""


class Send(NamedTuple):
    """Speak on this endpoint, as this step."""

    step: int
    channel: Channel
    endpoint_id: int
    at: datetime


class Wait(NamedTuple):
    """Look again at `until`: by the clock of what was handed over, or `own`: by the intent's."""

    until: datetime
    reason: str
    own: bool = False


class Stop(NamedTuple):
    """Nothing more is to be done; the intent ends in `state`."""

    state: IntentState
    reason: str


Verdict: TypeAlias = Send | Wait | Stop


class Decision(NamedTuple):
    """A verdict and everything that was weighed on the way to it."""

    verdict: Verdict
    considered: tuple[Considered, ...] = ()


_IN_FLIGHT = frozenset(
    {DeliveryState.PLANNED, DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.UNKNOWN}
)
_HANDED_OVER = frozenset({DeliveryState.SENT, DeliveryState.DELIVERED})


def decide(situation: Situation, now: datetime) -> Decision:
    """Decide what an open intent needs now."""
    if now >= situation.expires_at:
        return Decision(_end(situation))
    if not situation.past:
        return _start(situation, now)
    if any(delivery.state in _IN_FLIGHT for delivery in situation.past):
        return _in_flight(situation, now)
    last = max(situation.past, key=_standing)
    if last.state not in _HANDED_OVER:
        # What failed is replaced at once, by another way of the same step if there is one.
        return _climb(situation, last.step, now)
    rings_at = _clock(situation, last, now)
    if rings_at is None:
        return Decision(Wait(situation.expires_at, "last_step"))
    if rings_at > now:
        return Decision(Wait(min(rings_at, situation.expires_at), "not_yet_unseen"))
    return _climb(situation, last.step + 1, now)


def _in_flight(situation: Situation, now: datetime) -> Decision:
    """Wait for what is on its way; if it has not set out, and all accounts of its channel rest,
    another way that can go replaces it."""
    flying = [delivery for delivery in situation.past if delivery.state in _IN_FLIGHT]
    if all(one.untried and one.channel in situation.resting for one in flying):
        others = [delivery for delivery in situation.past if delivery not in flying]
        withdrawn = [one._replace(state=DeliveryState.CANCELLED, withdrawn=True) for one in flying]
        instead = decide(situation._replace(past=(*others, *withdrawn)), now)
        if any(one.why is Reason.CHOSEN for one in instead.considered):
            return instead
    return Decision(Wait(situation.expires_at, "in_flight"))


def _standing(delivery: PastDelivery) -> tuple[int, float]:
    """The ladder stands on the highest step, there on what was handed over last.

    What failed counts only where no other way of its step went through.
    """
    handed = delivery.handed_over_at if delivery.state in _HANDED_OVER else None
    return delivery.step, handed.timestamp() if handed else 0.0


def _start(situation: Situation, now: datetime) -> Decision:
    """The first decision. One for later is taken then, but what nobody can reach says so now."""
    decision = _climb(situation, 0, now)
    if isinstance(decision.verdict, Send) and decision.verdict.at > now:
        return Decision(Wait(decision.verdict.at, "send_after", own=True))
    return decision


def _clock(situation: Situation, delivery: PastDelivery, now: datetime) -> datetime | None:
    """When the escalation clock of a delivery rings; None where no step would follow.

    The clock starts at hand-over and stands still while the delivery's work is paused. While a
    pause is in force the clock cannot ring, so it is looked at again in a minute at most.
    """
    timeout = situation.policy.timeout(delivery.step)
    if timeout is None or delivery.handed_over_at is None:
        return None
    pauses = situation.pauses_of(delivery.channel)
    held = paused_for(pauses, delivery.handed_over_at, now)
    rings_at = delivery.handed_over_at + timedelta(seconds=timeout) + held
    if rings_at <= now and any(pause.ended_at is None for pause in pauses):
        return now + timedelta(seconds=min(timeout, 60.0))
    return rings_at


def _climb(situation: Situation, first: int, now: datetime) -> Decision:
    """Take the first step from `first` on that can be taken, at the time at which it would leave:
    what stands in its way only until then does not.

    One whose accounts all rest is taken, and waits for them, only where no later one can go.
    """
    considered: list[Considered] = []
    at = max(now, situation.send_after or now)
    barred: list[Way] = []
    resting: Send | None = None
    for index in range(first, len(situation.policy.steps)):
        ways = weigh_step(situation, index, at)
        chosen = best(ways)
        considered += _told(index, ways, chosen)
        if chosen is not None and chosen.endpoint is not None:
            verdict = Send(index, chosen.channel, chosen.endpoint.id, at)
            if chosen.why is Reason.CHOSEN or (chosen.why is Reason.PAUSED and resting is None):
                return Decision(verdict, tuple(considered))
            resting = resting or verdict
            continue
        barred += [way for way in ways if way.why in BARS]
        if barred and situation.when_blocked is not WhenBlocked.NEXT:
            held = _blocked(situation, barred)
            if held is not None:
                return Decision(resting or held, tuple(considered))
    return Decision(resting or _nothing_left(situation, barred), tuple(considered))


def _blocked(situation: Situation, barred: Sequence[Way]) -> Verdict | None:
    """What becomes of a blocked step; None: a no that does not end by itself passes it on."""
    if situation.when_blocked is WhenBlocked.DROP:
        if _handed_over(situation):
            return Wait(situation.expires_at, "last_step")
        return Stop(IntentState.CANCELLED, f"dropped_{barred[0].why}")
    return _held(situation, barred)


def _held(situation: Situation, barred: Sequence[Way]) -> Wait | None:
    """Wait for the bar that ends first."""
    ending = [(way.until, way.why.value) for way in barred if way.until is not None]
    if not ending:
        return None
    until, why = min(ending)
    return Wait(min(until, situation.expires_at), why, own=True)


def _nothing_left(situation: Situation, barred: Sequence[Way]) -> Verdict:
    """No step can be taken now: wait for what may still come, or say that nothing can."""
    held = _held(situation, barred)
    if held is not None:
        return held
    if _handed_over(situation):
        return Wait(situation.expires_at, "last_step")
    if barred and situation.when_blocked is WhenBlocked.HOLD and _may_still_agree(situation):
        return Wait(situation.expires_at, barred[0].why.value, own=True)
    if barred:
        return Stop(IntentState.EXHAUSTED, barred[0].why.value)
    reason = "nothing_can_still_come" if situation.past else "unreachable"
    return Stop(IntentState.EXHAUSTED, reason)


def _handed_over(situation: Situation) -> bool:
    """Whether something is out that may still be seen."""
    return any(delivery.state in _HANDED_OVER for delivery in situation.past)


def _may_still_agree(situation: Situation) -> bool:
    """Whether it is worth waiting for a yes: marketing that was never agreed to is not."""
    return bool(situation.past) or situation.kind is not Kind.MARKETING


def _told(index: int, ways: Sequence[Way], chosen: Way | None) -> list[Considered]:
    """The record of a step. One that is merely held back keeps its reason: that is what the
    message waits for."""
    return [
        Considered(
            index,
            way.channel,
            Reason.LOWER_SCORE if way.why is Reason.CHOSEN and way is not chosen else way.why,
            way.endpoint.id if way.endpoint else None,
            way.until,
            way.told if way.why is not Reason.CHOSEN or way is chosen else "",
        )
        for way in ways
    ]


def _end(situation: Situation) -> Stop:
    """An intent whose time is up has expired, unless its whole ladder was climbed."""
    last = max((delivery.step for delivery in situation.past), default=-1)
    if last == len(situation.policy.steps) - 1 and _handed_over(situation):
        return Stop(IntentState.EXHAUSTED, "unseen_after_the_last_step")
    return Stop(IntentState.EXPIRED, "expires_at")
