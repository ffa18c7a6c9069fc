"""One customer's preferences as they stand: what was chosen, and what holds because of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.consent import (
    Consent,
    Ground,
    Scope,
    Standing,
    Subject,
    choice,
    in_effect,
    noes_in_force,
    standing,
)
from app.domain.masking import masked
from app.domain.reach import Reach
from app.domain.vocabulary import Channel, Kind, Source
from app.domain.wishes import Wishes
from app.store.catalog import Brand, Catalog
from app.store.consents import consents_of
from app.store.intents import ledger_now
from app.store.wishes import Address, Individual, addresses_of
from app.usecases.consent.voices import ALL
from app.usecases.runtime import Runtime

EVERYTHING = Scope()
MARKETING = Scope(kind=Kind.MARKETING)


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that preferences are made of, read in one transaction."""

    person: Individual
    brand: Brand
    catalog: Catalog
    addresses: Sequence[Address]
    consents: Sequence[Consent]
    wishes: Wishes
    now: datetime

    def document(self, reach: Reach = ALL) -> dict[str, Any]:
        """Preferences as the API tells them; `customer`, `off` and `now` are read only.

        What `reach` does not cover is left out, and addresses are masked where it is not whole.
        """
        return {
            "customer": self.person.ref,
            "everything": self._mute(EVERYTHING),
            "topics": {
                name: self.chosen(Scope(topic_id=key)) for name, key in self.brand.topics.items()
            },
            "marketing": self.chosen(MARKETING),
            "senders": {
                name: self._mute(Scope(sender_id=sender.id))
                for name, sender in self.brand.senders.items()
                if reach.covers(name)
            },
            "channels": [channel.value for channel in self.wishes.channels],
            "quiet_hours": self.wishes.quiet.document() if self.wishes.quiet else None,
            "timezone": self.person.timezone,
            "addresses": [self._address(one, reach) for one in self.addresses],
            "off": [
                self._no(one, reach)
                for one in self.other_noes()
                if reach.covers(self.sender_of(one.scope))
            ],
            "now": self._now(),
        }

    def chosen(self, scope: Scope) -> bool | None:
        """What a switch of yes and no shows; None: nothing was chosen, or the no is one to part.

        So what is read can be written back and changes nothing, and a no that is said again counts.
        """
        allow = choice(self.consents, scope, self.now).allow
        return None if allow is False and self.gave_way(scope) else allow

    def gave_way(self, scope: Scope) -> bool:
        """Whether the no to exactly this holds for part of it alone: part of it was said yes to
        since. The one answer that the law allows is no such yes."""
        until = choice(self.consents, scope, self.now).until
        said = in_effect(self.consents, self.now)
        yeses = [one for one in said if one.allow and one.source != Source.ANSWER]
        noes = [one for one in noes_in_force(said, self.now) if one.scope == scope]
        return bool(noes) and all(
            no.until != until or any(yes.lifts(no) for yes in yeses) for no in noes
        )

    def other_noes(self) -> list[Consent]:
        """The noes in force that no switch shows, about addresses that there still are."""
        here = {None, *(one.id for one in self.addresses)}
        switches = {EVERYTHING, MARKETING}
        switches |= {Scope(topic_id=key) for key in self.brand.topics.values()}
        switches |= {Scope(sender_id=one.id) for one in self.brand.senders.values()}
        noes = noes_in_force(self.consents, self.now)
        latest = {one.scope: one for one in noes if one.scope not in switches}
        return [one for one in latest.values() if one.scope.endpoint_id in here]

    def sender_of(self, scope: Scope) -> str | None:
        """The name of the sender that a scope speaks of, if of one."""
        sender = self.catalog.senders_by_id.get(scope.sender_id) if scope.sender_id else None
        return sender.name if sender else None

    def names(self, scope: Scope, addresses: Mapping[int, str]) -> dict[str, str | None]:
        """A scope by names, as the API takes it."""
        return {
            "channel": scope.channel,
            "sender": self.sender_of(scope),
            "topic": self.catalog.topics_by_id.get(scope.topic_id) if scope.topic_id else None,
            "kind": scope.kind,
            "address": addresses.get(scope.endpoint_id) if scope.endpoint_id else None,
        }

    def refused(self, scope: Scope) -> bool:
        """Whether all of a scope is under a no of the same kind that nothing lifts there."""
        yeses = [one for one in self.consents if one.holds(self.now) and scope.within(one.scope)]
        return any(
            scope.within(no.scope)
            and no.scope.kind is scope.kind
            and not any(yes.lifts(no) for yes in yeses)
            for no in noes_in_force(self.consents, self.now)
        )

    def not_meant(self, endpoint_id: int) -> list[Consent]:
        """The yeses that do not mean this address, as they would be said of it alone: those by
        which marketing would go there that does not now, and that take back no no."""
        noes = noes_in_force(self.consents, self.now)
        here = [
            replace(one, scope=scope, at=self.now, strangers=frozenset())
            for one in self.consents
            if one.allow and endpoint_id in one.strangers and one.holds(self.now)
            if one.scope.endpoint_id in (None, endpoint_id)
            for scope in [replace(one.scope, endpoint_id=endpoint_id)]
            if not any(scope.within(no.scope) and not one.lifts(no) for no in noes)
        ]
        without = self._stands(endpoint_id, Kind.MARKETING, self.consents)
        missing = [place for place, one in enumerate(without) if one.ground is Ground.NO_YES]
        found: dict[Scope, Consent] = {}
        for one in here:
            after = self._stands(endpoint_id, Kind.MARKETING, [*self.consents, one])
            if any(after[place].allowed for place in missing):
                found[one.scope] = one
        return list(found.values())

    def _stands(self, endpoint_id: int, kind: Kind, consents: Sequence[Consent]) -> list[Standing]:
        """What holds at an address, for each topic and sender."""
        (channel,) = [one.channel for one in self.addresses if one.id == endpoint_id]
        return [
            standing(consents, Subject(channel, endpoint_id, sender.id, topic, kind), self.now)
            for topic in self.brand.topics.values()
            for sender in self.brand.senders.values()
        ]

    def reach(self, topic_id: int, channel: Channel, kind: Kind) -> Standing:
        """What holds for a topic on a channel: the best that any address and sender can have."""
        stands = [
            standing(
                self.consents, Subject(channel, address.id, sender.id, topic_id, kind), self.now
            )
            for address in self.addresses
            if address.channel is channel and address.state == "active"
            for sender in self.brand.senders.values()
        ]
        return max(
            stands,
            key=lambda one: (one.allowed, one.until is not None),
            default=Standing(False, Ground.NO),
        )

    def channels(self) -> list[Channel]:
        """The channels on which the customer has an address in use."""
        have = {one.channel for one in self.addresses if one.state == "active"}
        return [channel for channel in Channel if channel in have]

    def _now(self) -> list[dict[str, Any]]:
        rows = []
        for topic, topic_id in self.brand.topics.items():
            for channel in self.channels():
                needed = self.reach(topic_id, channel, Kind.TRANSACTIONAL)
                extra = self.reach(topic_id, channel, Kind.MARKETING)
                rows.append(
                    {
                        "topic": topic,
                        "channel": channel.value,
                        "allowed": needed.allowed,
                        "marketing": extra.allowed,
                        "until": needed.until,
                    }
                )
        return rows

    def _mute(self, scope: Scope) -> dict[str, Any]:
        chosen = choice(self.consents, scope, self.now)
        muted = None if self.gave_way(scope) else chosen.allow is False
        return {"muted": muted, "until": chosen.until}

    def _no(self, no: Consent, reach: Reach) -> dict[str, Any]:
        shown = {one.id: shown_to(reach, one.address) for one in self.addresses}
        return {
            "id": no.id,
            "scope": self.names(no.scope, shown),
            "until": no.until,
            "at": no.at,
            "source": no.source,
            "by": said_by(no),
        }

    def _address(self, one: Address, reach: Reach) -> dict[str, Any]:
        return {
            "id": one.id,
            "channel": one.channel.value,
            "service": one.service,
            "address": shown_to(reach, one.address),
            "verified": one.verified_at is not None,
            "state": one.state,
            "reason": one.reason,
            # Why nothing goes there that was agreed to: it came, or changed hands, after the yes.
            "meant": not self.not_meant(one.id),
        }


def shown_to(reach: Reach, address: str) -> str:
    """An address as whoever reaches so far may see it."""
    return address if reach.whole else masked(address)


def said_by(one: Consent) -> str:
    """Whose word a statement is."""
    return whose(one.source, own=one.own)


def whose(source: str, *, own: bool) -> str:
    """Whose word a statement is: that a STOP may be answered is the law's."""
    if source == Source.ANSWER:
        return "law"
    return "customer" if own else "brand"


def take_picture(connection: Connection, runtime: Runtime, person: Individual) -> Picture:
    """Read everything about a customer's preferences as of now, by the ledger's clock."""
    consents = consents_of(connection, [person.id]).get(person.id, [])
    catalog = runtime.catalog()
    return Picture(
        person=person,
        brand=catalog.brands_by_id[person.brand_id],
        catalog=catalog,
        addresses=addresses_of(connection, person.id),
        consents=consents,
        wishes=Wishes.from_document(person.wishes),
        now=ledger_now(connection),
    )


def in_force(one: Consent, said: Iterable[Consent], now: datetime) -> bool:
    """Whether a statement still counts: it holds, and nothing said against it takes all of it back.

    A no counts until a yes of the same scope lifts it; a yes, as long as no no stands over all of
    what it speaks of.
    """
    if not one.holds(now):
        return False
    noes = noes_in_force(said, now)
    if not one.allow:
        return one in noes
    return not any(one.scope.within(no.scope) and not one.lifts(no) for no in noes)
