"""What the preference centre shows of a customer's preferences; the words are its template's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import phonenumbers

from app.content.speech import Speech
from app.domain.consent import Consent, Scope, choice
from app.domain.masking import masked
from app.domain.vocabulary import Channel, Kind
from app.domain.zones import find_zone
from app.store.wishes import Address
from app.usecases.consent.picture import EVERYTHING, MARKETING, Picture
from app.usecases.deciding.zones import zone_names

_INPUT: Final = {Channel.EMAIL: ("email", "email"), Channel.SMS: ("tel", "tel")}
_WORD: Final = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What could not be taken: in which section, of what kind, in which fields."""

    section: str
    kind: str
    fields: Sequence[Any] = ()
    typed: Mapping[str, str] = field(default_factory=dict)


class View:
    """One customer's preferences as values for the template.

    `full`: addresses are shown whole and can be changed. Else they are masked, and `ways` are those
    to which the link that can do so may be sent.
    """

    def __init__(
        self, picture: Picture, words: Speech, *, full: bool, ways: Sequence[Address] = ()
    ) -> None:
        self._picture = picture
        self._words = words
        self._full = full
        self._ways_of_link = ways
        own = picture.person.timezone
        self._own_zone = find_zone(own) if own else None

    def values(self, *, done: str, problem: Trouble | None) -> dict[str, Any]:
        """Everything that the template is filled with, but for the address of the page."""
        picture = self._picture
        brand = picture.brand
        typed = problem.typed if problem and problem.section == "quiet" else {}
        quiet = picture.wishes.quiet
        times = quiet.document() if quiet else {"from": "", "to": ""}
        zone = typed.get("zone", picture.person.timezone or "")
        topics = [self._topic(name, key) for name, key in brand.topics.items()]
        return {
            "brand": brand.settings.get("title") or brand.name,
            "full": self._full,
            "link_to": [
                {"id": one.id, "channel": one.channel.value, "address": self._shown(one)}
                for one in self._ways_of_link
            ],
            "done": done,
            "problem": problem,
            "paused": self._muted(EVERYTHING),
            "topics": topics,
            "heard": ", ".join(one["title"] for one in topics if one["needed"] or one["marketing"]),
            "marketing": self._chosen(MARKETING),
            "refused": choice(self._picture.consents, MARKETING, self._picture.now).allow is False,
            "senders": [
                {
                    "name": name,
                    "title": sender.settings.get("name") or name,
                    "muted": bool(mute := self._muted(Scope(sender_id=sender.id))),
                    "until": mute and mute["until"],
                }
                for name, sender in brand.senders.items()
            ],
            "off": [self._no(one) for one in picture.other_noes()],
            **self._ways(),
            "quiet": {**times, **typed, "set": quiet is not None},
            "zone": zone,
            "zones": _zones(zone if zone == picture.person.timezone else ""),
            "addresses": self._addresses(problem),
        }

    def _muted(self, scope: Scope) -> dict[str, Any] | None:
        chosen = choice(self._picture.consents, scope, self._picture.now)
        return {"until": self._moment(chosen.until)} if chosen.allow is False else None

    def _chosen(self, scope: Scope) -> str:
        """The word of a switch; none where a no gave way in part: it can be said again."""
        return _WORD[self._picture.chosen(scope)]

    def _topic(self, name: str, topic_id: int) -> dict[str, Any]:
        picture = self._picture
        reach = {
            kind: [
                channel.value
                for channel in picture.channels()
                if picture.reach(topic_id, channel, kind).allowed
            ]
            for kind in (Kind.TRANSACTIONAL, Kind.MARKETING)
        }
        return {
            "name": name,
            "title": picture.brand.topic_titles.get(name) or name,
            "value": self._chosen(Scope(topic_id=topic_id)),
            "needed": reach[Kind.TRANSACTIONAL],
            "marketing": reach[Kind.MARKETING],
        }

    def _ways(self) -> dict[str, Any]:
        """The channels to choose from, and for each place the one that was chosen."""
        have = [channel.value for channel in self._picture.channels()]
        order = [channel.value for channel in self._picture.wishes.channels]
        ways = have + [one for one in order if one not in have]
        return {"ways": ways, "order": order + [""] * (len(ways) - len(order))}

    def _no(self, no: Consent) -> dict[str, Any]:
        picture, scope = self._picture, no.scope
        senders, topics = picture.catalog.senders_by_id, picture.catalog.topics_by_id
        parts: list[dict[str, str]] = []
        if scope.kind:
            parts.append({"is": "kind", "name": scope.kind.value})
        if scope.topic_id:
            name = topics.get(scope.topic_id, "")
            parts.append({"is": "topic", "name": picture.brand.topic_titles.get(name) or name})
        if scope.sender_id and (sender := senders.get(scope.sender_id)):
            parts.append({"is": "sender", "name": sender.settings.get("name") or sender.name})
        if scope.channel:
            parts.append({"is": "channel", "name": scope.channel.value})
        parts += [
            {"is": "address", "name": self._shown(one)}
            for one in picture.addresses
            if one.id == scope.endpoint_id
        ]
        return {"id": no.id, "parts": parts, "until": self._moment(no.until)}

    def _addresses(self, problem: Trouble | None) -> list[dict[str, Any]]:
        wrong = problem if problem and problem.section == "addresses" else None
        shown = []
        for one in self._picture.addresses:
            kind, complete = _INPUT.get(one.channel, ("text", "off"))
            spelled = _spelled(one.channel, one.address)
            mine = wrong is not None and one.id in wrong.fields
            shown.append(
                {
                    "id": one.id,
                    "channel": one.channel.value,
                    "service": one.service.capitalize(),
                    "address": spelled,
                    "typed": wrong.typed["address"] if wrong and mine else spelled,
                    "input": kind,
                    "complete": complete,
                    "wrong": mine,
                    "invalid": one.state == "invalid",
                    "new": bool(self._picture.not_meant(one.id)),
                }
            )
        return shown

    def _shown(self, one: Address) -> str:
        return _spelled(one.channel, one.address) if self._full else masked(one.address)

    def _moment(self, at: datetime | None) -> str | None:
        if at is None:
            return None
        zone = self._own_zone or find_zone(self._picture.brand.timezone) or ZoneInfo("UTC")
        return self._words.moment(at, zone, named=self._own_zone is None)


@cache
def _zones(more: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Time zones by area; `more` is one that is shown besides."""
    areas: dict[str, list[tuple[str, str]]] = {}
    for name in sorted({*zone_names(), *([more] if more else ())}):
        area, _, place = name.rpartition("/") if name.count("/") == 0 else name.partition("/")
        areas.setdefault(area or "UTC", []).append((name, place.replace("_", " ")))
    return list(areas.items())


def _spelled(channel: Channel, address: str) -> str:
    """An address as people write it."""
    if channel is not Channel.SMS:
        return address
    try:
        number = phonenumbers.parse(address)
    except phonenumbers.NumberParseException:
        return address
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
