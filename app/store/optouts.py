"""Opting out: whose an address is, and addresses that said no while nobody had them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.domain.vocabulary import Channel, Kind
from app.store.addresses import same_address
from app.store.events import RECENT_INTENTS
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Holder:
    """A customer who has an address, or had it once; `test`: for test keys alone."""

    brand_id: int
    customer_id: int
    endpoint_id: int
    channel: Channel
    active: bool
    locale: str | None
    test: bool = False


def holders(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Holder]]:
    """Who has addresses, those first who have them now.

    A row is `{"n", "brand_ids", "channel", "service", "address"}`, where `n` is its place.
    """
    found: dict[int, list[Holder]] = {row["n"]: [] for row in rows}
    done = connection.execute(
        text(f"""
            SELECT r.n, e.brand_id, e.customer_id, e.id, e.channel, e.state = 'active', c.locale,
                   c.test
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   n int, brand_ids json, channel text, service text, address text)
             CROSS JOIN LATERAL (
                   SELECT value::int AS id FROM json_array_elements_text(r.brand_ids)) b
              JOIN endpoints e ON e.brand_id = b.id AND {same_address("e", "r.address")}
               AND e.channel = r.channel AND e.service = r.service
              JOIN customers c ON c.id = e.customer_id
             ORDER BY r.n, e.state = 'active' DESC, e.id"""),  # noqa: S608  # constants of ours
        {"rows": as_rows(list(map(dict, rows)))},
    )
    for n, brand_id, customer_id, endpoint_id, channel, *more in done:
        found[n].append(Holder(brand_id, customer_id, endpoint_id, Channel(channel), *more))
    return found


def last_speaker(connection: Connection, holder: Holder) -> int | None:
    """The sender of what was last handed over to a holder's address, however long ago."""
    sender_id: int | None = connection.execute(
        text("""
            SELECT d.sender_id
              FROM (SELECT id FROM intents WHERE customer_id = :customer
                     ORDER BY accepted_at DESC LIMIT :recent) i
              JOIN deliveries d ON d.intent_id = i.id AND d.endpoint_id = :endpoint
             WHERE d.handed_over_at IS NOT NULL
             ORDER BY d.handed_over_at DESC LIMIT 1"""),
        {
            "customer": holder.customer_id,
            "endpoint": holder.endpoint_id,
            "recent": RECENT_INTENTS,
        },
    ).scalar_one_or_none()
    return sender_id


def lock_people(connection: Connection, customer_ids: Collection[int]) -> list[str]:
    """Lock customers against others who would write down what they said; return the ids of their
    open intents, which are to be locked next.

    In the order in which accept locks them.
    """
    ids = {"ids": list(customer_ids)}
    connection.execute(
        text("""
            SELECT id FROM customers WHERE id = ANY(CAST(:ids AS bigint[]))
             ORDER BY brand_id, ref FOR NO KEY UPDATE"""),
        ids,
    )
    rows = connection.execute(
        text("""
            SELECT id FROM intents
             WHERE customer_id = ANY(CAST(:ids AS bigint[])) AND state = 'open'"""),
        ids,
    )
    return [str(row.id) for row in rows]


# Who gives addresses to customers and who keeps the no of an address must not miss each other. Any
# number of the first work at once; the second are rare, and alone. Taken before any row is locked.
_GATE = "hashtextextended('suppressions:' || CAST(:brand_id AS text), 0)"


def enter_gate(connection: Connection, brand_id: int) -> None:
    """From here to the end of the transaction no address of this brand becomes suppressed."""
    connection.execute(
        text(f"SELECT pg_advisory_xact_lock_shared({_GATE})"),
        {"brand_id": brand_id},
    )


def close_gates(connection: Connection, brand_ids: Collection[int]) -> None:
    """From here to the end of the transaction no customer of these brands is given an address."""
    connection.execute(
        text(f"""
            SELECT pg_advisory_xact_lock({_GATE.replace(":brand_id", "brand_id")})
              FROM unnest(CAST(:brand_ids AS int[])) AS b(brand_id)"""),  # noqa: S608  # a constant of ours
        {"brand_ids": sorted(brand_ids)},
    )


def suppress(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Keep hashes of addresses that said no; say whether anything was new.

    A row is `{"brand_id", "hash" (hex), "channel", "source"}`, "sender_id", "topic_id" and "kind"
    where it is not everything, "until" where it ends by itself, and "own" false where only the
    brand said so. Of two the one that lasts longer stays, as `lasting_noes` has it.
    """
    done = connection.execute(
        text("""
            INSERT INTO suppressions AS s (brand_id, hash, channel, sender_id, topic_id, kind,
                                           source, own, until)
            SELECT DISTINCT ON (brand_id, hash, sender_id, topic_id, kind)
                   brand_id, decode(hash, 'hex'), channel, sender_id, topic_id, kind, source,
                   coalesce(own, true), until
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   brand_id int, hash text, channel text, sender_id int, topic_id int, kind text,
                   source text, own boolean, until timestamptz)
             ORDER BY brand_id, hash, sender_id, topic_id, kind, until DESC NULLS FIRST,
                   coalesce(own, true) DESC
            ON CONFLICT (brand_id, hash, coalesce(sender_id, 0), coalesce(topic_id, 0),
                         coalesce(kind, ''))
            DO UPDATE SET own = s.own OR excluded.own,
                          source = CASE WHEN excluded.own THEN excluded.source ELSE s.source END,
                          until = nullif(greatest(coalesce(s.until, 'infinity'),
                                                  coalesce(excluded.until, 'infinity')), 'infinity')
             WHERE (excluded.own AND NOT s.own)
                OR s.until < coalesce(excluded.until, 'infinity')"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )
    return done.rowcount > 0


def forget_ended(connection: Connection, limit: int) -> int:
    """Forget noes that have ended by themselves; return how many."""
    done = connection.execute(
        text("""
            DELETE FROM suppressions WHERE ctid IN (
                SELECT ctid FROM suppressions WHERE until <= now()
                 LIMIT :limit FOR UPDATE SKIP LOCKED)"""),
        {"limit": limit},
    )
    return done.rowcount


def lift(connection: Connection, brand_ids: Collection[int], hashes: Collection[bytes]) -> bool:
    """Forget the hashes of an address that says yes again; say whether there were any.

    A no to a kind or a topic stays: that yes is none to marketing.
    """
    done = connection.execute(
        text("""
            DELETE FROM suppressions WHERE brand_id = ANY(CAST(:brand_ids AS int[]))
               AND hash = ANY(CAST(:hashes AS bytea[])) AND kind IS NULL AND topic_id IS NULL"""),
        {"brand_ids": list(brand_ids), "hashes": list(hashes)},
    )
    return done.rowcount > 0


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint that this transaction has given to a customer."""

    id: int
    customer_id: int
    channel: str
    service: str
    address: str
    given_at: datetime


def new_endpoints(
    connection: Connection, brand_id: int, refs: Collection[str]
) -> list[NewEndpoint]:
    """The endpoints that this transaction gave to customers, for the first time or again; none
    where nothing is suppressed and nobody who said anything had them before.

    Who had one all along, and was told apart from who has it now (`given_at` alone), is given none.
    """
    rows = connection.execute(
        text(f"""
            SELECT e.id, e.customer_id, e.channel, e.service, e.address, e.given_at
              FROM customers c JOIN endpoints e ON e.customer_id = c.id
             WHERE c.brand_id = :brand_id AND c.ref = ANY(CAST(:refs AS text[]))
               AND e.given_at = now() AND e.updated_at = now() AND e.state = 'active'
               AND (EXISTS (SELECT FROM suppressions s WHERE s.brand_id = :brand_id)
                    OR EXISTS (SELECT {_OTHERS}))"""),  # noqa: S608  # a constant of ours
        {"brand_id": brand_id, "refs": list(refs)},
    )
    return [NewEndpoint(*row) for row in rows]


# Who else has an address, or had it, and ever said anything; test customers are among themselves.
_OTHERS = f"""
    FROM endpoints o JOIN customers h ON h.id = o.customer_id
   WHERE o.brand_id = e.brand_id AND {same_address("o", "e.address")}
     AND o.channel = e.channel AND o.service = e.service
     AND o.id <> e.id AND h.particular AND h.test = c.test"""


def others_with(connection: Connection, ids: Collection[int]) -> list[tuple[int, int, int]]:
    """Who else has the addresses of endpoints, or had them, and ever said anything: the endpoint
    asked about, and the other's endpoint and customer."""
    rows = connection.execute(
        text(f"""
            SELECT e.id, other.id, other.customer_id
              FROM endpoints e JOIN customers c ON c.id = e.customer_id
             CROSS JOIN LATERAL (SELECT o.id, o.customer_id {_OTHERS}) other
             WHERE e.id = ANY(CAST(:ids AS bigint[]))
             ORDER BY e.id, other.id"""),  # noqa: S608  # a constant of ours
        {"ids": list(ids)},
    )
    return [(row[0], row[1], row[2]) for row in rows]


@dataclass(frozen=True, slots=True)
class Suppressed:
    """The no of an address: to what (None: everything), by which way it came in, whether the
    person said it (`own`) or only the brand, and until when (None: for good)."""

    sender_id: int | None
    topic_id: int | None
    kind: Kind | None
    source: str
    own: bool
    until: datetime | None


def suppressed(
    connection: Connection, brand_id: int, hashes: Collection[bytes]
) -> dict[bytes, list[Suppressed]]:
    """Those of the hashes that said no, and whose no has not ended."""
    rows = connection.execute(
        text("""
            SELECT hash, sender_id, topic_id, kind, source, own, until FROM suppressions
             WHERE brand_id = :brand_id AND hash = ANY(CAST(:hashes AS bytea[]))
               AND coalesce(until > now(), true)"""),
        {"brand_id": brand_id, "hashes": list(hashes)},
    )
    found: dict[bytes, list[Suppressed]] = {}
    for key, sender_id, topic_id, kind, *how in rows:
        no = Suppressed(sender_id, topic_id, Kind(kind) if kind else None, *how)
        found.setdefault(bytes(key), []).append(no)
    return found
