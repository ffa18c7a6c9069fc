"""What waits in the ledger, counted only so far: a full ledger is looked at as fast as an empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Waiting:
    """A flow with planned deliveries: one sender's campaign within a channel and lane."""

    channel: str
    lane: str
    sender_id: int
    campaign: str
    test: bool
    brand_id: int


def flows(connection: Connection, limit: int) -> list[Waiting]:
    """The flows with planned deliveries, found by skipping through the index; `limit` at most."""
    rows = connection.execute(
        text("""
            WITH RECURSIVE flows AS (
                (SELECT channel, lane, sender_id, campaign, test, brand_id FROM deliveries
                  WHERE state = 'planned'
                  ORDER BY channel, lane, sender_id, campaign, test LIMIT 1)
                UNION ALL
                SELECT next.* FROM flows f CROSS JOIN LATERAL (
                    SELECT channel, lane, sender_id, campaign, test, brand_id FROM deliveries d
                     WHERE state = 'planned'
                       AND (d.channel, d.lane, d.sender_id, d.campaign, d.test)
                           > (f.channel, f.lane, f.sender_id, f.campaign, f.test)
                     ORDER BY channel, lane, sender_id, campaign, test LIMIT 1) next
            )
            SELECT * FROM flows LIMIT :limit"""),
        {"limit": limit},
    )
    return [Waiting(*row) for row in rows]


def due_in(
    connection: Connection, waiting: Sequence[Waiting], limit: int
) -> tuple[int, datetime | None]:
    """How many deliveries of these flows are due, `limit` at most, and since when the oldest."""
    row = connection.execute(
        text("""
            WITH flows AS MATERIALIZED (
                SELECT * FROM json_to_recordset(CAST(:flows AS json)) AS f(
                    channel text, lane text, sender_id int, campaign text, test boolean)
            )
            SELECT (SELECT count(*) FROM (
                        SELECT FROM flows f CROSS JOIN LATERAL (
                            SELECT FROM deliveries d
                             WHERE d.state = 'planned' AND d.channel = f.channel
                               AND d.lane = f.lane AND d.sender_id = f.sender_id
                               AND d.campaign = f.campaign AND d.test = f.test
                               AND d.due_at <= now() LIMIT :limit) due
                         LIMIT :limit) bounded),
                   (SELECT min(oldest.due_at) FROM flows f CROSS JOIN LATERAL (
                        SELECT due_at FROM deliveries d
                         WHERE d.state = 'planned' AND d.channel = f.channel
                           AND d.lane = f.lane AND d.sender_id = f.sender_id
                           AND d.campaign = f.campaign AND d.test = f.test
                           AND d.due_at <= now() ORDER BY due_at LIMIT 1) oldest)"""),
        {
            "limit": limit,
            "flows": as_rows(
                [
                    {
                        "channel": one.channel,
                        "lane": one.lane,
                        "sender_id": one.sender_id,
                        "campaign": one.campaign,
                        "test": one.test,
                    }
                    for one in waiting
                ]
            ),
        },
    ).one()
    return row[0], row[1]


def sending(connection: Connection, within_s: float, limit: int) -> Mapping[tuple[str, str], int]:
    """How many deliveries are in workers' hands by channel and lane, `limit` in all.

    Their leases end within `within_s` seconds, which is where the index is looked at.
    """
    rows = connection.execute(
        text("""
            SELECT channel, lane, count(*) FROM (
                SELECT channel, lane FROM deliveries
                 WHERE due_at IS NOT NULL AND state NOT IN ('planned', 'queued')
                   AND state = 'sending' AND due_at <= now() + make_interval(secs => :within)
                 LIMIT :limit) bounded
             GROUP BY channel, lane"""),
        {"within": within_s, "limit": limit},
    )
    return {(row[0], row[1]): row[2] for row in rows}


def due_elsewhere(connection: Connection, limit: int) -> tuple[int, int]:
    """How many intents and how many things in the inbox are due, `limit` at most of each."""
    row = connection.execute(
        text("""
            SELECT (SELECT count(*) FROM (SELECT FROM intents WHERE decide_at <= now()
                                           LIMIT :limit) i),
                   (SELECT count(*) FROM (SELECT FROM inbox WHERE due_at <= now()
                                           LIMIT :limit) b)"""),
        {"limit": limit},
    ).one()
    return row[0], row[1]


def told_pauses(connection: Connection) -> list[dict[str, Any]]:
    """The pauses in force, with who said so and why."""
    rows = connection.execute(
        text("""
            SELECT brand_id, channel, account, sender_id, campaign, reason, actor, started_at
              FROM pauses WHERE ended_at IS NULL ORDER BY started_at, id""")
    )
    return [dict(row) for row in rows.mappings()]


_TOTALS = """
    WITH mine AS MATERIALIZED (
        SELECT id, state, accepted_at, ended_at, seen_delivery_id, seen_as FROM intents
         WHERE brand_id = :brand_id
           AND (CAST(:since AS timestamptz) IS NULL OR accepted_at >= :since)
    ), sent AS MATERIALIZED (
        SELECT d.id, d.intent_id, d.step, d.channel, d.state, d.reason, d.crossed,
               d.handed_over_at, d.id = m.seen_delivery_id AS seen
          FROM deliveries d JOIN mine m ON m.id = d.intent_id
    ), seconds AS (
        SELECT extract(epoch FROM coalesce(
                   (SELECT min(e.at) FROM events e WHERE e.intent_id = m.id
                       AND e.delivery_id = m.seen_delivery_id AND e.type = m.seen_as),
                   m.ended_at) - m.accepted_at)::float8 AS waited
          FROM mine m WHERE m.state = 'seen'
    ), tries AS (
        SELECT a.outcome, count(*) AS n, count(*) FILTER (WHERE a.number > 1) AS again
          FROM attempts a JOIN sent s ON s.id = a.delivery_id GROUP BY a.outcome
    )
    SELECT (SELECT count(*) FROM mine) AS intents,
           (SELECT json_object_agg(state, n) FROM (
                SELECT state, count(*) AS n FROM mine GROUP BY state) s) AS states,
           (SELECT json_agg(json_build_object('channel', channel, 'deliveries', deliveries,
                                              'sent', sent, 'reached', reached)
                            ORDER BY channel) FROM (
                SELECT channel, count(*) AS deliveries, count(handed_over_at) AS sent,
                       count(*) FILTER (WHERE seen) AS reached
                  FROM sent GROUP BY channel) c) AS channels,
           (SELECT count(*) FROM (SELECT FROM sent GROUP BY intent_id
                                   HAVING count(DISTINCT step) > 1) e) AS escalated,
           (SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY waited)
              FROM seconds) AS waited,
           (SELECT json_object_agg(outcome, n) FROM tries) AS attempts,
           (SELECT coalesce(sum(again), 0)::int FROM tries) AS retries,
           (SELECT count(*) FROM sent WHERE state = 'planned' AND reason = 'rate_limit')
               AS held_by_limit,
           (SELECT count(*) FROM sent WHERE crossed) AS crossed,
           (SELECT count(*) FROM sent WHERE state = 'failed') AS failed,
           (SELECT count(*) FROM refusals WHERE brand_id = :brand_id
               AND (CAST(:since AS timestamptz) IS NULL OR refused_at >= :since)) AS refused"""


def totals(connection: Connection, brand_id: int, since: datetime | None) -> dict[str, Any]:
    """What became of a brand's intents: it reads all of them since `since`."""
    row = connection.execute(text(_TOTALS), {"brand_id": brand_id, "since": since})
    return dict(row.mappings().one())
