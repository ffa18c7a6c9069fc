"""Consent: what a customer allows and forbids, and what follows from all that was ever said.

The one place where the state now is derived. The rules, for one message on one endpoint:

- A statement speaks of the messages that its scope fits, until it ends.
- A no holds until a later yes of the same scope or a narrower one lifts it. So the later wins over
  the earlier, and the narrower over the wider; where neither is narrower, and where two were said
  at the same instant, the no wins.
- A no that is said again, to the same, takes the place of the one before: it says until when.
- The law wins over all: what the customer said in person, or a network said for them, is lifted by
  the customer alone. A brand's yes does not lift it.
- Marketing needs a yes that names it: of kind marketing, or to a topic. For all else it is enough
  that there is no no.
- Such a yes is a person's about the addresses that they had when they said it. For one that they
  were given later, or that was given to somebody else since, it counts once that is verified.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from app.domain.vocabulary import Channel, Kind, Source


class Subject(NamedTuple):
    """A message as consent sees it: on which endpoint, from whom, about what."""

    channel: Channel
    endpoint_id: int
    sender_id: int
    topic_id: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Scope:
    """What a statement speaks of: everything that fits all that is given; None fits anything."""

    channel: Channel | None = None
    endpoint_id: int | None = None
    sender_id: int | None = None
    topic_id: int | None = None
    kind: Kind | None = None

    def fits(self, subject: Subject) -> bool:
        """Whether the statement speaks of this message."""
        return all(
            mine is None or mine == theirs
            for mine, theirs in (
                (self.channel, subject.channel),
                (self.endpoint_id, subject.endpoint_id),
                (self.sender_id, subject.sender_id),
                (self.topic_id, subject.topic_id),
                (self.kind, subject.kind),
            )
        )

    def within(self, other: "Scope") -> bool:
        """Whether all that this speaks of is spoken of by the other, too."""
        return all(
            getattr(other, field.name) in (None, getattr(self, field.name))
            for field in fields(self)
        )


@dataclass(frozen=True, slots=True)
class Consent:
    """One statement. `own`: by the customer in person, or by a network on their behalf.

    `until` ends it (None: for good). `strangers` are endpoints that a yes did not mean: those that
    the customer was given after it, as long as they are not verified.
    """

    scope: Scope
    allow: bool
    at: datetime
    until: datetime | None = None
    own: bool = True
    source: str = ""
    id: int = 0
    strangers: frozenset[int] = frozenset()

    def holds(self, now: datetime) -> bool:
        """Whether it was said and has not ended."""
        return self.at <= now and (self.until is None or now < self.until)

    def lifts(self, no: "Consent") -> bool:
        """Whether this yes takes that no back."""
        return (
            self.allow
            and self.at > no.at
            and self.scope.within(no.scope)
            and (self.own or not no.own)
        )

    def replaces(self, no: "Consent") -> bool:
        """Whether this no says anew what that no said, and with it until when."""
        return (
            not (self.allow or no.allow)
            and self.at > no.at
            and self.scope == no.scope
            and (self.own or not no.own)
        )


class Ground(StrEnum):
    """On what ground a message is allowed or not."""

    NOTHING_AGAINST = "nothing_against"
    YES = "yes"
    NO = "no"
    NO_YES = "no_yes"


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a message is allowed, on what ground, and by which statement.

    `until` says when a no ends by itself (None: never, or there is none).
    """

    allowed: bool
    ground: Ground
    by: Consent | None = None
    until: datetime | None = None


def in_effect(consents: Iterable[Consent], now: datetime) -> list[Consent]:
    """What was said and counts now: it has not ended, and no later no has taken its place."""
    said = [one for one in consents if one.at <= now]
    noes = [one for one in said if not one.allow]
    return [
        one
        for one in said
        if one.holds(now) and (one.allow or not any(no.replaces(one) for no in noes))
    ]


def standing(consents: Iterable[Consent], subject: Subject, now: datetime) -> Standing:
    """Derive whether a message is allowed now from everything that was said."""
    said = in_effect((one for one in consents if one.scope.fits(subject)), now)
    yeses = [one for one in said if one.allow]
    noes = [one for one in said if not one.allow and not any(yes.lifts(one) for yes in yeses)]
    if noes:
        ends = [one.until for one in noes if one.until is not None]
        until = max(ends) if len(ends) == len(noes) else None
        return Standing(False, Ground.NO, max(noes, key=_weight), until)
    if subject.kind is Kind.MARKETING:
        named = [
            one
            for one in yeses
            if (one.scope.kind is Kind.MARKETING or one.scope.topic_id)
            and subject.endpoint_id not in one.strangers
        ]
        if not named:
            return Standing(False, Ground.NO_YES)
        return Standing(True, Ground.YES, max(named, key=_weight))
    if yeses:
        return Standing(True, Ground.YES, max(yeses, key=_weight))
    return Standing(True, Ground.NOTHING_AGAINST)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was last chosen for a scope as such: yes, no, or (None) nothing.

    `until` says when a no ends by itself.
    """

    allow: bool | None = None
    until: datetime | None = None


def choice(consents: Iterable[Consent], scope: Scope, now: datetime) -> Choice:
    """Derive what a switch for exactly this scope shows; wider statements are other switches'."""
    said = [one for one in consents if one.scope == scope]
    if noes := noes_in_force(said, now):
        ends = [one.until for one in noes if one.until is not None]
        return Choice(False, max(ends) if len(ends) == len(noes) else None)
    return Choice(True) if in_effect(said, now) else Choice()


def noes_in_force(consents: Iterable[Consent], now: datetime) -> list[Consent]:
    """The noes that hold, but for those that a yes of the same scope has lifted altogether."""
    said = in_effect(consents, now)
    yeses = [one for one in said if one.allow]
    return [
        one
        for one in said
        if not one.allow and not any(yes.scope == one.scope and yes.lifts(one) for yes in yeses)
    ]


def _weight(one: Consent) -> tuple[bool, datetime, int]:
    """Which statement is told as the ground: one that does not end, then the latest."""
    return one.until is None, one.at, one.id


def stands_in_person(
    said: Iterable[Consent], scope: Scope, now: datetime, *, whole: bool = False
) -> bool:
    """Whether all of a scope is under a no of the person's own that speaks of this endpoint.

    `whole`: one that does not end by itself, and of which nothing was taken back since, but for the
    one answer that the law allows.
    """
    said = in_effect(said, now)
    wide = [one for one in said if scope.within(one.scope)]
    lifting = [one for one in said if one.source != Source.ANSWER] if whole else wide
    return any(
        not no.allow
        and no.own
        and no.scope.endpoint_id == scope.endpoint_id
        and not (whole and no.until)
        and not any(yes.lifts(no) for yes in lifting)
        for no in wide
    )
