"""Customers and their endpoints."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.domain.decision import Reachable
from app.domain.vocabulary import Channel
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """What a decision needs of a customer: the usable endpoints, the oldest first."""

    id: int
    locale: str | None
    endpoints: tuple[Reachable, ...]


def find_customers(
    connection: Connection, brand_id: int, refs: Collection[str]
) -> dict[str, CustomerRow]:
    """Find customers by the brand's refs; unknown refs are left out."""
    rows = connection.execute(
        text("""
            SELECT c.ref, c.id, c.locale, e.id AS endpoint_id, e.channel
              FROM customers c
              LEFT JOIN endpoints e ON e.customer_id = c.id AND e.state = 'active'
             WHERE c.brand_id = :brand_id AND c.ref = ANY(CAST(:refs AS text[]))
             ORDER BY c.id, e.id"""),
        {"brand_id": brand_id, "refs": list(refs)},
    )
    return _with_endpoints(rows)


def _with_endpoints(rows: Iterable[Any]) -> dict[str, CustomerRow]:
    heads: dict[str, tuple[int, str | None]] = {}
    endpoints: dict[str, list[Reachable]] = {}
    for ref, customer_id, locale, endpoint_id, channel in rows:
        if ref not in heads:
            heads[ref] = (customer_id, locale)
            endpoints[ref] = []
        if endpoint_id is not None:
            endpoints[ref].append(Reachable(endpoint_id, _CHANNELS[channel]))
    return {
        ref: CustomerRow(head[0], head[1], tuple(endpoints[ref])) for ref, head in heads.items()
    }


_CHANNELS: Mapping[str, Channel] = {channel.value: channel for channel in Channel}


def upsert_customers(
    connection: Connection,
    brand_id: int,
    rows: Collection[Mapping[str, Any]],
    *,
    test: bool = False,
) -> dict[str, bool]:
    """Create or change customers; say for each ref whether the row was applied.

    A row is `{"ref", "given": [field, …], "as_of", name, locale, timezone, attributes,
    "endpoints": [{"channel", "service", "address"}, …]}`. Only fields named in `given` change
    (null removes); a channel named in `given` has just the endpoints listed. A row whose `as_of`
    is older than what the ledger knows changes nothing. A ref stands once in `rows`.

    `test` rows come from rehearsals: they change nobody but the people of rehearsals. One whom a
    live row names becomes a live customer.
    """
    ordered = sorted(rows, key=lambda row: str(row["ref"]))
    parameters = {
        "brand_id": brand_id,
        "rows": as_rows([dict(row) for row in ordered]),
        "test": test,
    }
    ids = {row.ref: row.id for row in connection.execute(text(_INSERT_NEW), parameters)}
    if len(ids) < len(ordered):
        # A statement of its own, so that it sees whom another transaction has just created.
        ids |= {row.ref: row.id for row in connection.execute(text(_UPDATE_KNOWN), parameters)}
    _set_endpoints(connection, brand_id, ids, ordered)
    return {str(row["ref"]): row["ref"] in ids for row in ordered}


_INSERT_NEW = """
    INSERT INTO customers (brand_id, ref, name, locale, timezone, attributes, as_of, test)
    SELECT :brand_id, ref, name, locale, timezone, coalesce(attributes, '{}'), as_of, :test
      FROM json_to_recordset(CAST(:rows AS json)) AS r(
           ref text, as_of timestamptz, name text, locale text, timezone text, attributes jsonb)
     ORDER BY ref
    ON CONFLICT (brand_id, ref) DO NOTHING
    RETURNING id, ref"""

# Whoever is told what is known already is not written again. What was known is read under the lock.
_UPDATE_KNOWN = """
    WITH known AS MATERIALIZED (
        SELECT c AS was, r AS told, r.given
          FROM customers c
          JOIN json_to_recordset(CAST(:rows AS json)) AS r(
               ref text, given jsonb, as_of timestamptz, name text, locale text, timezone text,
               attributes jsonb)
            ON c.brand_id = :brand_id AND c.ref = r.ref
         WHERE (r.as_of IS NULL OR c.as_of IS NULL OR r.as_of >= c.as_of) AND c.test >= :test
         ORDER BY c.ref FOR UPDATE OF c
    ), wished AS (
        SELECT (was).id,
               CASE WHEN given @> '["name"]' THEN (told).name ELSE (was).name END AS name,
               CASE WHEN given @> '["locale"]' THEN (told).locale ELSE (was).locale END AS locale,
               CASE WHEN given @> '["timezone"]' THEN (told).timezone ELSE (was).timezone END
                    AS timezone,
               CASE WHEN given @> '["attributes"]' THEN coalesce((told).attributes, '{}')
                    ELSE (was).attributes END AS attributes,
               greatest((told).as_of, (was).as_of) AS as_of,
               (was).test AND :test AS test
          FROM known
    ), changed AS (
        UPDATE customers c SET name = w.name, locale = w.locale, timezone = w.timezone,
               attributes = w.attributes, as_of = w.as_of, test = w.test, updated_at = now()
          FROM wished w WHERE c.id = w.id
           AND (c.name, c.locale, c.timezone, c.attributes, c.as_of, c.test) IS DISTINCT FROM
               (w.name, w.locale, w.timezone, w.attributes, w.as_of, w.test)
    )
    SELECT (was).id, (was).ref FROM known"""


def _set_endpoints(
    connection: Connection,
    brand_id: int,
    ids: Mapping[str, int],
    rows: Collection[Mapping[str, Any]],
) -> None:
    wanted = [
        {"customer_id": ids[row["ref"]], **endpoint}
        for row in rows
        if row["ref"] in ids
        for endpoint in row.get("endpoints", ())
    ]
    told = [
        {"customer_id": ids[row["ref"]], "channel": channel}
        for row in rows
        if row["ref"] in ids
        for channel in _CHANNELS
        if channel in row["given"]
    ]
    if told:
        connection.execute(
            text(_SET_ENDPOINTS),
            {"brand_id": brand_id, "wanted": as_rows(wanted), "told": as_rows(told)},
        )


_SET_ENDPOINTS = """
    WITH wanted AS MATERIALIZED (
        SELECT DISTINCT * FROM json_to_recordset(CAST(:wanted AS json)) AS r(
            customer_id bigint, channel text, service text, address text)
    ), told AS (
        SELECT * FROM json_to_recordset(CAST(:told AS json)) AS r(
            customer_id bigint, channel text)
    ), removed AS (
        UPDATE endpoints e SET state = 'removed', updated_at = now()
          FROM told t
         WHERE e.customer_id = t.customer_id AND e.channel = t.channel AND e.state = 'active'
           AND NOT EXISTS (SELECT FROM wanted w WHERE w.customer_id = e.customer_id
               AND w.channel = e.channel AND w.service = e.service AND w.address = e.address)
    )
    INSERT INTO endpoints AS e (customer_id, brand_id, channel, service, address)
    SELECT customer_id, :brand_id, channel, service, address FROM wanted
     ORDER BY customer_id, channel, service, address
    ON CONFLICT (customer_id, channel, service, address)
       DO UPDATE SET state = 'active', reason = NULL, updated_at = now()
       WHERE e.state = 'removed'"""


def mark_endpoints_invalid(connection: Connection, reasons: Mapping[int, str]) -> None:
    """Note that endpoints cannot be reached, each with the reason that a provider gave."""
    connection.execute(
        text("""
            UPDATE endpoints e SET state = 'invalid', reason = r.reason, updated_at = now()
              FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS r(id, reason)
             WHERE e.id = r.id AND e.state = 'active'"""),
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


def lock_customer(connection: Connection, brand_id: int, ref: str) -> int | None:
    """Lock a customer, so that no intent of theirs is added meanwhile; return the id."""
    row = connection.execute(
        text("SELECT id FROM customers WHERE brand_id = :brand_id AND ref = :ref FOR UPDATE"),
        {"brand_id": brand_id, "ref": ref},
    ).one_or_none()
    return None if row is None else int(row.id)


def intents_of_customer(connection: Connection, customer_id: int) -> tuple[list[Any], bool]:
    """The ids of a customer's open intents, and whether there are any intents at all."""
    rows = connection.execute(
        text("SELECT id, state FROM intents WHERE customer_id = :id"), {"id": customer_id}
    ).all()
    return [row.id for row in rows if row.state == "open"], bool(rows)


def remove_customer(connection: Connection, customer_id: int, *, history: bool) -> None:
    """Remove a locked customer with all endpoints.

    With a history, the row stays under a name that says nothing, and what the intents said of the
    person is blanked: counts and reasons remain, the person does not.
    """
    named = {"id": customer_id}
    connection.execute(text("DELETE FROM endpoints WHERE customer_id = :id"), named)
    if not history:
        connection.execute(text("DELETE FROM customers WHERE id = :id"), named)
        return
    connection.execute(
        text("UPDATE intents SET data = '{}' WHERE customer_id = :id AND data <> '{}'"), named
    )
    connection.execute(
        text("""
            UPDATE customers SET ref = 'removed:' || gen_random_uuid(), name = NULL, locale = NULL,
                   timezone = NULL, attributes = '{}', as_of = NULL, updated_at = now()
             WHERE id = :id"""),
        named,
    )
