"""Frequency caps: how many messages a customer is sent within a rolling window, at most.

Counted by slots of a 24th of the window: never more than the cap within any window, but a message
counts for up to one slot longer than the window, for it counts as if sent when its slot ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.domain.consent import Scope, Subject

SLOTS = 24
"""Parts of a window in which is counted: what was sent is remembered for a window and one part."""
LONGEST_S = 90 * 86_400.0
"""The longest window."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` messages of those that fit `scope` within `window_s` seconds."""

    name: str
    most: int
    window_s: float
    scope: Scope = field(default_factory=Scope)

    def __post_init__(self) -> None:
        """Refuse what would let nothing through: that is a no, and a no has to be said as one."""
        if self.most < 1:
            raise ValueError(
                f"cap {self.name}: most must be 1 or more; to send nothing, pause or mute"
            )

    @property
    def slot_s(self) -> float:
        """Seconds of one part of the window."""
        return self.window_s / SLOTS

    def slot(self, now: datetime) -> datetime:
        """The part of time in which a message sent now is counted."""
        return _EPOCH + (now - _EPOCH) // timedelta(seconds=self.slot_s) * timedelta(
            seconds=self.slot_s
        )

    def fits(self, subject: Subject) -> bool:
        """Whether a message counts under this cap."""
        return self.scope.fits(subject)

    def free_at(self, counts: Mapping[datetime, int], now: datetime) -> datetime | None:
        """When one more may be sent; None: now.

        `counts` are messages by the slot that they were counted in.
        """
        part = timedelta(seconds=self.slot_s)
        window = timedelta(seconds=self.window_s)
        alive = sorted((slot, n) for slot, n in counts.items() if slot + window + part > now and n)
        surplus = sum(n for _, n in alive) - self.most + 1
        if surplus <= 0:
            return None
        for slot, n in alive:
            surplus -= n
            if surplus <= 0:
                return slot + window + part
        return now


def remembered_s(caps: Iterable[Cap]) -> float:
    """What was counted longer ago than this, in seconds, is in the window of none of them."""
    return max((cap.window_s + cap.slot_s for cap in caps), default=0.0)
