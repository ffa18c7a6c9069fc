"""Customers and their endpoints."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.domain.decision import Reachable
from app.domain.vocabulary import Channel
from app.store.addresses import same_address
from app.store.session import as_rows, sql


class CustomerRow(NamedTuple):
    """What a decision needs of a customer: the usable endpoints, the best first.

    `particular`: whether something is known of them that permission asks for.
    """

    id: int
    locale: str | None
    particular: bool
    endpoints: tuple[Reachable, ...]


def find_customers(
    connection: Connection, brand_id: int, refs: Collection[str], *, test: bool | None = None
) -> dict[str, CustomerRow]:
    """Find customers by the brand's refs; unknown refs are left out.

    `test`: test customers alone, or live ones alone.
    """
    rows = connection.execute(
        sql("""
            SELECT c.ref, c.id, c.locale, c.particular OR c.wishes <> '{}', e.id, e.channel,
                   e.service
              FROM customers c
              LEFT JOIN endpoints e ON e.customer_id = c.id AND e.state = 'active'
             WHERE c.brand_id = :brand_id AND c.ref = ANY(CAST(:refs AS text[]))
               AND c.test = coalesce(CAST(:test AS boolean), c.test)
             ORDER BY c.id, e.verified_at IS NULL, e.id"""),
        {"brand_id": brand_id, "refs": list(refs), "test": test},
    )
    return _with_endpoints(rows)


def _with_endpoints(rows: Iterable[Any]) -> dict[str, CustomerRow]:
    heads: dict[str, tuple[int, str | None, bool]] = {}
    endpoints: dict[str, list[Reachable]] = {}
    for ref, customer_id, locale, particular, endpoint_id, channel, service in rows:
        if ref not in heads:
            heads[ref] = (customer_id, locale, particular)
            endpoints[ref] = []
        if endpoint_id is not None:
            endpoints[ref].append(Reachable(endpoint_id, _CHANNELS[channel], service))
    return {ref: CustomerRow(*head, tuple(endpoints[ref])) for ref, head in heads.items()}


_CHANNELS: Mapping[str, Channel] = {channel.value: channel for channel in Channel}


@dataclass(frozen=True, slots=True)
class Put:
    """What a row did: `changed` are the fields of a customer known before that are different now.

    An address is named by its channel, as in `given`.
    """

    id: int
    changed: frozenset[str] = frozenset()


def upsert_customers(
    connection: Connection,
    brand_id: int,
    rows: Collection[Mapping[str, Any]],
    *,
    test: bool = False,
) -> dict[str, Put]:
    """Create or change customers; say by ref what each row did. Those left out change nothing.

    A row is `{"ref", "given": [field, …], "as_of", name, locale, timezone, attributes,
    "endpoints": [{"channel", "service", "address"}, …]}`. Only fields named in `given` change
    (null removes); a channel named in `given` has just the endpoints listed. A row whose `as_of`
    is older than what the ledger knows changes nothing. What a customer said in person of addresses
    and time zone is changed by a newer `as_of` alone. A ref stands once in `rows`.

    `test` rows come from test keys: they change test customers alone. One whom a
    live row names becomes a live customer, whatever time the tests gave their facts.
    """
    ordered = sorted(rows, key=lambda row: str(row["ref"]))
    parameters = {
        "brand_id": brand_id,
        "rows": as_rows([dict(row) for row in ordered]),
        "test": test,
    }
    ids = {row.ref: row.id for row in connection.execute(text(_INSERT_NEW), parameters)}
    changed: dict[int, set[str]] = {}
    if len(ids) < len(ordered):
        # A statement of its own, so that it sees whom another transaction has just created.
        for row in connection.execute(text(_UPDATE_KNOWN), parameters):
            if row.ref not in ids:
                ids[row.ref] = row.id
                changed[row.id] = set(row.changed)
    for customer_id, channel in _set_endpoints(connection, brand_id, ids, ordered):
        if customer_id in changed:
            changed[customer_id].add(channel)
    return {ref: Put(key, frozenset(changed.get(key, ()))) for ref, key in ids.items()}


_INSERT_NEW = """
    INSERT INTO customers (brand_id, ref, name, locale, timezone, attributes, as_of, test)
    SELECT :brand_id, ref, name, locale, timezone, coalesce(attributes, '{}'), as_of, :test
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           ref text, as_of timestamptz, name text, locale text, timezone text, attributes jsonb)
     ORDER BY ref
    ON CONFLICT (brand_id, ref) DO NOTHING
    RETURNING id, ref"""

# Whoever is told what is known already is not written again. What was known is read under the lock,
# which lets those by who only name a customer: intents, messages.
_UPDATE_KNOWN = """
    WITH known AS MATERIALIZED (
        SELECT c AS was, r AS told, r.given,
               r.given @> '["timezone"]'
               AND (c.timezone_own_at IS NULL OR c.timezone_own_at < r.as_of) AS moves
          FROM customers c
          JOIN json_to_recordset(CAST(:rows AS json)) AS r(
               ref text, given jsonb, as_of timestamptz, name text, locale text, timezone text,
               attributes jsonb)
            ON c.brand_id = :brand_id AND c.ref = r.ref
         WHERE c.test > :test
            OR c.test = :test AND (r.as_of IS NULL OR c.as_of IS NULL OR r.as_of >= c.as_of)
         ORDER BY c.ref FOR NO KEY UPDATE OF c
    ), wished AS (
        SELECT (was).id,
               CASE WHEN given @> '["name"]' THEN (told).name ELSE (was).name END AS name,
               CASE WHEN given @> '["locale"]' THEN (told).locale ELSE (was).locale END AS locale,
               CASE WHEN moves THEN (told).timezone ELSE (was).timezone END AS timezone,
               CASE WHEN moves THEN NULL ELSE (was).timezone_own_at END AS timezone_own_at,
               CASE WHEN given @> '["attributes"]' THEN coalesce((told).attributes, '{}')
                    ELSE (was).attributes END AS attributes,
               CASE WHEN (was).test > :test THEN (told).as_of
                    ELSE greatest((told).as_of, (was).as_of) END AS as_of,
               (was).test AND :test AS test
          FROM known
    ), changed AS (
        UPDATE customers c SET name = w.name, locale = w.locale, timezone = w.timezone,
               timezone_own_at = w.timezone_own_at, attributes = w.attributes, as_of = w.as_of,
               test = w.test, updated_at = now()
          FROM wished w WHERE c.id = w.id
           AND (c.name, c.locale, c.timezone, c.attributes, c.as_of, c.test) IS DISTINCT FROM
               (w.name, w.locale, w.timezone, w.attributes, w.as_of, w.test)
    )
    SELECT w.id, (was).ref, array_remove(ARRAY[
               CASE WHEN (was).name IS DISTINCT FROM w.name THEN 'name' END,
               CASE WHEN (was).locale IS DISTINCT FROM w.locale THEN 'locale' END,
               CASE WHEN (was).timezone IS DISTINCT FROM w.timezone THEN 'timezone' END,
               CASE WHEN (was).attributes IS DISTINCT FROM w.attributes THEN 'attributes' END],
               NULL) AS changed
      FROM known JOIN wished w ON w.id = (was).id"""


def _set_endpoints(
    connection: Connection,
    brand_id: int,
    ids: Mapping[str, int],
    rows: Collection[Mapping[str, Any]],
) -> list[tuple[int, str]]:
    """Whose addresses changed, and on which channel."""
    wanted = [
        {"customer_id": ids[row["ref"]], "as_of": row["as_of"], **endpoint}
        for row in rows
        if row["ref"] in ids
        for endpoint in row.get("endpoints", ())
    ]
    told = [
        {"customer_id": ids[row["ref"]], "as_of": row["as_of"], "channel": channel}
        for row in rows
        if row["ref"] in ids
        for channel in _CHANNELS
        if channel in row["given"]
    ]
    if not told:
        return []
    done = connection.execute(
        text(_SET_ENDPOINTS),
        {"brand_id": brand_id, "wanted": as_rows(wanted), "told": as_rows(told), "own": False},
    )
    return [(row[0], row[1]) for row in done]


# Whoever was given an address before has it no longer for sure: what they agreed to is not said of
# it any more (their noes stay). Those who are told of it at once share it. Lists of the brand are
# often older than what the customer said in person: only where they are known to be newer, they
# give back what was removed so, or take away what was given so. What somebody types says nothing
# of others before it is verified (`_VERIFY`). Many may share one, of whom most never said anything:
# those are not written. NOT IN is a hash whatever is expected (nothing here is null); NOT EXISTS
# compares all of them with all who are told where the planner expects one. What the customer has
# in other letters is what is wanted, and not one more.
_SET_ENDPOINTS = f"""
    WITH wanted AS MATERIALIZED (
        SELECT DISTINCT r.customer_id, r.channel, r.service, r.as_of, coalesce((
                   SELECT e.address FROM endpoints e
                    WHERE r.channel = 'email' AND e.customer_id = r.customer_id
                      AND e.channel = r.channel AND e.service = r.service
                      AND lower(e.address) = lower(r.address)
                    ORDER BY e.state = 'invalid' DESC, e.id LIMIT 1), r.address) AS address
          FROM json_to_recordset(CAST(:wanted AS json)) AS r(
               customer_id bigint, channel text, service text, address text, as_of timestamptz)
    ), told AS (
        SELECT * FROM json_to_recordset(CAST(:told AS json)) AS r(
            customer_id bigint, channel text, as_of timestamptz)
    ), removed AS (
        UPDATE endpoints e SET state = 'removed', own_at = NULL, updated_at = now()
          FROM told t
         WHERE e.customer_id = t.customer_id AND e.channel = t.channel AND e.state <> 'removed'
           AND (e.own_at IS NULL OR e.own_at < t.as_of OR e.state = 'invalid')
           AND (e.customer_id, e.channel, e.service, e.address) NOT IN
               (SELECT customer_id, channel, service, address FROM wanted)
        RETURNING e.customer_id, e.channel
    ), given AS (
        INSERT INTO endpoints AS e (customer_id, brand_id, channel, service, address, own_at)
        SELECT customer_id, :brand_id, channel, service, address,
               CASE WHEN CAST(:own AS boolean) THEN now() END
          FROM wanted w
         WHERE NOT EXISTS (SELECT FROM endpoints e WHERE e.customer_id = w.customer_id
               AND e.channel = w.channel AND e.service = w.service AND e.address = w.address
               AND e.state = 'removed' AND e.own_at >= coalesce(w.as_of, '-infinity'))
         ORDER BY customer_id, channel, service, address
        ON CONFLICT (customer_id, channel, service, address)
           DO UPDATE SET state = 'active', reason = NULL, updated_at = now(), given_at = now(),
                         verified_at = NULL, own_at = excluded.own_at
           WHERE e.state = 'removed'
        RETURNING customer_id, channel, service, address
    ), lost AS (
        UPDATE endpoints e SET given_at = now(), verified_at = NULL
          FROM given JOIN customers c ON c.id = given.customer_id, customers other
         WHERE NOT CAST(:own AS boolean)
           AND e.brand_id = :brand_id AND {same_address("e", "given.address")}
           AND e.channel = given.channel AND e.service = given.service AND e.state <> 'removed'
           AND other.id = e.customer_id AND other.test >= c.test
           AND (other.particular OR e.verified_at IS NOT NULL)
           AND (e.customer_id, e.channel) NOT IN
               (SELECT customer_id, channel FROM told
                 UNION ALL SELECT customer_id, channel FROM wanted)
    )
    SELECT customer_id, channel FROM removed UNION SELECT customer_id, channel FROM given"""  # noqa: S608  # constants of ours


def give_endpoints(
    connection: Connection,
    brand_id: int,
    customer_id: int,
    endpoints: Collection[Mapping[str, str]],
    *,
    own: bool,
) -> None:
    """Give a customer more addresses, as they said in person (`own`) or as the brand says of just
    this: `{"channel", "service", "address"}` each."""
    wanted = [
        {"customer_id": customer_id, "as_of": "infinity", **endpoint} for endpoint in endpoints
    ]
    connection.execute(
        text(_SET_ENDPOINTS),
        {"brand_id": brand_id, "wanted": as_rows(wanted), "told": as_rows([]), "own": own},
    )


def remove_endpoints(
    connection: Connection, customer_id: int, ids: Collection[int], *, own: bool
) -> None:
    """Take addresses from a customer (`own`: as they said in person); what was said stays."""
    connection.execute(
        text("""
            UPDATE endpoints SET state = 'removed', updated_at = now(),
                   own_at = CASE WHEN CAST(:own AS boolean) THEN now() END
             WHERE customer_id = :customer AND id = ANY(CAST(:ids AS bigint[]))"""),
        {"customer": customer_id, "ids": list(ids), "own": own},
    )


def verify_endpoints(
    connection: Connection, customer_id: int, verified: Mapping[int, bool]
) -> None:
    """Note of addresses whether they are known to be the customer's.

    What the customer gave in person is then no longer, for sure, who had it before.
    """
    connection.execute(
        text(_VERIFY),
        {
            "customer": customer_id,
            "ids": list(verified),
            "verified": list(verified.values()),
        },
    )


_VERIFY = f"""
    WITH mine AS (
        UPDATE endpoints e SET verified_at = CASE WHEN r.verified THEN now() END,
               updated_at = now()
          FROM unnest(CAST(:ids AS bigint[]), CAST(:verified AS boolean[])) AS r(id, verified)
         WHERE e.id = r.id AND e.customer_id = :customer
        RETURNING e.*
    )
    UPDATE endpoints e SET given_at = now(), verified_at = NULL
      FROM mine JOIN customers c ON c.id = mine.customer_id, customers other
     WHERE mine.verified_at IS NOT NULL AND mine.own_at IS NOT NULL
       AND e.brand_id = mine.brand_id AND {same_address("e", "mine.address")}
       AND e.channel = mine.channel AND e.service = mine.service AND e.id <> mine.id
       AND e.state <> 'removed'
       AND coalesce(e.verified_at, e.given_at) < mine.given_at
       AND other.id = e.customer_id AND other.test >= c.test"""  # noqa: S608  # constants of ours


def lock_endpoints(connection: Connection, ids: Collection[int]) -> None:
    """Lock endpoints, by id: before intents, as who corrects an address does."""
    connection.execute(
        text("""
            SELECT id FROM endpoints WHERE id = ANY(CAST(:ids AS bigint[]))
             ORDER BY id FOR NO KEY UPDATE"""),
        {"ids": list(ids)},
    )


def mark_endpoints_invalid(connection: Connection, reasons: Mapping[int, str]) -> None:
    """Note that endpoints cannot be reached, each with the reason that a provider gave."""
    connection.execute(
        text("""
            WITH mine AS MATERIALIZED (
                SELECT id FROM endpoints WHERE id = ANY(CAST(:ids AS bigint[]))
                   AND state = 'active' ORDER BY id FOR NO KEY UPDATE)
            UPDATE endpoints e SET state = 'invalid', reason = r.reason, updated_at = now()
              FROM mine JOIN unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[]))
                   AS r(id, reason) USING (id)
             WHERE e.id = mine.id"""),
        {"ids": list(reasons), "reasons": list(reasons.values())},
    )


def read_customer(connection: Connection, brand_id: int, ref: str) -> dict[str, Any] | None:
    """One customer with all endpoints in use or refused by a provider, addresses in full."""
    row = (
        connection.execute(
            text("""
                SELECT c.ref, c.name, c.locale, c.timezone, c.attributes, c.as_of, c.created_at,
                       c.updated_at, coalesce((
                           SELECT jsonb_agg(jsonb_build_object('channel', e.channel, 'service',
                                      e.service, 'address', e.address, 'state', e.state,
                                      'reason', e.reason) ORDER BY e.id)
                             FROM endpoints e
                            WHERE e.customer_id = c.id AND e.state <> 'removed'), '[]') AS endpoints
                  FROM customers c WHERE c.brand_id = :brand_id AND c.ref = :ref"""),
            {"brand_id": brand_id, "ref": ref},
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else dict(row)
