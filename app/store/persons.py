"""What permission asks of customers: their word, their wishes, and what they were sent lately."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.consent import Consent
from app.domain.vocabulary import Channel
from app.store.consents import consents_of
from app.store.session import as_rows, sql

Counts = Mapping[str, Mapping[datetime, int]]


@dataclass(frozen=True, slots=True)
class PersonRow:
    """One customer. `counts` are messages by cap and slot; `activity` the last on each channel."""

    consents: Sequence[Consent] = ()
    wishes: Mapping[str, Any] = field(default_factory=dict)
    timezone: str | None = None
    locale: str | None = None
    activity: Mapping[Channel, datetime] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)


def read_persons(
    connection: Connection, customer_ids: Collection[int], *, counted_s: float, all_of_them: bool
) -> dict[int, PersonRow]:
    """Read customers of whom something is known, or `all_of_them`, with their counts of the last
    `counted_s` seconds (0: without)."""
    heads = {
        row.id: row
        for row in connection.execute(
            sql("""
                SELECT id, wishes, timezone, locale FROM customers
                 WHERE id = ANY(CAST(:ids AS bigint[]))
                   AND (particular OR wishes <> '{}' OR :all)"""),
            {"ids": list(customer_ids), "all": all_of_them},
        )
    }
    if not heads:
        return {}
    consents = consents_of(connection, heads)
    activity: dict[int, dict[Channel, datetime]] = defaultdict(dict)
    for customer_id, channel, at in connection.execute(sql(_ACTIVITY), {"ids": list(heads)}):
        activity[customer_id][Channel(channel)] = at
    counts = cap_counts(connection, heads, counted_s) if counted_s else {}
    return {
        key: PersonRow(
            consents.get(key, ()),
            row.wishes,
            row.timezone,
            row.locale,
            activity.get(key, {}),
            counts.get(key, {}),
        )
        for key, row in heads.items()
    }


_ACTIVITY = """
    SELECT customer_id, channel, at FROM activity
     WHERE customer_id = ANY(CAST(:ids AS bigint[]))"""


def phones_of(connection: Connection, customer_ids: Collection[int]) -> dict[int, list[str]]:
    """The phone numbers of customers: they tell where somebody may be."""
    rows = connection.execute(
        sql("""
            SELECT customer_id, address FROM endpoints
             WHERE customer_id = ANY(CAST(:ids AS bigint[])) AND channel = 'sms'
               AND state = 'active' ORDER BY id"""),
        {"ids": list(customer_ids)},
    )
    found: dict[int, list[str]] = defaultdict(list)
    for customer_id, address in rows:
        found[customer_id].append(address)
    return dict(found)


def cap_counts(
    connection: Connection, customer_ids: Collection[int], within_s: float
) -> dict[int, Counts]:
    """How many messages customers were sent within the last `within_s` seconds, by cap and slot."""
    rows = connection.execute(
        sql("""
            SELECT customer_id, cap, slot, n FROM cap_counts
             WHERE customer_id = ANY(CAST(:ids AS bigint[]))
               AND slot >= now() - make_interval(secs => :within)"""),
        {"ids": list(customer_ids), "within": within_s},
    )
    found: dict[int, dict[str, dict[datetime, int]]] = defaultdict(lambda: defaultdict(dict))
    for customer_id, cap, slot, n in rows:
        found[customer_id][cap][slot] = n
    return {key: dict(by_cap) for key, by_cap in found.items()}


def count(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to the counts: a row is `{"customer_id", "cap", "slot", "n"}`, each place once.

    Whoever counts at the same time waits here, so that what is read afterwards is all there is.
    """
    connection.execute(
        sql("""
            INSERT INTO cap_counts AS c (customer_id, cap, slot, n)
            SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   customer_id bigint, cap text, slot timestamptz, n int)
             ORDER BY customer_id, cap, slot
            ON CONFLICT (customer_id, cap, slot) DO UPDATE SET n = c.n + excluded.n"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )


def take_back(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Take from the counts what did not go out after all: rows as `count` has them."""
    connection.execute(
        sql("""
            WITH rows AS (
                SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
                    customer_id bigint, cap text, slot timestamptz, n int)
            ), mine AS (
                SELECT c.customer_id, c.cap, c.slot, r.n FROM cap_counts c
                  JOIN rows r USING (customer_id, cap, slot)
                 ORDER BY c.customer_id, c.cap, c.slot FOR UPDATE OF c)
            UPDATE cap_counts c SET n = greatest(c.n - mine.n, 0)
              FROM mine
             WHERE (c.customer_id, c.cap, c.slot) = (mine.customer_id, mine.cap, mine.slot)"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )


def note_activity(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note that customers were active: a row is `{"customer_id", "channel", "at"}`.

    Nobody was in the future, whatever a vendor's clock says.
    """
    connection.execute(
        sql("""
            INSERT INTO activity AS a (customer_id, channel, at)
            SELECT customer_id, channel, least(max(at), now())
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   customer_id bigint, channel text, at timestamptz)
             GROUP BY customer_id, channel ORDER BY customer_id, channel
            ON CONFLICT (customer_id, channel) DO UPDATE SET at = greatest(a.at, excluded.at)
             WHERE excluded.at > a.at"""),
        {"rows": as_rows(list(map(dict, rows)))},
    )


def forget_counts(connection: Connection, before_s: float, limit: int, chance: float) -> int:
    """Remove counts of slots that no window reaches any more; return how many.

    `chance`, in [0, 1), chooses the part of the table that is looked through: however large it is,
    a run reads no more than `PART_PAGES`, and every part has its turn in time.
    """
    pages: int = connection.execute(sql(_PAGES)).scalar_one()
    first = int(chance * -(-pages // PART_PAGES)) * PART_PAGES
    done = connection.execute(
        sql("""
            DELETE FROM cap_counts WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM cap_counts
                 WHERE ctid >= CAST(:first AS tid) AND ctid < CAST(:beyond AS tid)
                   AND slot < now() - make_interval(secs => :before)
                 LIMIT :limit FOR UPDATE SKIP LOCKED))"""),
        {
            "first": f"({first},0)",
            "beyond": f"({first + PART_PAGES},0)",
            "before": before_s,
            "limit": limit,
        },
    )
    return done.rowcount


PART_PAGES = 2_000
_PAGES = "SELECT pg_relation_size('cap_counts') / current_setting('block_size')::int"
