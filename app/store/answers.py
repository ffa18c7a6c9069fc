"""What answers to words such as STOP need in the ledger, beside what brands declare.

Names in parentheses can be declared by nobody; and as neither is current, no intent can use them.

Answers to an address that no customer has are of nobody: of a row whose ref no document can give.
Its endpoints belong to no brand, so that no search by address finds them, and are kept for a day.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import orjson
from sqlalchemy import Connection, text

from app.domain.vocabulary import Channel

NAME: Final = "(answers)"
VALID_S: Final = 300
"""A confirmation is to come within five minutes (47 CFR 64.1200(a)(12)); later it stays away."""
NOBODY: Final = ""
"""The ref of the row that stands for whoever is no customer of a brand."""
NO_BRAND: Final = 0
LEAST_GAP_S: Final = 60
GROWTH: Final = 3
"""Each gap between answers to one stranger is so many times as long as all that went before: two
machines that answer each other come to seven answers a day."""


def answers_topic(connection: Connection, brand_id: int) -> int:
    """The id of the topic that a brand's answers have."""
    return _there(
        connection,
        "SELECT id FROM topics WHERE brand_id = :brand_id AND name = :name",
        """
        INSERT INTO topics (brand_id, name, title, retired)
        VALUES (:brand_id, :name, 'Answers to words such as STOP', true)
        ON CONFLICT (brand_id, name) DO NOTHING""",
        {"brand_id": brand_id, "name": NAME},
    )


def _there(connection: Connection, find: str, create: str, named: Mapping[str, Any]) -> int:
    """The id of what is nearly always there. To try to create it each time would use a number up
    each time, and these are small."""
    found: int | None = connection.execute(text(find), named).scalar_one_or_none()
    if found is None:
        connection.execute(text(create), named)
        found = connection.execute(text(find), named).scalar_one()
    return found


def answers_policy(connection: Connection, channel: Channel) -> int:
    """The id of the policy of answers on a channel: there, now, or not at all."""
    document = {
        "name": NAME,
        "expires_after_s": VALID_S,
        "seen_at": "delivered",
        "steps": [{"channels": [channel.value], "unless_seen_within_s": None}],
    }
    body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    key = {"name": NAME, "hash": blake2b(body, digest_size=16).digest()}
    return _there(
        connection,
        "SELECT id FROM policies WHERE name = :name AND hash = :hash",
        """
        INSERT INTO policies (name, hash, document, current)
        VALUES (:name, :hash, CAST(:document AS jsonb), false)
        ON CONFLICT (name, hash) DO NOTHING""",
        {**key, "document": body.decode()},
    )


def nobody(connection: Connection, brand_id: int) -> int:
    """The id of the row that answers to strangers belong to: there, or now."""
    return _there(
        connection,
        "SELECT id FROM customers WHERE brand_id = :brand_id AND ref = :ref",
        """
        INSERT INTO customers (brand_id, ref) VALUES (:brand_id, :ref)
        ON CONFLICT (brand_id, ref) DO NOTHING""",
        {"brand_id": brand_id, "ref": NOBODY},
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """That a stranger may be answered: on which endpoint, and from when on (None: now)."""

    endpoint_id: int
    due: datetime | None


def take_turn(
    connection: Connection,
    nobody_id: int,
    *,
    channel: Channel,
    service: str,
    address: str,
    patience_s: float,
) -> Turn | None:
    """Take a stranger's next turn to be answered, if it comes within `patience_s` seconds.

    Of several strangers in one transaction in the order of their addresses.
    """
    row = connection.execute(
        text("""
            INSERT INTO endpoints AS e (customer_id, brand_id, channel, service, address)
            VALUES (:nobody, :no_brand, :channel, :service, :address)
            ON CONFLICT (customer_id, channel, service, address) DO UPDATE
               SET updated_at = greatest(now(), e.updated_at + greatest(
                       make_interval(secs => :gap), :growth * (e.updated_at - e.created_at)))
             WHERE e.state = 'active'
               AND e.updated_at + greatest(
                       make_interval(secs => :gap), :growth * (e.updated_at - e.created_at))
                   <= now() + make_interval(secs => :patience)
            RETURNING id, CASE WHEN updated_at > now() THEN updated_at END"""),
        {
            "nobody": nobody_id,
            "no_brand": NO_BRAND,
            "channel": channel.value,
            "service": service,
            "address": address,
            "gap": LEAST_GAP_S,
            "growth": GROWTH,
            "patience": patience_s,
        },
    ).one_or_none()
    return None if row is None else Turn(row[0], row[1])


def forget_strangers(connection: Connection, after_s: float, limit: int) -> int:
    """Forget addresses of strangers that were not answered for so long; return how many."""
    done = connection.execute(
        text("""
            DELETE FROM endpoints WHERE id IN (
                SELECT id FROM endpoints
                 WHERE brand_id = :no_brand AND updated_at < now() - make_interval(secs => :after)
                 LIMIT :limit FOR UPDATE SKIP LOCKED)"""),
        {"no_brand": NO_BRAND, "after": after_s, "limit": limit},
    )
    return done.rowcount
