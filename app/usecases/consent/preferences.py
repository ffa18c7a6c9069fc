"""Preferences: what one customer allows and wishes, read and changed in one place.

Every change is a statement that is kept for ever, or a wish; both are audited, without a word about
the person.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.consent import Choice, Consent, Scope, choice
from app.domain.vocabulary import Channel
from app.domain.wishes import QuietHours, Wishes
from app.store import audit, wishes
from app.store.consents import consents_of, look_again
from app.store.intents import ledger_now
from app.store.optouts import enter_gate
from app.usecases.consent.consents import Statement, say
from app.usecases.consent.picture import EVERYTHING, MARKETING, Picture, take_picture
from app.usecases.consent.voices import (
    BadPreference,
    Overruled,
    Voice,
    Whom,
    checked,
    find,
    known,
    later,
    reach_of,
    sender_ids,
)
from app.usecases.giving_way import again_if_undone
from app.usecases.people.addresses import check_timezone
from app.usecases.people.correcting import AddressChange, change_addresses, changes_to
from app.usecases.runtime import Runtime
from converge_producer.checks import each, kind_of, matching, one_of, text

_LONGEST = 63
"""Characters of a name that may be one of ours, as far as an error tells it."""
READ_ONLY = frozenset({"customer", "off", "now"})
_channel_names = each(one_of([channel.value for channel in Channel]), len(Channel))
_zone_name = text(64)
_time_of_day = matching(r"([01][0-9]|2[0-3]):[0-5][0-9]", 'a time such as "21:00"', 5)


def read_preferences(runtime: Runtime, whom: Whom) -> dict[str, Any]:
    """A customer's preferences (see `Picture.document`); raises `NoSuchCustomer`."""
    return look(runtime, whom).document(reach_of(whom))


def look(runtime: Runtime, whom: Whom) -> Picture:
    """A customer's preferences as they stand; raises `NoSuchCustomer`."""
    with runtime.engine.begin() as connection:
        return take_picture(connection, runtime, find(connection, whom))


@again_if_undone
def change_preferences(runtime: Runtime, whom: Whom, document: Any, voice: Voice) -> dict[str, Any]:
    """Change what a document names; what it leaves out stays. Return all as it stands then.

    The document is as `read_preferences` gives it. A topic, or `marketing`, is true, false or null
    (stays as it is: what was said cannot be unsaid; it reads so, too, where part of a no was taken
    back since, and so does "muted"). `addresses` are all that there are to be: one
    with the id of a known address corrects it, one without is new, and one left out is removed.

    Raises `NoSuchCustomer`, `BadPreference` and `Overruled`; then nothing was changed.
    """
    if not isinstance(document, dict):
        raise BadPreference("body", f"must be an object, not {kind_of(document)}")
    with runtime.engine.begin() as connection:
        change = _Change(connection, runtime, whom, voice, gives="addresses" in document)
        for name, value in document.items():
            if name in READ_ONLY:
                continue
            if name not in _FIELDS:
                raise BadPreference(
                    name if name.isidentifier() and len(name) < 40 else "body",
                    f"is no preference; there are {', '.join(_FIELDS)}",
                )
            _FIELDS[name](change, value)
        return change.finish()


@again_if_undone
def correct_address(
    runtime: Runtime, whom: Whom, change: AddressChange, voice: Voice
) -> dict[str, Any]:
    """Correct or remove one address; raises like `change_preferences`."""
    with runtime.engine.begin() as connection:
        changing = _Change(connection, runtime, whom, voice, gives=change.address is not None)
        changing.addresses.append(change)
        return changing.finish()


@again_if_undone
def take_back(runtime: Runtime, whom: Whom, no_id: int, voice: Voice) -> dict[str, Any]:
    """Say yes where that no stands, to exactly what it was about; nothing where it does not stand.

    Raises like `change_preferences`.
    """
    with runtime.engine.begin() as connection:
        change = _Change(connection, runtime, whom, voice)
        for no in change.before.other_noes():
            if no.id == no_id:
                change.switch("off", no.scope, Choice(True))
        return change.finish()


@again_if_undone
def mean_address(runtime: Runtime, whom: Whom, endpoint_id: int, voice: Voice) -> dict[str, Any]:
    """Say that what was agreed to goes to this address, too: just that, and nothing that was said
    no to since. Raises like `change_preferences`."""
    with runtime.engine.begin() as connection:
        change = _Change(connection, runtime, whom, voice)
        if not any(one.id == endpoint_id for one in change.before.addresses):
            raise BadPreference("addresses", "there is no such address any more")
        yeses = change.before.not_meant(endpoint_id)
        if not yeses:
            raise BadPreference("addresses", "there is nothing more to be sent to this address")
        change.repeat("addresses", yeses)
        return change.finish()


@dataclass(slots=True)
class _Change:
    """One change in the making: nothing is written before all of it was understood.

    `gives`: it may give an address.
    """

    connection: Connection
    runtime: Runtime
    whom: Whom
    voice: Voice
    gives: bool = False
    before: Picture = field(init=False)
    wishes: Wishes = field(init=False)
    timezone: str | None = field(init=False)
    addresses: list[AddressChange] = field(default_factory=list)
    _says: list[Statement] = field(default_factory=list)
    _wanted: list[tuple[str, Scope, Choice]] = field(default_factory=list)
    _changed: list[str] = field(default_factory=list)
    _chosen: list[tuple[str, int]] = field(default_factory=list)
    _no_marketing: bool = False

    def __post_init__(self) -> None:
        if self.gives:  # before the customer is locked
            enter_gate(self.connection, find(self.connection, self.whom).brand_id)
        person = find(self.connection, self.whom, self.voice)
        self.before = take_picture(self.connection, self.runtime, person)
        self.wishes = self.before.wishes
        self.timezone = person.timezone

    def topics(self, value: Any) -> None:
        for name, allow in _object("topics", value).items():
            topic_id = known(self.before.brand.topics, "topic", name, f"topics.{name[:_LONGEST]}")
            self._yes_or_no(f"topics.{name}", Scope(topic_id=topic_id), allow)
            if allow:
                self._chosen.append((f"topics.{name}", topic_id))

    def marketing(self, value: Any) -> None:
        self._yes_or_no("marketing", MARKETING, value)
        self._no_marketing = value is False

    def senders(self, value: Any) -> None:
        ids = sender_ids(self.before.brand)
        for name, mute in _object("senders", value).items():
            sender_id = known(ids, "sender", name, f"senders.{name[:_LONGEST]}")
            self._mute(f"senders.{name}", Scope(sender_id=sender_id), mute)

    def everything(self, value: Any) -> None:
        self._mute("everything", EVERYTHING, value)

    def channels(self, value: Any) -> None:
        checked("channels", _channel_names, value)
        if len(set(value)) < len(value):
            raise BadPreference("channels", "names a channel twice; name each where it comes first")
        self.wishes = Wishes(tuple(map(Channel, value)), self.wishes.quiet)

    def quiet_hours(self, value: Any) -> None:
        quiet = None
        if value is not None:
            times = _object("quiet_hours", value)
            for name in ("from", "to"):
                if times.get(name) is None:
                    raise BadPreference(f"quiet_hours.{name}", "is required")
                checked(f"quiet_hours.{name}", _time_of_day, times.get(name))
            if extra := set(times) - {"from", "to"}:
                raise BadPreference("quiet_hours", f"has {len(extra)} fields beside from and to")
            try:
                quiet = QuietHours.parse(times["from"], times["to"])
            except ValueError as error:
                name, _, reason = str(error).partition(": ")
                raise BadPreference(name, reason) from error
        self.wishes = Wishes(self.wishes.channels, quiet)

    def zone(self, value: Any) -> None:
        if value is not None:
            checked("timezone", _zone_name, value)
            checked("timezone", check_timezone, value)
        self.timezone = value

    def all_addresses(self, value: Any) -> None:
        self.addresses += changes_to(self.before.addresses, value)

    def repeat(self, name: str, said: Sequence[Consent]) -> None:
        """Say statements, whatever was said before."""
        person = self.before.person
        self._says += [
            self.voice.says(person, one.scope, one.allow, until=one.until) for one in said
        ]
        self._changed.append(name)

    def switch(self, name: str, scope: Scope, wanted: Choice) -> None:
        """Want a switch to stand so; a no, for all that it is about."""
        has = choice(self.before.consents, scope, self.before.now)
        if has == wanted and (wanted.allow or not self.before.gave_way(scope)):
            return
        self._says.append(
            self.voice.says(self.before.person, scope, bool(wanted.allow), until=wanted.until)
        )
        self._wanted.append((name, scope, wanted))
        self._changed.append(name)

    def finish(self) -> dict[str, Any]:
        """Write it all down; return the preferences as they stand then."""
        person, own = self.before.person, self.voice.own
        if change_addresses(self.connection, self.runtime, self.before, self.addresses, own=own):
            self._changed.append("addresses")
            wishes.facts_are_of_now(self.connection, person.id)
            look_again(self.connection, [person.id])
        if (self.wishes, self.timezone) != (self.before.wishes, person.timezone):
            named = [
                ("channels", self.wishes.channels != self.before.wishes.channels),
                ("quiet_hours", self.wishes.quiet != self.before.wishes.quiet),
                ("timezone", self.timezone != person.timezone),
            ]
            self._changed += [name for name, differs in named if differs]
            wishes.set_wishes(
                self.connection, person.id, self.wishes.document(), self.timezone, own=own
            )
            look_again(self.connection, [person.id])
        self._mean_marketing()
        say(self.connection, person.brand_id, self._says)
        self._hold_to_what_was_wanted()
        if self._changed:
            audit.note(
                self.connection,
                actor=self.voice.actor,
                action="preferences.change",
                subject={"customer": person.id, "changed": sorted(set(self._changed))},
                reason=self.voice.reason,
            )
        after = find(self.connection, person.id)
        return take_picture(self.connection, self.runtime, after).document()

    def _mean_marketing(self) -> None:
        """Who chooses a topic in person means its marketing, too, though they said no to all of it
        before (an old unsubscription), unless they say so again at once."""
        if not self.voice.own or self._no_marketing:
            return
        for name, topic_id in self._chosen:
            narrow = Scope(topic_id=topic_id, kind=MARKETING.kind)
            if self.before.refused(narrow):
                self._says.append(self.voice.says(self.before.person, narrow, True))
                self._changed.append(name)

    def _hold_to_what_was_wanted(self) -> None:
        if not self._wanted:
            return
        key = self.before.person.id
        consents = consents_of(self.connection, [key]).get(key, [])
        now = ledger_now(self.connection)
        for name, scope, wanted in self._wanted:
            if choice(consents, scope, now) != wanted:
                raise Overruled(
                    name,
                    "the customer said no in person, which the brand alone cannot take back; if "
                    'they took it back themselves, say so with "by": "customer"',
                )

    def _yes_or_no(self, name: str, scope: Scope, allow: Any) -> None:
        if allow is not None and not isinstance(allow, bool):
            raise BadPreference(name, f"must be true, false or null, not {kind_of(allow)}")
        if allow is not None:
            self.switch(name, scope, Choice(allow))

    def _mute(self, name: str, scope: Scope, value: Any) -> None:
        mute = _object(name, value)
        if set(mute) - {"muted", "until"} or not isinstance(mute.get("muted", 0), bool | None):
            raise BadPreference(name, 'must say "muted": true or false, and may say "until"')
        muted, until = mute["muted"], mute.get("until")
        if muted is None:  # as it reads where part of it was taken back
            later(f"{name}.until", until, self._now)
            return
        if not muted and until is not None:
            raise BadPreference(f"{name}.until", "goes with muted: true alone")
        if muted:
            self.switch(name, scope, Choice(False, later(f"{name}.until", until, self._now)))
        elif choice(self.before.consents, scope, self._now).allow is False:
            self.switch(name, scope, Choice(True))

    @property
    def _now(self) -> datetime:
        return self.before.now


_FIELDS: Mapping[str, Callable[[_Change, Any], None]] = {
    "everything": _Change.everything,
    "topics": _Change.topics,
    "marketing": _Change.marketing,
    "senders": _Change.senders,
    "channels": _Change.channels,
    "quiet_hours": _Change.quiet_hours,
    "timezone": _Change.zone,
    "addresses": _Change.all_addresses,
}


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadPreference(name, f"must be an object, not {kind_of(value)}")
    return value
