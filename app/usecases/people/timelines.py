"""One customer's timeline over all channels: messages out and in, events, decisions, consents."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from app.domain.reach import Reach
from app.store import reports
from app.store.catalog import Catalog
from app.store.timelines import (
    SORTS,
    Bounds,
    Place,
    messages_by_id,
    places_of,
    statements_by_id,
)
from app.store.wishes import Individual
from app.usecases.consent.picture import whose
from app.usecases.consent.voices import Whom, find, reach_of
from app.usecases.runtime import Runtime
from app.usecases.telling.pages import Rows, bounded, cursor_of, read_parts
from app.usecases.telling.plain import by, statement
from app.usecases.telling.shown import GONE, mask, show

EVERYTHING: Final = Bounds()
_REF: Final = re.compile(r"[0-9:]{0,40}")
_OF_PERSONS: Final = ("consent", "message")
_EMPTY: Final = {
    "direction": None,
    "channel": None,
    "address": None,
    "intent": None,
    "key": None,
    "topic": None,
    "sender": None,
    "delivery": None,
    "verdict": None,
    "until": None,
    "outcome": None,
    "event": None,
    "statement": None,
}


def customer_timeline(
    runtime: Runtime,
    whom: Whom,
    *,
    limit: int = 50,
    cursor: str | None = None,
    since: datetime | None = None,
) -> Rows:
    """What happened between a brand and a customer, the newest first.

    Where whoever asks does not reach all of it, what the customer wrote is there where it answers a
    message that may be seen.

    An item is `{"at", "what" (accepted, decided, attempt, event, ended, refused, message, consent),
    "text", "direction" (out, in, or None), "channel", "address" (masked), "intent", "key", "topic",
    "sender", "delivery", "verdict" (send, wait, stop), "until", "outcome", "event", "statement"}`,
    None where it does not apply; a statement is `{"allow", "scope": {"channel", "address",
    "sender", "topic", "kind"}, "until", "source", "by" (customer, brand, law)}`. No body is shown.

    Raises `NoSuchCustomer`, and `BadFilter` for a cursor that is none.
    """
    before = _read(cursor)
    limit = bounded(limit)
    with runtime.engine.begin() as connection:
        person = find(connection, whom)
        bounds = _bounds(runtime, person, reach_of(whom))
        return timeline_of(
            runtime, connection, person.id, bounds, limit=limit, before=before, since=since
        )


def timeline_of(
    runtime: Runtime,
    connection: Connection,
    customer_id: int,
    bounds: Bounds,
    *,
    limit: int,
    before: Place | None = None,
    since: datetime | None = None,
) -> Rows:
    """A page of `customer_timeline` in a transaction that there is."""
    places = places_of(connection, customer_id, bounds, before=before, since=since, limit=limit + 1)
    page = places[:limit]
    heads = reports.intents_by_id(connection, {one.intent_id for one in page if one.intent_id})
    intents = {one["id"]: one for one in show(runtime, connection, heads)}
    told = _entries(intents.values())
    ids = {sort: [int(one.ref) for one in page if SORTS[one.rank] == sort] for sort in _OF_PERSONS}
    catalog = runtime.catalog()
    for row in statements_by_id(connection, ids["consent"]):
        told[None, "consent", str(row["id"])] = _consent(catalog, row)
    for row in messages_by_id(connection, ids["message"]):
        told[None, "message", str(row["id"])] = _message(row)
    items = []
    for one in page:
        sort = SORTS[one.rank]
        entry = told.get((None if sort in _OF_PERSONS else one.intent_id, sort, one.ref))
        if entry is not None:  # else it has gone since
            items.append(_item(one, sort, entry, intents))
    return items, _cursor(page[-1]) if len(places) > limit else None


def _bounds(runtime: Runtime, person: Individual, reach: Reach) -> Bounds:
    ids = None
    if not reach.whole:
        ids = [
            one.id
            for one in runtime.catalog().senders_by_id.values()
            if one.brand_id == person.brand_id and reach.covers(one.name)
        ]
    return Bounds(ids, tests_alone=bool(reach.test))


def _entries(
    intents: Collection[Mapping[str, Any]],
) -> dict[tuple[UUID | None, str, str], Mapping[str, Any]]:
    return {
        (intent["id"], entry["what"], entry["id"]): entry
        for intent in intents
        for entry in intent["entries"]
    }


def _item(
    place: Place,
    what: str,
    entry: Mapping[str, Any],
    intents: Mapping[UUID, Mapping[str, Any]],
) -> dict[str, Any]:
    intent = intents.get(place.intent_id) if place.intent_id else None
    about = {}
    if intent is not None:
        about = {
            "intent": intent["id"],
            **{name: intent[name] for name in ("key", "topic", "sender")},
        }
    known = {name: value for name, value in entry.items() if name in _EMPTY}
    out = "out" if entry.get("outcome") == "accepted" else None
    return {
        "at": place.at,
        "what": what,
        "text": entry["text"],
        **_EMPTY,
        "direction": "in" if what == "message" else out,
        **about,
        **known,
    }


def _consent(catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    sender = catalog.senders_by_id.get(row["sender_id"])
    said = {
        "allow": row["allow"],
        "scope": {
            "channel": row["channel"],
            "address": mask(row["address"]) if row["of_address"] else None,
            "sender": sender.name if sender else None,
            "topic": catalog.topics_by_id.get(row["topic_id"]),
            "kind": row["kind"],
        },
        "until": row["until"],
        "source": row["source"],
        "by": whose(row["source"], own=row["own"]),
    }
    return {
        "text": statement(said),
        "channel": row["channel"] or row["address_channel"],
        "address": said["scope"]["address"],
        "statement": said,
    }


def _message(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = ", in answer to what was sent" if row["delivery"] is not None else ""
    address = mask(row["address"] or None)
    sender = "" if address == GONE else f" from {address}"
    return {
        "text": f"The customer wrote {by(row['channel'])}{sender}{answer}.",
        "channel": row["channel"],
        "address": address,
        "delivery": row["delivery"],
    }


def _cursor(place: Place) -> str:
    return cursor_of(place.at.isoformat(), place.intent_id or "", place.rank, place.ref)


def _read(cursor: str | None) -> Place | None:
    if cursor is None:
        return None

    def place(at: str, intent: str, rank: str, ref: str) -> Place:
        if not _REF.fullmatch(ref) or int(rank) not in range(len(SORTS)):
            raise ValueError(ref)
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError(at)
        return Place(moment, UUID(intent) if intent else None, int(rank), ref)

    return read_parts(cursor, place)
