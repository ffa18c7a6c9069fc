"""Rendering: claimed deliveries become messages, from skeletons compiled once per content."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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

PREFERENCES_OPEN = timedelta(days=60)
"""How long the link to a customer's preferences leads there."""


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
        document = documents.get(one.content_id)
        if document is None:  # erased since it was claimed
            rendered.append(Unsayable("content_gone"))
            continue
        link = links.get(one.expires_at)
        if link is None:
            words = runtime.words
            link = links[one.expires_at] = Links(
                words.public_url,
                words.signer,
                one.expires_at,
                preferences_until=one.claimed_at + PREFERENCES_OPEN,
            )
        try:
            skeleton = _skeleton(runtime, account.channel, sender, one, document)
            body = skeleton.render(
                Personal(
                    one.id, one.data, link, one.address, one.customer_name, date, one.customer_id
                )
            )
        except ContentRefused as refused:
            _log.warning("unsayable", delivery=one.id, field=refused.problem.field)
            rendered.append(Unsayable(f"content_{refused.problem.field}"))
            continue
        except Exception as error:  # noqa: BLE001  # told by its kind alone
            # A fault of ours in one message must not keep the others from going out.
            _log.error("render_failed", delivery=one.id, exc_info=error)
            rendered.append(Unsayable("render_fault"))
            continue
        if body.size > account.traits.max_bytes:
            rendered.append(Unsayable("body_too_big"))
            continue
        rendered.append(
            Message(
                delivery_id=one.id,
                # Numbers begin anew with a ledger; what a vendor knows of the old one stays.
                idempotency_key=f"converge-{one.intent_id.hex}-{one.id}",
                recipient=one.address,
                sender=speaker(sender, account.channel),
                body=body,
                service=one.service,
            )
        )
    return rendered


def preferences_url(runtime: Runtime, customer_id: int, now: datetime) -> str:
    """The link to a customer's preferences that messages have: it chooses alone."""
    words = runtime.words
    return Links(words.public_url, words.signer, now + PREFERENCES_OPEN).preferences(customer_id)


def speaker(sender: Sender, channel: Channel) -> str:
    """Who speaks on a channel: an address, a number, an identity."""
    return sender.settings.get(IDENTITY.get(channel, "name")) or sender.name


def _skeleton(
    runtime: Runtime, channel: Channel, sender: Sender, one: Claimed, document: dict[str, Any]
) -> Skeleton[Any]:
    tracking = sender.settings.get("tracking", "all")
    identity = speaker(sender, channel)
    name = sender.settings.get("name") or sender.name
    reply_to = sender.settings.get("reply_to")
    locale = one.locale or "en"
    key = (one.content_id, channel, identity, name, reply_to, tracking, locale, one.kind)

    def compiled() -> Skeleton[Any]:
        if channel is Channel.EMAIL:
            return compile_email(
                document,
                SenderIdentity(name, identity, reply_to),
                tracking=tracking,
                locale=locale,
                automatic=one.kind != Kind.CONVERSATIONAL,
                unsubscribe=one.kind != Kind.TRANSACTIONAL,
            )
        if channel is Channel.SMS:
            return compile_text(document, tracking=tracking)
        return compile_chat(document, tracking=tracking, channel=channel)

    skeleton: Skeleton[Any] = runtime.words.skeletons.get(key, compiled)
    return skeleton
