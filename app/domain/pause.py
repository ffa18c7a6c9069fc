"""Pauses: operator controls that hold work, and the clocks of the work that they hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Pause:
    """Holds all work that fits every field that is not None. `ended_at` is None while in force."""

    started_at: datetime
    ended_at: datetime | None = None
    brand_id: int | None = None
    channel: str | None = None
    account: str | None = None
    sender_id: int | None = None
    campaign: str | None = None

    def fits(
        self, *, brand_id: int, channel: str, sender_id: int, campaign: str, account: str = ""
    ) -> bool:
        """Say whether work with these marks is held by this pause."""
        return (
            self.brand_id in (None, brand_id)
            and self.channel in (None, channel)
            and self.sender_id in (None, sender_id)
            and self.campaign in (None, campaign)
            and self.account in (None, account)
        )


def paused_for(pauses: Iterable[Pause], start: datetime, end: datetime) -> timedelta:
    """Time between `start` and `end` during which at least one of `pauses` was in force."""
    spans: Sequence[tuple[datetime, datetime]] = sorted(
        (max(pause.started_at, start), min(pause.ended_at or end, end)) for pause in pauses
    )
    total = timedelta(0)
    covered = start
    for since, until in spans:
        if until > max(since, covered):
            total += until - max(since, covered)
            covered = until
    return total
