"""Whether a message may be said to a customer now: the one rule that every path asks.

Law and the customer's own word come first (consent); then quiet hours, the law's for marketing
and the customer's own for everything; then caps. An urgent transactional message passes quiet
hours and caps, and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from app.domain.caps import Cap
from app.domain.consent import Consent, Ground, Subject, standing
from app.domain.vocabulary import Kind, Urgency
from app.domain.wishes import QuietHours, Wishes, quiet_until


class Bar(StrEnum):
    """What stands in the way of a message."""

    NO_CONSENT = "no_consent"
    MUTED_SENDER = "muted_sender"
    QUIET = "quiet_until"
    CAPPED = "capped_until"


@dataclass(frozen=True, slots=True)
class Barred:
    """A message that may not be said now. `until` says when it may (None: only if asked to).

    `told` names the statement or the cap behind it, in a word.
    """

    bar: Bar
    until: datetime | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a brand imposes on itself: hours in which marketing is not sent, and caps."""

    marketing_quiet: QuietHours | None = None
    caps: Sequence[Cap] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """A customer as permission sees them.

    `zones` are the time zones in which they may be: their own, or all that are plausible; `surer`
    are narrower guesses, for where those leave no time of the day. `counts` are messages sent under
    each cap, by slot.
    """

    consents: Sequence[Consent] = ()
    wishes: Wishes = field(default_factory=Wishes)
    zones: Sequence[ZoneInfo] = ()
    surer: Sequence[Sequence[ZoneInfo]] = ()
    counts: Mapping[str, Mapping[datetime, int]] = field(default_factory=dict)


LONGEST_NIGHT = timedelta(hours=25)
"""Longer is no night: there is no moment of the day at which none of several zones is quiet."""
NOBODY = Person()
"""Of whom nothing is known."""


def unbound(person: Person, rules: Rules, kind: Kind) -> bool:
    """Whether nothing can stand in the way on any endpoint: nearly everybody, nearly always."""
    return person is NOBODY and kind is not Kind.MARKETING and not rules.caps


def barred(
    person: Person, rules: Rules, subject: Subject, urgency: Urgency, now: datetime
) -> Barred | None:
    """What stands in the way of a message to a person now; None: nothing."""
    if unbound(person, rules, subject.kind):
        return None
    stands = standing(person.consents, subject, now)
    if not stands.allowed:
        by = stands.by
        muted = by is not None and by.scope.sender_id is not None
        told = by.source if by is not None else Ground.NO_YES.value
        return Barred(Bar.MUTED_SENDER if muted else Bar.NO_CONSENT, stands.until, told)
    if urgency is Urgency.URGENT and subject.kind is Kind.TRANSACTIONAL:
        return None
    hours = [person.wishes.quiet] if person.wishes.quiet else []
    if subject.kind is Kind.MARKETING and rules.marketing_quiet is not None:
        hours.append(rules.marketing_quiet)
    ends = [end for quiet in hours if (end := _quiet(person, quiet, now)) is not None]
    if ends:
        return Barred(Bar.QUIET, *max(ends))
    capped = [
        (free, cap.name)
        for cap in rules.caps
        if cap.fits(subject)
        and (free := cap.free_at(person.counts.get(cap.name, {}), now)) is not None
    ]
    if capped:
        until, name = max(capped)
        return Barred(Bar.CAPPED, until, name)
    return None


def _quiet(person: Person, quiet: QuietHours, now: datetime) -> tuple[datetime, str] | None:
    """Until when it is quiet where a person may be, and what is told of it: the zone that is last,
    where nobody knows in which of several they are."""
    until, zones = None, person.zones
    for zones in (person.zones, *person.surer):
        until = quiet_until(now, quiet, zones)
        if until is None or until - now <= LONGEST_NIGHT:
            break
    if until is None:
        return None
    if len(zones) == 1:
        return until, "quiet_hours"
    moment_before = until - timedelta(minutes=1)
    last = [zone.key for zone in zones if quiet.include(moment_before.astimezone(zone).time())]
    return until, last[0] if last else "quiet_hours"
