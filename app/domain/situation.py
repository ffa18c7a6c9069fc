"""What a decision looks at: the intent, its customer and the world around them, at one moment.

What is made for every message is a NamedTuple: it is as immutable as a frozen dataclass, and made
in a third of the time.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.domain.consent import Subject
from app.domain.pause import Pause
from app.domain.permission import NOBODY, Bar, Barred, Person, Rules, barred, unbound
from app.domain.policy import Policy
from app.domain.vocabulary import Channel, DeliveryState, Kind, Urgency


class Reason(StrEnum):
    """Why a channel was taken or left."""

    CHOSEN = "chosen"
    NO_ENDPOINT = "no_endpoint"
    PAUSED = "paused"
    UNHEALTHY = "unhealthy"
    NO_ACCOUNT = "no_account"
    """No account serves the channel: nothing that waiting mends, unlike accounts that rest."""
    SERVICE_NOT_SERVED = "service_not_served"
    LOWER_SCORE = "lower_score"
    OVER = "over"
    NO_CONSENT = Bar.NO_CONSENT.value
    MUTED_SENDER = Bar.MUTED_SENDER.value
    QUIET = Bar.QUIET.value
    CAPPED = Bar.CAPPED.value


class Preferred(StrEnum):
    """Why a channel came before the others of its step, where it was not the policy's order."""

    ACTIVE = "active"
    WISHED = "wished"


BARS = frozenset({Reason.NO_CONSENT, Reason.MUTED_SENDER, Reason.QUIET, Reason.CAPPED})
"""Reasons that lie with the customer's word, the law or a cap; the others lie with us."""


class WhenBlocked(StrEnum):
    """What becomes of a step that may not be taken now: it waits, the next is taken, or it ends."""

    HOLD = "hold"
    NEXT = "next"
    DROP = "drop"


class Reachable(NamedTuple):
    """An endpoint of the customer that may be used."""

    id: int
    channel: Channel
    service: str = ""


class PastDelivery(NamedTuple):
    """What was already tried for the intent."""

    step: int
    channel: Channel
    endpoint_id: int
    state: DeliveryState
    handed_over_at: datetime | None = None
    withdrawn: bool = False
    """Whether it was taken back before anything was tried; then it may come again."""
    untried: bool = False
    """Whether it is planned, and nothing of it was tried yet."""


NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})
NO_RULES: Final = Rules()


class Situation(NamedTuple):
    """All that a decision about one intent looks at.

    `endpoints` are usable ones, best first. `channels` are those that some account serves; of them
    the accounts of `resting` ones can all take nothing for a while, and those of `services` reach
    addresses at these services alone.
    `pauses` are those that may bear on the intent, ended ones included. `person` and `rules` say
    what may be said to the customer; `activity` when they were last active on each channel.
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
    resting: Collection[Channel] = ()
    services: Mapping[Channel, Collection[str]] = NOTHING
    topic_id: int = 0
    kind: Kind = Kind.TRANSACTIONAL
    urgency: Urgency = Urgency.NORMAL
    when_blocked: WhenBlocked = WhenBlocked.HOLD
    person: Person = NOBODY
    rules: Rules = NO_RULES
    activity: Mapping[Channel, datetime] = NOTHING

    def barred(self, endpoint: Reachable, now: datetime) -> Barred | None:
        """What stands in the way of this intent on an endpoint."""
        if unbound(self.person, self.rules, self.kind):
            return None
        subject = Subject(endpoint.channel, endpoint.id, self.sender_id, self.topic_id, self.kind)
        return barred(self.person, self.rules, subject, self.urgency, now)

    def served(self, endpoint: Reachable) -> bool:
        """Whether some account can reach an endpoint."""
        services = self.services.get(endpoint.channel)
        return services is None or not endpoint.service or endpoint.service in services

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
