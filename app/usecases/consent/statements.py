"""Single statements of consent by names, for the API and the CLI; and all that was ever said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection

from app.domain.consent import Consent, Scope
from app.domain.reach import Reach
from app.domain.vocabulary import Channel, Kind
from app.store import audit
from app.store.consents import Kept, kept_of, kept_under
from app.store.wishes import Address, addresses_by_id
from app.usecases.consent.consents import Statement, say
from app.usecases.consent.picture import Picture, in_force, said_by, shown_to, take_picture
from app.usecases.consent.voices import (
    BadPreference,
    UsedKey,
    Voice,
    Whom,
    checked,
    find,
    known,
    later,
    reach_of,
    sender_ids,
)
from app.usecases.people.addresses import in_one_form, normal_endpoint
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer.checks import Check, fields, kind_of, moment, one_of, text

MOST: Final = 100
"""Statements that are taken at once."""
_SCOPE: Final[dict[str, Check]] = {
    "channel": one_of([channel.value for channel in Channel]),
    "sender": text(63),
    "topic": text(63),
    "kind": one_of([kind.value for kind in Kind]),
    "address": text(288),
}


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidIntent("", f"must be true or false, not {kind_of(value)}")


def _scope(value: Any) -> None:
    fields(_SCOPE, value)


_STATEMENT: Final[dict[str, Check]] = {
    "scope": _scope,
    "allow": _flag,
    "until": moment,
    "by": one_of(("customer", "brand")),
    "evidence": text(200),
    "key": text(100),
}
_REQUIRED: Final = ("scope", "allow")


@dataclass(frozen=True, slots=True)
class _Said:
    """A statement that was understood, and where it stands in the list."""

    scope: Scope
    document: dict[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class Written:
    """Statements as they are kept, the newest first, and whether any of them is `new`."""

    kept: list[dict[str, Any]]
    new: bool


def say_by_names(
    runtime: Runtime,
    whom: Whom,
    documents: Any,
    voice: Voice,
) -> Written:
    """Write statements down, all or none.

    A statement is `{"scope": {"channel", "sender", "topic", "kind", "address"}, "allow", "until",
    "by", "evidence", "key"}`: what a scope leaves out fits anything, `by` is the customer or the
    brand (who it is unless said), and what was said under a `key` before says nothing new.
    Who reaches some senders alone speaks for these alone.

    Raises `NoSuchCustomer`, `BadPreference`, and `UsedKey` where another statement has the key.
    """
    documents = documents if isinstance(documents, list) else [documents]
    if not 0 < len(documents) <= MOST:
        raise BadPreference("body", f"must hold between 1 and {MOST} statements")
    reach = reach_of(whom)
    with runtime.engine.begin() as connection:
        person = find(connection, whom, voice)
        before = take_picture(connection, runtime, person)
        many = len(documents) > 1
        said = [
            _read(
                before,
                document,
                f"[{place}]." if many else "",
                runtime.default_region,
                reach.senders,
            )
            for place, document in enumerate(documents)
        ]
        facts = [key for one in said if (key := _fact(one, voice))]
        known = kept_under(connection, person.id, facts)
        statements = _new(before, said, voice, known)
        if statements:
            say(connection, person.brand_id, statements)
            audit.note(
                connection,
                actor=voice.actor,
                action="consent.say",
                subject={
                    "customer": person.id,
                    "allow": [one.allow for one in statements],
                    "scopes": [_audited(before, one.scope) for one in statements],
                },
                reason=voice.reason,
            )
        after = take_picture(connection, runtime, person)
        kept = kept_of(connection, person.id, len(statements)) if statements else []
        kept += sorted(known.values(), key=lambda one: one.id, reverse=True)
        return Written(_shown(connection, after, reach, kept), bool(statements))


def _new(
    before: Picture, said: Sequence[_Said], voice: Voice, known: Mapping[str, Kept]
) -> list[Statement]:
    """The statements that were not made before; raises `UsedKey` where their key was."""
    earlier = {one.id: one for one in before.consents}
    told = {fact: _told(earlier[one.id], one.evidence) for fact, one in known.items()}
    new = []
    for one in said:
        fact = _fact(one, voice)
        # What was taken once is taken again, though it has ended since.
        now = datetime.min.replace(tzinfo=UTC) if fact in told else before.now
        statement = _statement(before, one, voice, now)
        if fact is None or fact not in told:
            new.append(statement)
        elif told[fact] != _told(statement, statement.evidence):
            raise UsedKey(
                f"{one.place}key", "something else was said under this key; give another key"
            )
        if fact is not None:
            told[fact] = _told(statement, statement.evidence)
    return new


def _told(one: Statement | Consent, evidence: str) -> tuple[Any, ...]:
    """What makes two statements the same."""
    return one.scope, one.allow, one.until, one.own, evidence


def _fact(one: _Said, voice: Voice) -> str | None:
    key = one.document.get("key")
    return f"{voice.source}:{key}" if key else None


def _audited(picture: Picture, scope: Scope) -> dict[str, Any]:
    """A scope by names, with an address by our own id: the trail outlives what is erased."""
    named = {**picture.names(scope, {}), "endpoint": scope.endpoint_id}
    return {name: value for name, value in named.items() if value is not None}


def list_statements(
    runtime: Runtime, whom: Whom, *, limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Everything that was said, the newest first, and the cursor of the following page.

    Raises `NoSuchCustomer`, and `BadPreference` for a cursor that is none.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadPreference("cursor", "is not a cursor that this list gave")
    with runtime.engine.begin() as connection:
        picture = take_picture(connection, runtime, find(connection, whom))
        reach, senders = reach_of(whom), None
        if not reach.whole:
            senders = [key for name, key in sender_ids(picture.brand).items() if reach.covers(name)]
        before = int(cursor) if cursor else None
        kept = kept_of(connection, picture.person.id, limit + 1, before, senders)
        after = str(kept[limit - 1].id) if len(kept) > limit else None
        return _shown(connection, picture, reach, kept[:limit]), after


def _shown(
    connection: Connection, picture: Picture, reach: Reach, kept: Sequence[Kept]
) -> list[dict[str, Any]]:
    said = {one.id: one for one in picture.consents}
    rows = [(one, said[one.id]) for one in kept if one.id in said]
    ids = [one.scope.endpoint_id for _, one in rows if one.scope.endpoint_id is not None]
    found = addresses_by_id(connection, ids)
    addresses = {key: shown_to(reach, address) for key, address in found.items()}
    return [
        {
            "id": row.id,
            "allow": one.allow,
            "scope": picture.names(one.scope, addresses),
            "until": one.until,
            "at": one.at,
            "source": one.source,
            "by": said_by(one),
            "actor": row.actor if reach.whole else "",
            "evidence": row.evidence if reach.whole else "",
            "in_force": in_force(one, picture.consents, picture.now),
        }
        for row, one in rows
    ]


def _read(
    before: Picture,
    document: Any,
    place: str,
    region: str | None,
    senders: frozenset[str] | None,
) -> _Said:
    try:
        fields(_STATEMENT, document, required=_REQUIRED)
    except InvalidIntent as error:
        raise BadPreference(f"{place}{error.field}" or "body", error.reason) from error
    names = document["scope"]
    sender, topic, address = names.get("sender"), names.get("topic"), names.get("address")
    if senders is not None and sender not in senders:
        raise BadPreference(
            f"{place}scope.sender",
            f"this key speaks for some senders alone; name one of {', '.join(sorted(senders))}",
        )
    brand = before.brand
    scope = Scope(
        channel=Channel(names["channel"]) if names.get("channel") else None,
        endpoint_id=_endpoint(before.addresses, address, region, f"{place}scope.address"),
        sender_id=known(sender_ids(brand), "sender", sender, f"{place}scope.sender")
        if sender
        else None,
        topic_id=known(brand.topics, "topic", topic, f"{place}scope.topic") if topic else None,
        kind=Kind(names["kind"]) if names.get("kind") else None,
    )
    return _Said(scope, document, place)


def _endpoint(
    have: Sequence[Address], address: str | None, region: str | None, place: str
) -> int | None:
    """The one address that is meant, however it is written."""
    if address is None:
        return None
    for one in have:
        wire = address
        if one.channel in (Channel.CHAT, Channel.SOCIAL):
            wire = f"{one.service}:{address.removeprefix(f'{one.service}:')}"
        try:
            normal = normal_endpoint(wire, one.channel, region, place)["address"]
        except InvalidIntent:
            continue
        if normal == in_one_form(one.channel, one.address):
            return one.id
    raise BadPreference(place, "is none of this customer's addresses")


def _statement(before: Picture, one: _Said, voice: Voice, now: datetime) -> Statement:
    document = one.document
    own = voice.own if document.get("by") is None else document["by"] == "customer"
    checked(f"{one.place}allow", _flag, document["allow"])
    return Statement(
        before.person.id,
        one.scope,
        document["allow"],
        voice.source,
        own=own,
        until=later(f"{one.place}until", document.get("until"), now),
        actor=voice.actor,
        evidence=document.get("evidence") or voice.evidence,
        fact=_fact(one, voice),
    )
