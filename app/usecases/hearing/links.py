"""Links: what a customer's browser fetches of a message, and the note that is taken of it.

A token says which delivery; nothing that a request carries decides where it leads.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import orjson

from app.content.hosted import hosted_page
from app.content.message import link_target
from app.content.problem import ContentRefused
from app.domain.tokens import Claims, Purpose
from app.domain.vocabulary import EventType
from app.store.inbox import TRACKING, Arrival
from app.store.links import Linked, message_of
from app.store.wishes import read_individual
from app.usecases.delivering.rendering import preferences_url
from app.usecases.hints import Hints
from app.usecases.runtime import Runtime

THE_PAGE = -1
"""Stands for the hosted message where an event says which link was followed."""
HINT_EVERY_S = 0.25
AGENT_KEPT = 500


class NoSuchLink(Exception):
    """The token is ours, but its message has no such link."""


class MessageGone(Exception):
    """The token is ours, but its message is no longer kept."""


class CustomerErased(MessageGone):
    """The token is ours, but whose message it was is not known any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a token led to: a URL or a page; and how many links its message has, where known."""

    claims: Claims
    shown: str
    links: int | None = None


class Nudge:
    """Hints that the inbox has something, a few times a second at most; ticks find the rest."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._lock = threading.Lock()
        self._hinted_at = float("-inf")

    def __call__(self) -> None:
        """Hint, unless that was done a moment ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._hinted_at < HINT_EVERY_S:
                return
            self._hinted_at = now
        self._hints.feedback()


def read_open(runtime: Runtime, token: str, now: datetime) -> Claims:
    """What a pixel's token says; raises `BadToken` or `ExpiredToken`."""
    return runtime.words.signer.read(token, Purpose.OPEN, now)


def follow(runtime: Runtime, token: str, now: datetime) -> Found:
    """Where a link of a message leads: only to a URL of that message.

    Raises `BadToken`, `ExpiredToken`, `MessageGone` or `NoSuchLink`.
    """
    claims = runtime.words.signer.read(token, Purpose.CLICK, now)
    linked, document = _message(runtime, claims.id)
    try:
        target = link_target(document, linked.data, claims.index)
        web = urlsplit(target.url).scheme.lower() in ("http", "https")
    except (ContentRefused, ValueError) as error:  # urlsplit has opinions of its own on hosts
        raise NoSuchLink("the message has no such link") from error
    if not web:
        raise NoSuchLink("not a web link")
    return Found(claims, target.url, target.links)


def hosted(runtime: Runtime, token: str, now: datetime) -> Found:
    """The hosted message as HTML; raises like `follow`."""
    claims = runtime.words.signer.read(token, Purpose.MESSAGE, now)
    linked, document = _message(runtime, claims.id)
    sender = runtime.catalog().senders_by_id.get(linked.sender_id)
    name = "" if sender is None else str(sender.settings.get("name") or sender.name)
    try:
        page = hosted_page(
            document,
            linked.data,
            sender_name=name,
            preferences=preferences_url(runtime, linked.customer_id, now),
            locale=linked.locale or "en",
        )
    except ContentRefused as refused:
        raise NoSuchLink("the message cannot be shown any more") from refused
    return Found(claims, page)


def fetched(runtime: Runtime, found: Found, agent: str, ip: str, method: str) -> Arrival:
    """The note of a fetch that a token allowed; whose it was is judged when the inbox is read.

    That is a moment later, unless there is nothing else in the message that could be fetched.
    """
    claims = found.claims
    event = EventType.OPENED if claims.purpose is Purpose.OPEN else EventType.CLICKED
    note = {
        "delivery": claims.id,
        "event": event.value,
        "index": THE_PAGE if claims.purpose is Purpose.MESSAGE else claims.index,
        "links": found.links,
        "agent": agent[:AGENT_KEPT],
        "ip": ip,
        "method": method,
    }
    return Arrival(
        TRACKING,
        uuid4().hex,
        orjson.dumps(note),
        delivery_id=claims.id,
        wait_s=0 if found.links == 1 else runtime.suspicion.burst_s,
    )


def _message(runtime: Runtime, delivery_id: int) -> tuple[Linked, dict[str, object]]:
    with runtime.engine.begin() as connection:
        linked = message_of(connection, delivery_id)
    if linked is None:
        raise NoSuchLink("there is no such message")
    # A copy of this process may outlive what the ledger keeps.
    found = runtime.words.load(runtime.engine, [linked.content_id]) if linked.content_id else {}
    if linked.content_id not in found:
        with runtime.engine.begin() as connection:
            if read_individual(connection, linked.customer_id) is None:
                raise CustomerErased("its text went with the customer")
        raise MessageGone("its text was kept for its time")
    return linked, found[linked.content_id]
