"""The ways that a step of a policy has: each of its channels, and why it can be taken or not."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from app.domain.permission import Barred
from app.domain.situation import Preferred, Reachable, Reason, Situation
from app.domain.vocabulary import Channel

JUST_NOW = timedelta(minutes=15)
"""Who was active on a channel within this time is there now."""


class Way(NamedTuple):
    """A channel of a step as it was weighed."""

    channel: Channel
    why: Reason
    endpoint: Reachable | None = None
    until: datetime | None = None
    told: str = ""


def weigh_step(situation: Situation, index: int, now: datetime) -> list[Way]:
    """Weigh the channels of a step, the one that the customer would rather have first.

    That is where they were active a moment ago; then their own order; then the policy's.
    """
    step = situation.policy.steps[index]
    tried = {
        past.endpoint_id for past in situation.past if past.step == index and not past.withdrawn
    }
    order = situation.person.wishes.channels
    fresh = now - JUST_NOW
    if len(step.channels) == 1 or not (order or situation.activity):
        return [_weigh(situation, channel, tried, now) for channel in step.channels]

    def rank(channel: Channel) -> tuple[float, int]:
        active = situation.activity.get(channel)
        recent = -active.timestamp() if active is not None and active >= fresh else 0.0
        return recent, order.index(channel) if channel in order else len(order)

    ways = []
    for channel in sorted(step.channels, key=rank):
        way = _weigh(situation, channel, tried, now)
        recent, wished = rank(channel)
        if way.why is Reason.CHOSEN and (recent or wished < len(order)):
            way = way._replace(told=Preferred.ACTIVE if recent else Preferred.WISHED)
        ways.append(way)
    return ways


def best(ways: Sequence[Way]) -> Way | None:
    """The first that may go now; else the first whose accounts rest, or that a pause holds back."""
    for wanted in (Reason.CHOSEN, Reason.UNHEALTHY, Reason.PAUSED):
        for way in ways:
            if way.why is wanted and way.endpoint is not None:
                return way
    return None


def _weigh(situation: Situation, channel: Channel, tried: Collection[int], now: datetime) -> Way:
    known = [one for one in situation.endpoints if one.channel is channel]
    untried = [one for one in known if one.id not in tried]
    bars: list[Barred] = []
    for endpoint in untried:
        if situation.served(endpoint):
            bar = situation.barred(endpoint, now)
            if bar is None:
                return Way(channel, *_unbarred(situation, endpoint))
            bars.append(bar)
    if bars:
        # Of several addresses the one that is free soonest.
        bar = min(bars, key=lambda one: (one.until is None, one.until or now))
        return Way(channel, Reason(bar.bar.value), None, bar.until, bar.told)
    if untried:
        return Way(channel, Reason.SERVICE_NOT_SERVED)
    return Way(channel, Reason.OVER if known or tried else Reason.NO_ENDPOINT)


def _unbarred(situation: Situation, endpoint: Reachable) -> tuple[Reason, Reachable | None]:
    """What holds back, on our side, what may be said to the customer."""
    channel = endpoint.channel
    if channel not in situation.channels:
        return Reason.NO_ACCOUNT, None
    if situation.pauses and any(pause.ended_at is None for pause in situation.pauses_of(channel)):
        return Reason.PAUSED, endpoint
    if channel in situation.resting:
        return Reason.UNHEALTHY, endpoint
    return Reason.CHOSEN, endpoint
