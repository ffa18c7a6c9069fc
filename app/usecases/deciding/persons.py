"""Persons: customers as permission sees them, read in batches."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.domain.caps import remembered_s
from app.domain.permission import NOBODY, Person, Rules
from app.domain.vocabulary import Channel
from app.domain.wishes import Wishes
from app.store.catalog import Brand
from app.store.persons import PersonRow, phones_of, read_persons
from app.usecases.deciding.zones import zones_of


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one customer, and where they were active."""

    person: Person
    activity: Mapping[Channel, datetime]


STRANGER = Known(NOBODY, {})


def persons(
    connection: Connection,
    brand: Brand,
    customer_ids: Collection[int],
    *,
    marketing: bool,
    particular: Collection[int] | None = None,
) -> dict[int, Known]:
    """Read customers of a brand; `marketing` says whether any of it is for them.

    Those of whom nothing is known that could matter are left out: all but the `particular` ones,
    where the caller knows these, so that a batch with none of them costs nothing. Time zones are
    looked for only where quiet hours may bind.
    """
    lawful = marketing and brand.rules.marketing_quiet is not None
    counted_s = remembered_s(brand.rules.caps)
    everybody = lawful or counted_s > 0
    if not everybody and particular is not None:
        customer_ids = particular
    if not customer_ids:
        return {}
    rows = read_persons(connection, customer_ids, counted_s=counted_s, all_of_them=everybody)
    timed = {key for key, row in rows.items() if lawful or row.wishes.get("quiet")}
    unplaced = [key for key in timed if not rows[key].timezone]
    phones = phones_of(connection, unplaced) if unplaced else {}
    return {
        key: _known(row, brand.rules, phones.get(key, ()) if key in timed else None, brand.timezone)
        for key, row in rows.items()
    }


def _known(row: PersonRow, rules: Rules, phones: Collection[str] | None, fallback: str) -> Known:
    if phones is None and not row.consents and not row.wishes and not rules.caps:
        return Known(NOBODY, row.activity) if row.activity else STRANGER
    plausible = () if phones is None else zones_of(row.timezone, row.locale, phones, fallback)
    person = Person(
        consents=row.consents,
        wishes=Wishes.from_document(row.wishes) if row.wishes else NOBODY.wishes,
        zones=plausible[0] if plausible else (),
        surer=plausible[1:],
        counts=row.counts,
    )
    return Known(person, row.activity)
