"""Noes that are no words: what a click, a complaint or a network says for a person."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from app.domain.consent import Scope
from app.domain.vocabulary import Kind
from app.store.catalog import Brand
from app.store.deliveries import Claimed
from app.store.events import Spoken
from app.usecases.consent.consents import Statement, say


class Way(StrEnum):
    """The ways by which a fact about a delivery is a no. As consents name their source."""

    ONE_CLICK = "one_click"
    COMPLAINT = "complaint"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class NoByFact:
    """A fact about a delivery that is a no; `name` names it, at its source."""

    way: Way
    name: str
    spoken: Spoken


def say_by_facts(
    connection: Connection, brands: Mapping[int, Brand], facts: Iterable[NoByFact]
) -> None:
    """Write down what facts say no to; a repeat of a fact says nothing new."""
    by_brand: dict[int, list[Statement]] = defaultdict(list)
    for fact in facts:
        by_brand[fact.spoken.brand_id] += [
            Statement(
                customer_id=fact.spoken.customer_id,
                scope=scope,
                allow=False,
                source=fact.way.value,
                evidence=f"delivery {fact.spoken.id}",
                fact=f"{fact.name}:{place}" if place else fact.name,
            )
            for place, scope in enumerate(_scopes(brands.get(fact.spoken.brand_id), fact))
        ]
    _say_all(connection, by_brand)


def _scopes(brand: Brand | None, fact: NoByFact) -> list[Scope]:
    endpoint_id = fact.spoken.endpoint_id
    if fact.way is Way.PROVIDER:
        return [Scope(endpoint_id=endpoint_id)]
    if fact.way is Way.COMPLAINT:
        return [
            Scope(kind=Kind.MARKETING),
            Scope(endpoint_id=endpoint_id, kind=Kind.CONVERSATIONAL),
        ]
    return [one_click_scope(brand, fact.spoken)]


def one_click_scope(brand: Brand | None, spoken: Spoken) -> Scope:
    """What unsubscribing from a message says no to: its kind, from all of the brand or its sender.

    A transactional message carries no such link; where a vendor reports it all the same, it is
    marketing that is meant.
    """
    kind = Kind(spoken.kind)
    narrow = brand is not None and brand.settings.get("opt_out") == "sender"
    return Scope(
        sender_id=spoken.sender_id if narrow else None,
        kind=Kind.MARKETING if kind is Kind.TRANSACTIONAL else kind,
    )


def say_opted_out(connection: Connection, account: str, refused: Iterable[Claimed]) -> None:
    """Write down that a network keeps messages from people, as it said when it was given them."""
    by_brand: dict[int, list[Statement]] = defaultdict(list)
    for one in refused:
        by_brand[one.brand_id].append(
            Statement(
                customer_id=one.customer_id,
                scope=Scope(endpoint_id=one.endpoint_id),
                allow=False,
                source=Way.PROVIDER.value,
                evidence=f"delivery {one.id}",
                fact=f"{account}:{one.id}:{one.attempts}",
            )
        )
    _say_all(connection, by_brand)


def _say_all(connection: Connection, by_brand: Mapping[int, list[Statement]]) -> None:
    for brand_id, statements in sorted(by_brand.items()):
        say(connection, brand_id, statements)
