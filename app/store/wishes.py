"""One customer as they are asked and shown by themselves: wishes, time zone and addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.domain.vocabulary import Channel


@dataclass(frozen=True, slots=True)
class Individual:
    """One customer; `test` says that they are there for test keys alone."""

    id: int
    brand_id: int
    ref: str
    locale: str | None
    timezone: str | None
    wishes: Mapping[str, Any]
    test: bool


@dataclass(frozen=True, slots=True)
class Address:
    """One address that a customer has, in use or refused by a provider (`state` invalid)."""

    id: int
    channel: Channel
    service: str
    address: str
    state: str
    reason: str | None
    verified_at: datetime | None


def find_individual(connection: Connection, brand_id: int, ref: str) -> int | None:
    """Find a customer by the brand's ref."""
    found: int | None = connection.execute(
        text("SELECT id FROM customers WHERE brand_id = :brand_id AND ref = :ref"),
        {"brand_id": brand_id, "ref": ref},
    ).scalar_one_or_none()
    return found


def read_individual(
    connection: Connection, customer_id: int, *, lock: bool = False
) -> Individual | None:
    """Read a customer who is there and was not removed.

    With `lock`, changes to one customer's preferences come one after the other; what refers to the
    customer may be added meanwhile.
    """
    row = connection.execute(
        text(f"""
            SELECT id, brand_id, ref, locale, timezone, wishes, test FROM customers
             WHERE id = :id AND ref !~ '^removed:[0-9a-f-]{{36}}$'
             {"FOR NO KEY UPDATE" if lock else ""}"""),  # noqa: S608  # one of two constants
        {"id": customer_id},
    ).one_or_none()
    return None if row is None else Individual(*row)


def addresses_of(connection: Connection, customer_id: int) -> list[Address]:
    """Every address that a customer has, the oldest first."""
    rows = connection.execute(
        text("""
            SELECT id, channel, service, address, state, reason, verified_at
              FROM endpoints WHERE customer_id = :id AND state <> 'removed' ORDER BY id"""),
        {"id": customer_id},
    )
    return [Address(key, Channel(channel), *rest) for key, channel, *rest in rows]


def addresses_by_id(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Addresses that statements speak of, those that were removed included."""
    rows = connection.execute(
        text("SELECT id, address FROM endpoints WHERE id = ANY(CAST(:ids AS bigint[]))"),
        {"ids": list(ids)},
    )
    return {row.id: row.address for row in rows}


def set_wishes(
    connection: Connection,
    customer_id: int,
    wishes: Mapping[str, Any],
    timezone: str | None,
    *,
    own: bool,
) -> None:
    """Write down what a customer wishes, and the time zone that they are in (`own`: as they said in
    person)."""
    connection.execute(
        text("""
            UPDATE customers SET wishes = CAST(:wishes AS jsonb), timezone = :timezone,
                   timezone_own_at = CASE WHEN timezone IS NOT DISTINCT FROM :timezone
                        THEN timezone_own_at WHEN CAST(:own AS boolean) THEN now() END,
                   updated_at = now() WHERE id = :id"""),
        {
            "id": customer_id,
            "wishes": orjson.dumps(dict(wishes)).decode(),
            "timezone": timezone,
            "own": own,
        },
    )


def facts_are_of_now(connection: Connection, customer_id: int) -> None:
    """Let no older facts about a customer overwrite those of now (`as_of`)."""
    connection.execute(
        text("UPDATE customers SET as_of = greatest(as_of, now()) WHERE id = :id"),
        {"id": customer_id},
    )
