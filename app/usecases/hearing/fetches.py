"""Fetches of our own pixels and links: whose they were, judged once, a moment after they came in.

A scanner shows itself only by what else it fetches. So a fetch waits in the inbox until whatever
belongs to it has come in, and is then judged together with that. What was seen stays seen, so it
could not be put right later.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from app.domain.evidence import (
    BURST_LINKS,
    Suspicion,
    Verdict,
    classify_click,
    classify_open,
    is_burst,
)
from app.domain.vocabulary import EventType
from app.store import events
from app.store.events import Spoken
from app.store.inbox import Received, fetches_waiting
from app.usecases.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Fetch:
    """One fetch, as its note says. `links` is how many the message has, where that is known."""

    delivery_id: int
    event: EventType
    index: int
    agent: str
    ip: str
    method: str
    links: int | None
    at: datetime

    @classmethod
    def read(cls, body: bytes, at: datetime) -> "Fetch":
        """Read a note that `links.fetched` wrote."""
        note: Mapping[str, Any] = orjson.loads(body)
        return cls(
            note["delivery"],
            EventType(note["event"]),
            note.get("index", 0),
            note["agent"],
            note["ip"],
            note["method"],
            note.get("links"),
            at,
        )


def judge(
    runtime: Runtime, connection: Connection, received: Sequence[Received]
) -> list[tuple[Received, Fetch, Spoken | None, Verdict]]:
    """Say of each fetch what it counts as; of a delivery that is not there, None."""
    fetches = [(one, Fetch.read(one.body, one.received_at)) for one in received]
    spoken = events.find_by_id(connection, {fetch.delivery_id for _, fetch in fetches})
    around = _followed(connection, spoken)
    judged = []
    for one, fetch in fetches:
        delivery = spoken.get(fetch.delivery_id)
        verdict = _verdict(runtime.suspicion, fetch, delivery, around.get(fetch.delivery_id, ()))
        judged.append((one, fetch, delivery, verdict))
    return judged


Followed = Sequence[tuple[int, datetime, int | None]]
"""Links of one message that were followed: which, when, and how many it has, where known."""


def _followed(connection: Connection, spoken: Mapping[int, Spoken]) -> dict[int, Followed]:
    """The links of messages that were followed: those that wait, too, and those read already."""
    found: dict[int, list[tuple[int, datetime, int | None]]] = defaultdict(list)
    for body, at in fetches_waiting(connection, list(spoken)):
        fetch = Fetch.read(body, at)
        if fetch.event is EventType.CLICKED:
            found[fetch.delivery_id].append((fetch.index, at, fetch.links))
    if found:
        intents = {one.intent_id for key, one in spoken.items() if key in found}
        for delivery_id, index, at in events.links_followed(connection, intents):
            found[delivery_id].append((index, at, None))
    return dict(found)


def _verdict(
    suspicion: Suspicion, fetch: Fetch, delivery: Spoken | None, around: Followed
) -> Verdict:
    handed = delivery.handed_over_at if delivery else None
    since = (fetch.at - handed).total_seconds() if handed else None
    classify = classify_click if fetch.event is EventType.CLICKED else classify_open
    verdict = classify(fetch.agent, fetch.ip, fetch.method, since, suspicion)
    if verdict.event is EventType.OPENED_BY_MACHINE:
        return verdict
    near = [
        (index, links)
        for index, at, links in around
        if abs((at - fetch.at).total_seconds()) <= suspicion.burst_s
    ]
    known = [links for _, links in near if links is not None]
    if is_burst({index for index, _ in near}, max(known, default=BURST_LINKS)):
        return Verdict(EventType.OPENED_BY_MACHINE, "burst")
    return verdict
