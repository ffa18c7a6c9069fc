"""Who speaks of a customer's preferences, for whom, and what is wrong with what they say."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from app.domain.consent import Scope
from app.domain.reach import Reach
from app.store.catalog import Brand
from app.store.wishes import Individual, find_individual, read_individual
from app.usecases.consent.consents import Statement
from app.usecases.errors import FieldError
from converge_producer import InvalidIntent
from converge_producer.checks import Check, moment

ALL: Final = Reach()


class NoSuchCustomer(Exception):
    """There is no such customer, or not any more, or not for whoever asks."""


class BadPreference(FieldError):
    """What was said cannot be taken: `field` names the place, `reason` says the way out."""


class Overruled(BadPreference):
    """A yes of the brand alone, where the customer said no in person: that no stands."""


class UsedKey(BadPreference):
    """Something else was said under this key before."""


@dataclass(frozen=True, slots=True)
class Named:
    """A customer by the brand's ref, as far as whoever asks reaches."""

    brand_id: int
    ref: str
    reach: Reach = ALL


Whom: TypeAlias = Named | int
"""A customer, by the brand's ref or by the ledger's id."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Who says it, and by which way (`source`, see `Statement`).

    `own`: the customer in person. `reason` goes to the audit trail.
    """

    source: str
    own: bool
    actor: str
    evidence: str = ""
    reason: str = ""

    def says(self, person: Individual, scope: Scope, allow: bool, **more: Any) -> Statement:
        """A statement in this voice."""
        return Statement(
            person.id,
            scope,
            allow,
            self.source,
            own=self.own,
            actor=self.actor,
            **{"evidence": self.evidence, **more},
        )


def find(connection: Connection, whom: Whom, voice: Voice | None = None) -> Individual:
    """Find a customer; with a voice to change something, one change after the other.

    Raises `NoSuchCustomer`.
    """
    key: int | None = whom if isinstance(whom, int) else None
    if isinstance(whom, Named):
        key = find_individual(connection, whom.brand_id, whom.ref)
    person = None if key is None else read_individual(connection, key, lock=voice is not None)
    if person is None or not reach_of(whom).knows(test=person.test):
        raise NoSuchCustomer
    return person


def reach_of(whom: Whom) -> Reach:
    """How far whoever asks reaches."""
    return whom.reach if isinstance(whom, Named) else ALL


def checked(field: str, check: Check, value: Any) -> None:
    """Let the wire format's check look at a value; raises `BadPreference` that names `field`."""
    try:
        check(value)
    except InvalidIntent as error:
        told = error.under(field)
        raise BadPreference(told.field, told.reason) from error


def known(ids: Mapping[str, int], thing: str, name: str, field: str) -> int:
    """The id of a sender or topic by its name; raises `BadPreference` with those that there are."""
    if name not in ids:
        named = ", ".join(sorted(ids)) or "none"
        raise BadPreference(field, f"there is no such {thing}; known: {named}")
    return ids[name]


def sender_ids(brand: Brand) -> dict[str, int]:
    """The ids of a brand's senders by name."""
    return {name: sender.id for name, sender in brand.senders.items()}


def later(field: str, value: Any, now: datetime) -> datetime | None:
    """Read a time until which something holds, after `now`; None: for good."""
    if value is None:
        return None
    checked(field, moment, value)
    until = moment(value)
    if until <= now:
        raise BadPreference(field, "is over already; give a time that is to come, or null")
    return until
