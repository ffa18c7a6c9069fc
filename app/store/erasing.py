"""Erasing one person: wherever the ledger holds their words, names and addresses, they go.

What is counted stays: intents, deliveries, attempts, events and decisions, of nobody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from app.domain.vocabulary import Channel
from app.store.addresses import same_address
from app.store.session import as_rows

ERASED = "(erased)"
"""Stands where something was erased from the middle of what stays."""


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """One address that a customer has or had; `shared`: and somebody else has or had it, too."""

    id: int
    channel: Channel
    service: str
    address: str
    shared: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table by their ids: those that were found, and whatever has come `beyond` an id."""

    ids: Sequence[int]
    beyond: int


def find_customer(connection: Connection, brand_id: int, ref: str, *, lock: bool) -> int | None:
    """Find a customer; with `lock`, so that nothing of theirs is added meanwhile."""
    found: int | None = connection.execute(
        text(f"""
            SELECT id FROM customers WHERE brand_id = :brand_id AND ref = :ref
            {"FOR UPDATE" if lock else ""}"""),  # noqa: S608  # one of two constants
        {"brand_id": brand_id, "ref": ref},
    ).scalar_one_or_none()
    return found


def name_of(connection: Connection, customer_id: int) -> str:
    """A customer's name, if any."""
    name: str | None = connection.execute(
        text("SELECT name FROM customers WHERE id = :id"), {"id": customer_id}
    ).scalar_one_or_none()
    return name or ""


def addresses_ever(connection: Connection, customer_id: int) -> list[HeldAddress]:
    """Every address that a customer has or had."""
    rows = connection.execute(
        text(f"""
            SELECT id, channel, service, address,
                   EXISTS (SELECT FROM brands b JOIN endpoints o ON o.brand_id = b.id
                            WHERE {same_address("o", "e.address")} AND o.customer_id <> :id)
              FROM endpoints e WHERE customer_id = :id"""),  # noqa: S608  # constants of ours
        {"id": customer_id},
    )
    return [HeldAddress(key, Channel(channel), *rest) for key, channel, *rest in rows]


def inbox_holding(connection: Connection, needles: Collection[str]) -> list[int]:
    """What in the inbox is not read and holds one of these; they are in lower case."""
    rows = connection.execute(
        text("""
            SELECT id FROM inbox
             WHERE (due_at IS NOT NULL OR due_at IS NULL AND problem IS NOT NULL)
               AND EXISTS (SELECT FROM unnest(CAST(:needles AS text[])) n
                            WHERE position(n IN lower(encode(body, 'escape'))) > 0)"""),
        {"needles": list(needles)},
    )
    return list(rows.scalars())


def forget_people(connection: Connection, customer_id: int) -> None:
    """Remove what is about a locked customer alone, but for the addresses and what they wrote."""
    for table in ("activity", "cap_counts", "consents"):
        connection.execute(
            text(f"DELETE FROM {table} WHERE customer_id = :id"),  # noqa: S608  # our own names
            {"id": customer_id},
        )


def intents_of(connection: Connection, customer_id: int) -> list[UUID]:
    """A locked customer's intents, locked as well."""
    rows = connection.execute(
        text("SELECT id FROM intents WHERE customer_id = :id ORDER BY id FOR UPDATE"),
        {"id": customer_id},
    )
    return list(rows.scalars())


def blank_intents(connection: Connection, ids: Collection[UUID]) -> list[int]:
    """Blank what intents said, and their keys; return the contents that they had."""
    rows = connection.execute(
        text("""
            WITH was AS (
                SELECT id, content_id FROM intents WHERE id = ANY(CAST(:ids AS uuid[])))
            UPDATE intents i SET data = '{}', key = '', content_id = 0
              FROM was WHERE i.id = was.id RETURNING was.content_id"""),
        {"ids": list(ids)},
    )
    return sorted({key for key in rows.scalars() if key})


def blank_traces(
    connection: Connection, intent_ids: Collection[UUID], needles: Collection[str]
) -> None:
    """Blank what providers said of intents, where it holds one of these."""
    values = {"ids": list(intent_ids), "needles": list(needles)}
    for statement in _TRACES:
        connection.execute(text(statement), values)


def _holds(column: str) -> str:
    return f"""EXISTS (SELECT FROM unnest(CAST(:needles AS text[])) n
                        WHERE position(n IN lower({column})) > 0)"""


# An event is known again by its name: under another name its fact could come twice.
_TRACES = (
    f"""
    UPDATE events SET detail = '{{}}',
           external_id = CASE WHEN {_holds("external_id")}
                              THEN 'erased:' || gen_random_uuid() ELSE external_id END,
           reason = CASE WHEN {_holds("reason")} THEN '' ELSE reason END
     WHERE intent_id = ANY(CAST(:ids AS uuid[]))
       AND (detail <> '{{}}' OR {_holds("external_id || ' ' || reason")})""",  # noqa: S608  # ours
    f"""
    UPDATE attempts a SET reason = NULL
      FROM deliveries d WHERE d.id = a.delivery_id AND d.intent_id = ANY(CAST(:ids AS uuid[]))
       AND {_holds("a.reason")}""",  # noqa: S608  # ours
    f"""
    UPDATE deliveries SET reason = NULL
     WHERE intent_id = ANY(CAST(:ids AS uuid[])) AND {_holds("reason")}""",  # noqa: S608  # ours
)


def blank_inbox(connection: Connection, needles: Collection[str]) -> None:
    """Blank what is left in the inbox that holds one of these."""
    ids = inbox_holding(connection, needles)
    connection.execute(
        text("""
            UPDATE inbox SET due_at = NULL, problem = NULL, body = '', headers = '{}'
             WHERE id = ANY(CAST(:ids AS bigint[]))"""),
        {"ids": ids},
    )


def remove_messages(
    connection: Connection, customer_id: int, addresses: Collection[HeldAddress]
) -> None:
    """Remove what a customer wrote, and what nobody is known to have written from an address that
    is theirs alone."""
    connection.execute(
        text("""
            DELETE FROM inbound_messages m WHERE customer_id = :id
                OR customer_id IS NULL AND from_address = ANY(CAST(:addresses AS text[]))"""),
        {"id": customer_id, "addresses": [one.address for one in addresses if not one.shared]},
    )


def span(connection: Connection, table: str) -> tuple[int, int]:
    """The first and the last id of the audit trail or of the refusals; (1, 0) of nothing."""
    row = connection.execute(
        text(f"SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM {table}"),  # noqa: S608  # ours
    ).one()
    return row[0], row[1]


_REFUSED = f"""
    coalesce(brand_id, :brand_id) = :brand_id
    AND (document->>'to' = :ref OR document->'to'->>'ref' = :ref
         OR {_holds("concat(key, ' ', document::text)")})"""


def refusals_of(
    connection: Connection,
    brand_id: int,
    ref: str,
    needles: Collection[str],
    ids: tuple[int, int],
) -> list[int]:
    """What was refused and was meant for a customer, or names one of their addresses; of the ids
    above the first one, up to the second."""
    rows = connection.execute(
        text(f"""
            SELECT id FROM refusals WHERE id > :above AND id <= :last
               AND (document IS NOT NULL OR key IS NOT NULL) AND {_REFUSED}"""),  # noqa: S608  # ours
        {
            "above": ids[0],
            "last": ids[1],
            "brand_id": brand_id,
            "ref": ref,
            "needles": list(needles),
        },
    )
    return list(rows.scalars())


def blank_refusals(
    connection: Connection,
    brand_id: int,
    ref: str,
    intent_ids: Collection[UUID],
    needles: Collection[str],
    within: Rows,
) -> None:
    """Blank what was refused and was meant for a customer, or names one of their addresses."""
    blank = "UPDATE refusals SET document = NULL, key = NULL WHERE"
    connection.execute(
        text(f"{blank} intent_id = ANY(CAST(:ids AS uuid[]))"), {"ids": list(intent_ids)}
    )
    connection.execute(
        text(f"{blank} (id = ANY(CAST(:ids AS bigint[])) OR id > :beyond) AND {_REFUSED}"),
        {
            "ids": list(within.ids),
            "beyond": within.beyond,
            "brand_id": brand_id,
            "ref": ref,
            "needles": list(needles),
        },
    )


_CHANGE = _holds("subject::text || ' ' || reason")


def changes_naming(
    connection: Connection, needles: Collection[str], ids: tuple[int, int]
) -> list[int]:
    """Changes that name one of these; of the ids above the first one, up to the second."""
    rows = connection.execute(
        text(f"SELECT id FROM audit WHERE id > :above AND id <= :last AND {_CHANGE}"),  # noqa: S608  # ours
        {"above": ids[0], "last": ids[1], "needles": list(needles)},
    )
    return list(rows.scalars())


def audit_naming(
    connection: Connection, needles: Collection[str], within: Rows
) -> list[dict[str, Any]]:
    """Changes that name one of these: `{"id", "subject", "reason"}`."""
    rows = connection.execute(
        text(f"""
            SELECT id, subject, reason FROM audit
             WHERE (id = ANY(CAST(:ids AS bigint[])) OR id > :beyond) AND {_CHANGE}
             ORDER BY id FOR UPDATE"""),  # noqa: S608  # ours
        {"ids": list(within.ids), "beyond": within.beyond, "needles": list(needles)},
    )
    return [dict(row) for row in rows.mappings()]


def rewrite_audit(connection: Connection, rows: Collection[Mapping[str, Any]]) -> None:
    """Rewrite changes: rows as `audit_naming` has them."""
    connection.execute(
        text("""
            UPDATE audit a SET subject = r.subject, reason = r.reason
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   id bigint, subject jsonb, reason text)
             WHERE a.id = r.id"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )


NOTES = (("pauses", "reason"), ("limits", "reason"), ("api_keys", "label"))
"""Where else operators write what they like: tables, and their columns."""


def notes_naming(
    connection: Connection, table: str, column: str, needles: Collection[str]
) -> list[dict[str, Any]]:
    """Rows of one of `NOTES` that name one of these: `{"id", "note"}`."""
    rows = connection.execute(
        text(f"""
            SELECT id, {column} AS note FROM {table}
             WHERE {_holds(column)} ORDER BY id FOR UPDATE"""),  # noqa: S608  # our own names
        {"needles": list(needles)},
    )
    return [dict(row) for row in rows.mappings()]


def rewrite_notes(
    connection: Connection, table: str, column: str, rows: Collection[Mapping[str, Any]]
) -> None:
    """Rewrite notes: rows as `notes_naming` has them."""
    connection.execute(
        text(f"""
            UPDATE {table} t SET {column} = r.note
              FROM json_to_recordset(CAST(:rows AS json)) AS r(id bigint, note text)
             WHERE t.id = r.id"""),  # noqa: S608  # our own names
        {"rows": as_rows(list(map(dict, rows)))},
    )


def remove_customer(connection: Connection, customer_id: int, *, history: bool) -> None:
    """Remove a locked customer with all addresses; with a history, the row stays, of nobody.

    Who was answered at one of them while no customer had it was the same person, for all we know.
    """
    named = {"id": customer_id}
    connection.execute(
        text(f"""
            DELETE FROM endpoints s USING endpoints e, customers c, customers nobody
             WHERE e.customer_id = :id AND c.id = :id
               AND nobody.brand_id = c.brand_id AND nobody.ref = '' AND s.brand_id = 0
               AND s.customer_id = nobody.id AND {same_address("s", "e.address")}"""),  # noqa: S608  # ours
        named,
    )
    connection.execute(text("DELETE FROM endpoints WHERE customer_id = :id"), named)
    if not history:
        connection.execute(text("DELETE FROM customers WHERE id = :id"), named)
        return
    connection.execute(
        text("""
            UPDATE customers SET ref = 'removed:' || gen_random_uuid(), name = NULL, locale = NULL,
                   timezone = NULL, timezone_own_at = NULL, attributes = '{}', wishes = '{}',
                   as_of = NULL, updated_at = now()
             WHERE id = :id"""),
        named,
    )
