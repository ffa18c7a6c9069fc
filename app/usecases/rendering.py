"""Rendering: claimed deliveries become messages, from skeletons compiled once per content."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from app.channels.contract import Message
from app.channels.registry import Account
from app.content.chat import compile_chat
from app.content.headers import mail_date
from app.content.mail import SenderIdentity, compile_email
from app.content.message import Personal, Skeleton
from app.content.problem import ContentRefused
from app.content.text import compile_text
from app.domain.tokens import Links
from app.domain.vocabulary import Channel, Kind
from app.store.catalog import Catalog, Sender
from app.store.deliveries import Claimed
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)
IDENTITY = {Channel.EMAIL: "email", Channel.SMS: "phone", Channel.CHAT: "chat"}
"""The sender's setting that says who speaks on a channel; others use its name."""


@dataclass(frozen=True, slots=True)
class Unsayable:
    """A delivery that cannot be rendered; `code` is kept as the reason."""

    code: str


def render(
    runtime: Runtime, catalog: Catalog, account: Account, claimed: Sequence[Claimed]
) -> list[Message | Unsayable]:
    """Render a batch for one account, in order; what cannot be said does not stop the others."""
    documents = runtime.words.load(runtime.engine, {one.content_id for one in claimed})
    date = mail_date(claimed[0].claimed_at)
    links: dict[Any, Links] = {}
    rendered: list[Message | Unsayable] = []
    for one in claimed:
        sender = catalog.senders_by_id[one.sender_id]
        link = links.get(one.expires_at)
        if link is None:
            words = runtime.words
            link = links[one.expires_at] = Links(words.public_url, words.signer, one.expires_at)
        try:
            skeleton = _skeleton(runtime, account.channel, sender, one, documents[one.content_id])
            body = skeleton.render(
                Personal(one.id, one.data, link, one.address, one.customer_name, date)
            )
        except ContentRefused as refused:
            _log.warning("unsayable", delivery=one.id, field=refused.problem.field)
            rendered.append(Unsayable(f"content_{refused.problem.field}"))
            continue
        rendered.append(
            Message(
                delivery_id=one.id,
                idempotency_key=f"converge-{one.id}",
                recipient=one.address,
                sender=speaker(sender, account.channel),
                body=body,
                service=one.service,
            )
        )
    return rendered


def speaker(sender: Sender, channel: Channel) -> str:
    """Who speaks on a channel: an address, a number, an identity."""
    return sender.settings.get(IDENTITY.get(channel, "name")) or sender.name


def _skeleton(
    runtime: Runtime, channel: Channel, sender: Sender, one: Claimed, document: dict[str, Any]
) -> Skeleton[Any]:
    tracking = sender.settings.get("tracking", "all")
    identity = speaker(sender, channel)
    name = sender.settings.get("name") or sender.name
    locale = one.locale or "en"
    key = (one.content_id, channel, identity, name, tracking, locale, one.kind)

    def compiled() -> Skeleton[Any]:
        if channel is Channel.EMAIL:
            return compile_email(
                document,
                SenderIdentity(name, identity),
                tracking=tracking,
                locale=locale,
                automatic=one.kind != Kind.CONVERSATIONAL,
            )
        if channel is Channel.SMS:
            return compile_text(document, tracking=tracking)
        return compile_chat(document, tracking=tracking, channel=channel)

    skeleton: Skeleton[Any] = runtime.words.skeletons.get(key, compiled)
    return skeleton
