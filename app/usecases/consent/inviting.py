"""Links to the preference centre with all rights: made for the brand, or sent to the customer.

Messages have a link that may choose alone, for they are passed on. One with all rights is good for
a short time, and goes to those who know the customer or to an address that is the customer's own.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from app.content.notices import notice
from app.domain.consent import Subject, standing
from app.domain.tokens import Links, Rights, expiry_at
from app.domain.vocabulary import Channel, DeliveryState, Kind
from app.store import audit
from app.store.catalog import Sender
from app.store.intents import ledger_now
from app.store.optouts import Holder
from app.store.pauses import pauses_in_force
from app.store.reports import deliveries_of
from app.store.wishes import Address
from app.usecases.consent.picture import Picture, take_picture
from app.usecases.consent.voices import Voice, Whom, find
from app.usecases.delivering.accounts import Chooser, hint_urgent
from app.usecases.hearing.answering import NAMESPACE, Answer, answer
from app.usecases.runtime import Runtime
from converge_producer import intent_id

LASTS_H: Final = 1
MOST_H: Final = 24
"""Hours for which a link with all rights is good, and the most that may be asked for."""
_LOST: Final = frozenset((DeliveryState.FAILED, DeliveryState.CANCELLED, DeliveryState.EXPIRED))
_NO_TOPIC: Final = 0
"""The link is about nothing that the brand declares."""
_BY_SELF: Final = Voice("preferences", own=True, actor="customer")


def make_link(
    runtime: Runtime, whom: Whom, *, actor: str, reason: str = "", hours: int = LASTS_H
) -> dict[str, Any]:
    """Make a link with all rights for a customer: `{"url", "expires_at"}`; it is audited.

    `hours` end with a minute. Raises `NoSuchCustomer`.
    """
    with runtime.engine.begin() as connection:
        person = find(connection, whom)
        audit.note(
            connection,
            actor=actor,
            action="preferences.link",
            subject={"customer": person.id, "hours": hours},
            reason=reason,
        )
    expires_at = datetime.now(UTC) + timedelta(hours=hours)
    return {"url": _url(runtime, person.id, expires_at), "expires_at": expiry_at(expires_at)}


def ways_of_link(runtime: Runtime, picture: Picture) -> Sequence[Address]:
    """The addresses of a customer to which a link may be sent: a necessary message may go there."""
    sender = _sender(picture)
    if sender is None:
        return []
    channels = runtime.channels(test=picture.person.test)
    return [
        one
        for one in picture.addresses
        if one.state == "active" and one.channel in channels and _may(picture, sender, one)
    ]


def send_link(runtime: Runtime, customer_id: int, endpoint_id: int) -> bool:
    """Send a link with all rights to an address of a customer, once an hour at most; once more
    where the first ended before it was handed over.

    False where it cannot go there now, or did neither time. Raises `NoSuchCustomer`.
    """
    health = runtime.health.health(list(runtime.accounts), datetime.now(UTC))
    with runtime.engine.begin() as connection:
        picture = take_picture(connection, runtime, find(connection, customer_id, _BY_SELF))
        address = next((a for a in ways_of_link(runtime, picture) if a.id == endpoint_id), None)
        sender = _sender(picture)
        if address is None or sender is None:
            return False
        chooser = Chooser(runtime, connection, health, pauses_in_force(connection))
        account = chooser.choose(address.channel, test=picture.person.test).account
        if not account:
            return False
        person, now = picture.person, ledger_now(connection)
        holder = Holder(
            person.brand_id, person.id, address.id, address.channel, True, person.locale
        )
        name = f"link:{address.id}:{int(now.timestamp()) // 3600}"
        text = notice(
            "link",
            person.locale or picture.brand.default_locale,
            brand=str(picture.brand.settings.get("title") or picture.brand.name),
            link=_url(runtime, person.id, now + timedelta(hours=LASTS_H)),
        )
        test = runtime.accounts[account].sandbox
        for key in (name, f"{name}:again"):
            one = Answer(holder, sender.id, account, key, key, text, now)
            number = answer(runtime, connection, one)
            given = intent_id(picture.brand.name, sender.name, f"{NAMESPACE}:{key}", test=test)
            if number is not None or not _is_lost(connection, given):
                break
        else:
            return False
    if number is not None:
        hint_urgent(runtime, {(address.channel.value, account): [number]}, now)
    return True


def _is_lost(connection: Connection, given: UUID) -> bool:
    """Whether an answer that was given before ended without being handed over to anybody."""
    return all(
        one["state"] in _LOST and one["handed_over_at"] is None
        for one in deliveries_of(connection, [given])
    )


def _url(runtime: Runtime, customer_id: int, expires_at: datetime) -> str:
    words = runtime.words
    return Links(words.public_url, words.signer, expires_at).preferences(customer_id, Rights.FULL)


def _sender(picture: Picture) -> Sender | None:
    name = picture.brand.default_sender
    return picture.brand.senders.get(name) if name else None


def _may(picture: Picture, sender: Sender, address: Address) -> bool:
    if address.channel is Channel.EMAIL and not sender.settings.get("email"):
        return False
    subject = Subject(address.channel, address.id, sender.id, _NO_TOPIC, Kind.TRANSACTIONAL)
    return standing(picture.consents, subject, picture.now).allowed
