"""Links: what a customer's browser fetches of a message, and the note that is taken of it.

A token says which delivery; nothing that a request carries decides where it leads.
"""

import threading
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import structlog

from app.content.hosted import hosted_page
from app.content.message import link_target
from app.content.problem import ContentRefused
from app.domain.tokens import Claims, Purpose
from app.domain.vocabulary import EventType
from app.store.inbox import TRACKING, put_inbox
from app.store.links import Linked, message_of
from app.usecases.hints import Hints
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

THE_PAGE = -1
"""Stands for the hosted message where an event says which link was followed."""
HINT_EVERY_S = 0.25
AGENT_KEPT = 500


class NoSuchLink(Exception):
    """The token is ours, but its message is gone or has no such link."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """One fetch of a pixel, a link or a page; whose it was is judged when the inbox is read."""

    delivery: int
    event: str
    index: int
    agent: str
    ip: str
    method: str


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


def follow(runtime: Runtime, token: str, now: datetime) -> tuple[Claims, str]:
    """Where a link of a message leads: only to a URL of that message.

    Raises `BadToken`, `ExpiredToken` or `NoSuchLink`.
    """
    claims = runtime.words.signer.read(token, Purpose.CLICK, now)
    linked, document = _message(runtime, claims.id)
    try:
        url = link_target(document, linked.data, claims.index)
        web = urlsplit(url).scheme.lower() in ("http", "https")
    except (ContentRefused, ValueError) as error:  # urlsplit has opinions of its own on hosts
        raise NoSuchLink("the message has no such link") from error
    if not web:
        raise NoSuchLink("not a web link")
    return claims, url


def hosted(runtime: Runtime, token: str, now: datetime) -> tuple[Claims, str]:
    """The hosted message as HTML; raises like `follow`."""
    claims = runtime.words.signer.read(token, Purpose.MESSAGE, now)
    linked, document = _message(runtime, claims.id)
    sender = runtime.catalog().senders_by_id.get(linked.sender_id)
    name = "" if sender is None else str(sender.settings.get("name") or sender.name)
    try:
        page = hosted_page(document, linked.data, sender_name=name, locale=linked.locale or "en")
    except ContentRefused as refused:
        raise NoSuchLink("the message cannot be shown any more") from refused
    return claims, page


def note_fetch(runtime: Runtime, fetch: Fetch, nudge: Nudge) -> None:
    """Keep a fetch in the inbox. Whatever goes wrong is logged: the customer must not notice."""
    try:
        with runtime.engine.begin() as connection:
            body = orjson.dumps(asdict(fetch))
            put_inbox(connection, TRACKING, uuid4().hex, body, headers={})
        nudge()
    except Exception:  # noqa: BLE001 (the answer has gone out already)
        _log.warning("fetch_not_kept", kind=fetch.event, exc_info=True)


def fetched(claims: Claims, event: EventType, agent: str, ip: str, method: str) -> Fetch:
    """The note of a fetch that `claims` allowed."""
    index = THE_PAGE if claims.purpose is Purpose.MESSAGE else claims.index
    return Fetch(claims.id, event.value, index, agent[:AGENT_KEPT], ip, method)


def _message(runtime: Runtime, delivery_id: int) -> tuple[Linked, dict[str, object]]:
    with runtime.engine.begin() as connection:
        linked = message_of(connection, delivery_id)
    if linked is None:
        raise NoSuchLink("the message is gone")
    documents = runtime.words.load(runtime.engine, [linked.content_id])
    document = documents.get(linked.content_id)
    if document is None:
        raise NoSuchLink("the content is gone")
    return linked, document
