"""What a customer wishes beside consent: channels in an order of their own, and quiet hours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.domain.vocabulary import Channel

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_LONGEST_S = 3 * 86_400
"""Past this it is not quiet hours any more; zones that disagree are asked no further."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From a time of day to another, in the customer's own zone; over midnight where it begins
    later than it ends."""

    start: time
    end: time

    @classmethod
    def parse(cls, start: str, end: str) -> "QuietHours":
        """Read "21:00" and "08:00"; raises `ValueError` with what is wrong."""
        parts = []
        for name, value in (("from", start), ("to", end)):
            if not isinstance(value, str) or not _TIME_OF_DAY.fullmatch(value):
                raise ValueError(f'quiet_hours.{name}: must be a time such as "21:00"')
            parts.append(time.fromisoformat(value))
        if parts[0] == parts[1]:
            raise ValueError(
                "quiet_hours: they begin when they end, which would be all day or never; "
                "to be left alone altogether, pause everything"
            )
        return cls(*parts)

    def document(self) -> dict[str, str]:
        """As the ledger and the API write it."""
        return {"from": f"{self.start:%H:%M}", "to": f"{self.end:%H:%M}"}

    def include(self, moment: time) -> bool:
        """Whether a time of day is quiet."""
        if self.start < self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end

    def end_after(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """When the quiet hours end that `now` is in, in UTC; None where it is in none.

        Both sides of a change of clocks are right: the day it falls on may have 23 or 25 hours, and
        an hour that comes twice is quiet both times.
        """
        here = now.astimezone(zone)
        if not self.include(here.time()):
            return None
        day = here.date()
        if self.start > self.end and here.time() >= self.start:
            day += timedelta(days=1)
        ends = datetime.combine(day, self.end, zone).astimezone(UTC)
        if ends <= now:  # the hour comes again: it is its second time that ends it
            ends = datetime.combine(day, self.end, zone).replace(fold=1).astimezone(UTC)
        return ends


def quiet_until(now: datetime, quiet: QuietHours, zones: Sequence[ZoneInfo]) -> datetime | None:
    """When it is quiet in none of the plausible zones any more, in UTC; None: it is not quiet.

    With one zone that is the customer's own clock. With several it is the strictest of them.
    """
    moment = now
    while (moment - now).total_seconds() < _LONGEST_S:
        ends = [end for zone in zones if (end := quiet.end_after(moment, zone)) is not None]
        if not ends:
            return None if moment == now else moment
        moment = max(ends)
    return moment


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one customer wishes. `channels`: those named first, in this order."""

    channels: tuple[Channel, ...] = ()
    quiet: QuietHours | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Wishes":
        """Read the form that the ledger keeps."""
        quiet = document.get("quiet")
        return cls(
            channels=tuple(Channel(name) for name in document.get("channels", ())),
            quiet=QuietHours.parse(quiet["from"], quiet["to"]) if quiet else None,
        )

    def document(self) -> dict[str, Any]:
        """The form that the ledger keeps."""
        return {
            "channels": [channel.value for channel in self.channels],
            "quiet": self.quiet.document() if self.quiet else None,
        }
