"""Unsubscribing with one click (RFC 8058): the link of a mail asks; posted to, it acts."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.domain.tokens import Purpose
from app.domain.vocabulary import EventType, Kind
from app.store import events
from app.store.consents import consents_of
from app.store.events import Spoken
from app.store.inbox import TRACKING
from app.store.links import message_of
from app.store.wishes import read_individual
from app.usecases.consent.noes import Way, one_click_scope
from app.usecases.delivering.rendering import preferences_url
from app.usecases.giving_way import again_if_undone
from app.usecases.hearing.feedback import record, tell_workers
from app.usecases.hearing.links import CustomerErased, NoSuchLink
from app.usecases.hearing.reading import Fact
from app.usecases.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """What a link unsubscribes from: `who` sends messages of this kind.

    `preferences` is the link to all that the customer can choose.
    """

    who: str
    kind: Kind
    locale: str
    preferences: str


def asked(runtime: Runtime, token: str, now: datetime) -> Unsubscription:
    """What a link would unsubscribe from; nothing is changed.

    Raises `BadToken`, `NoSuchLink`, and `CustomerErased` for a customer who was erased.
    """
    delivery_id = runtime.words.signer.read(token, Purpose.UNSUBSCRIBE, now).id
    with runtime.engine.begin() as connection:
        _, told = _found(runtime, connection, delivery_id, now)
    return told


@again_if_undone
def unsubscribe(runtime: Runtime, token: str, now: datetime) -> Unsubscription:
    """Unsubscribe, in effect when this returns; a repeat changes nothing. Raises like `asked`."""
    delivery_id = runtime.words.signer.read(token, Purpose.UNSUBSCRIBE, now).id
    with runtime.engine.begin() as connection:
        spoken, told = _found(runtime, connection, delivery_id, now)
        said = consents_of(connection, [spoken.customer_id]).get(spoken.customer_id, [])
        # A repeat says nothing new, unless they said yes to something in between.
        yeses = sum(one.allow for one in said)
        name = f"{delivery_id}:unsubscribed" + (f":{yeses}" if yeses else "")
        fact = Fact(TRACKING, name, spoken, EventType.UNSUBSCRIBED, now, no=Way.ONE_CLICK)
        done = record(runtime, connection, [fact])
    tell_workers(runtime, done)
    return told


def _found(
    runtime: Runtime, connection: Connection, delivery_id: int, now: datetime
) -> tuple[Spoken, Unsubscription]:
    spoken = events.find_by_id(connection, [delivery_id]).get(delivery_id)
    message = message_of(connection, delivery_id)
    if spoken is None or message is None:
        raise NoSuchLink("the message is gone")
    if read_individual(connection, spoken.customer_id) is None:
        raise CustomerErased("the customer was erased: nobody is left to be unsubscribed")
    catalog = runtime.catalog.knowing(senders=[spoken.sender_id], connection=connection)
    brand = catalog.brands_by_id[spoken.brand_id]
    sender = catalog.senders_by_id[spoken.sender_id]
    scope = one_click_scope(brand, spoken)
    brand_name = str(brand.settings.get("title") or brand.name)
    sender_name = str(sender.settings.get("name") or sender.name)
    return spoken, Unsubscription(
        who=brand_name if scope.sender_id is None else sender_name,
        kind=scope.kind or Kind.MARKETING,
        locale=message.locale or brand.default_locale,
        preferences=preferences_url(runtime, spoken.customer_id, now),
    )
