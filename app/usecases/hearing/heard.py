"""Heard: a word such as STOP in a message, and to whom it was said."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.opt_words import Said
from app.domain.vocabulary import Channel
from app.store.catalog import Brand
from app.store.events import Spoken
from app.usecases.delivering.rendering import speaker


@dataclass(frozen=True, slots=True)
class Heard:
    """A message in which a person said a word, and what it answers, if anything.

    `name` names the message; `answered` says that the network has answered it itself.
    """

    said: Said
    name: str
    account: str
    channel: Channel
    service: str
    address: str
    recipient: str
    at: datetime
    spoken: Spoken | None = None
    answered: bool = False


def concerned(brands: Mapping[int, Brand], one: Heard) -> list[int]:
    """The brands that a word speaks to: the one that it answers, else the one written to, else
    all."""
    if one.spoken is not None:
        return [one.spoken.brand_id]
    named = [brand.id for brand in brands.values() if identified(brand, one) is not None]
    return named or list(brands)


def identified(brand: Brand, one: Heard) -> int | None:
    """The sender of a brand who has the identity that a message was written to."""
    for sender in brand.senders.values():
        if one.recipient and speaker(sender, one.channel) == one.recipient:
            return sender.id
    return None
