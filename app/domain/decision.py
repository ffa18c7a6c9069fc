"""The decision: what to do next for one intent, and why, for every channel considered.

Pure: a situation and the time in, a decision out. Nothing is dropped silently: a step that cannot
be taken is passed on to the next one that can, and the record says why.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from app.domain.pause import Pause, paused_for
from app.domain.policy import Policy, Step
from app.domain.vocabulary import Channel, DeliveryState, IntentState


class Reason(StrEnum):
    """Why a channel was taken or left."""

    CHOSEN = "chosen"
    NO_ENDPOINT = "no_endpoint"
    PAUSED = "paused"
    UNHEALTHY = "unhealthy"
    LOWER_SCORE = "lower_score"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Reachable:
    """An endpoint of the customer that may be used."""

    id: int
    channel: Channel


@dataclass(frozen=True, slots=True)
class PastDelivery:
    """What was already tried for the intent."""

    step: int
    channel: Channel
    endpoint_id: int
    state: DeliveryState
    handed_over_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision about one intent looks at.

    `endpoints` are usable ones, best first. `channels` are those that some account can serve.
    `pauses` are those that may bear on the intent, ended ones included.
    """

    policy: Policy
    brand_id: int
    sender_id: int
    campaign: str
    endpoints: Sequence[Reachable]
    channels: Collection[Channel]
    expires_at: datetime
    send_after: datetime | None = None
    past: Sequence[PastDelivery] = ()
    pauses: Sequence[Pause] = ()

    def pauses_of(self, channel: Channel) -> list[Pause]:
        """The pauses that hold this intent on `channel`."""
        return [
            pause
            for pause in self.pauses
            if pause.fits(
                brand_id=self.brand_id,
                channel=channel,
                sender_id=self.sender_id,
                campaign=self.campaign,
            )
        ]


@dataclass(frozen=True, slots=True)
class Considered:
    """One channel of one step, and why it was taken or left."""

    step: int
    channel: Channel
    why: Reason
    endpoint_id: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Speak on this endpoint, as this step."""

    step: int
    channel: Channel
    endpoint_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at `until`."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing more is to be done; the intent ends in `state`."""

    state: IntentState
    reason: str


Verdict: TypeAlias = Send | Wait | Stop


@dataclass(frozen=True, slots=True)
class Decision:
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
        return Decision(Wait(situation.expires_at, "in_flight"))
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
        return Decision(Wait(decision.verdict.at, "send_after"))
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
    """Take the first step from `first` on that can be taken."""
    considered: list[Considered] = []
    for index in range(first, len(situation.policy.steps)):
        chosen = _choose(situation, index, situation.policy.steps[index], considered)
        if chosen is not None:
            return Decision(
                Send(index, chosen.channel, chosen.id, max(now, situation.send_after or now)),
                tuple(considered),
            )
    if any(delivery.state in _HANDED_OVER for delivery in situation.past):
        return Decision(Wait(situation.expires_at, "last_step"), tuple(considered))
    reason = "nothing_can_still_come" if situation.past else "unreachable"
    return Decision(Stop(IntentState.EXHAUSTED, reason), tuple(considered))


def _choose(
    situation: Situation, index: int, step: Step, considered: list[Considered]
) -> Reachable | None:
    """Choose the best channel of a step; note every one that was weighed."""
    tried = {past.endpoint_id for past in situation.past if past.step == index}
    weighed: dict[Channel, tuple[Reason, Reachable | None]] = {}
    for channel in step.channels:
        weighed[channel] = _weigh(situation, channel, tried)
    chosen = _best(weighed)
    for channel, (why, endpoint) in weighed.items():
        if endpoint is not None:
            if endpoint is chosen:
                why = Reason.CHOSEN
            elif why is Reason.CHOSEN:
                why = Reason.LOWER_SCORE
        considered.append(Considered(index, channel, why, endpoint.id if endpoint else None))
    return chosen


def _best(weighed: Mapping[Channel, tuple[Reason, Reachable | None]]) -> Reachable | None:
    """The first that may go now; else the first that a pause merely holds back."""
    for wanted in (Reason.CHOSEN, Reason.PAUSED):
        for why, endpoint in weighed.values():
            if why is wanted:
                return endpoint
    return None


def _weigh(
    situation: Situation, channel: Channel, tried: Collection[int]
) -> tuple[Reason, Reachable | None]:
    endpoint: Reachable | None = None
    known = False
    for candidate in situation.endpoints:
        if candidate.channel is channel:
            known = True
            if candidate.id not in tried:
                endpoint = candidate
                break
    if endpoint is None:
        return (Reason.OVER if known or tried else Reason.NO_ENDPOINT), None
    if channel not in situation.channels:
        return Reason.UNHEALTHY, None
    if situation.pauses and any(pause.ended_at is None for pause in situation.pauses_of(channel)):
        return Reason.PAUSED, endpoint
    return Reason.CHOSEN, endpoint


def _end(situation: Situation) -> Stop:
    """An intent whose time is up has expired, unless its whole ladder was climbed."""
    last = max((delivery.step for delivery in situation.past), default=-1)
    if last == len(situation.policy.steps) - 1 and any(
        delivery.state in _HANDED_OVER for delivery in situation.past
    ):
        return Stop(IntentState.EXHAUSTED, "unseen_after_the_last_step")
    return Stop(IntentState.EXPIRED, "expires_at")
