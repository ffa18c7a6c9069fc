"""What waits in the ledger, counted only so far: a full ledger is looked at as fast as an empty."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.store.deliveries import IN_DOUBT
from app.store.session import as_rows

FLOWS_BOUND = 5_000
"""So many flows are looked at, at most."""


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


def hinted_flows(connection: Connection, account: str | None, limit: int) -> list[Waiting]:
    """The flows with hinted deliveries (of an account), among `limit` deliveries at most.

    Bounded anyway: no more is hinted than an account can send in about two seconds.
    """
    rows = connection.execute(
        text("""
            SELECT DISTINCT channel, lane, sender_id, campaign, test, brand_id FROM (
                SELECT channel, lane, sender_id, campaign, test, brand_id FROM deliveries
                 WHERE state = 'queued' AND (CAST(:account AS text) IS NULL OR account = :account)
                 LIMIT :limit) hinted"""),
        {"account": account, "limit": limit},
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


@dataclass(frozen=True, slots=True)
class DueBeside:
    """What is due of flows some of whose accounts are paused: what may go, since when the oldest of
    it, and what only a paused account may try again (`held`, by account)."""

    due: int
    since: datetime | None
    held: Mapping[str, int]


def due_beside(
    connection: Connection, waiting: Mapping[Waiting, Collection[str]], limit: int
) -> DueBeside:
    """What is due of flows, each of which has paused accounts; of each `limit` rows at most."""
    rows = connection.execute(
        text(f"""
            WITH flows AS MATERIALIZED (
                SELECT * FROM json_to_recordset(CAST(:flows AS json)) AS f(
                    channel text, lane text, sender_id int, campaign text, test boolean,
                    paused text[])
            )
            SELECT held, count(*), min(due_at) FROM (
                SELECT due_at, CASE WHEN account = ANY(f.paused) AND attempts > 0 AND {IN_DOUBT}
                                    THEN account END AS held
                  FROM flows f CROSS JOIN LATERAL (
                       SELECT id, due_at, account, attempts FROM deliveries
                        WHERE state = 'planned' AND channel = f.channel AND lane = f.lane
                          AND sender_id = f.sender_id AND campaign = f.campaign AND test = f.test
                          AND due_at <= now() ORDER BY due_at LIMIT :limit) d) told
             GROUP BY held"""),  # noqa: S608  # our own words
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
                        "paused": list(paused),
                    }
                    for one, paused in waiting.items()
                ]
            ),
        },
    ).all()
    counts = {row[0]: row[1] for row in rows}
    since = {row[0]: row[2] for row in rows}
    return DueBeside(counts.pop(None, 0), since.get(None), counts)


def hinted_since(
    connection: Connection, accounts: Collection[str], hint_lost_s: float, limit: int
) -> dict[tuple[str, str], datetime]:
    """Since when the oldest hinted delivery has been due, by account and lane.

    Of `limit` deliveries of each at most; bounded anyway, as the dispatcher releases little.
    """
    rows = connection.execute(
        text("""
            SELECT a.account, l.lane, q.since
              FROM unnest(CAST(:accounts AS text[])) AS a(account)
             CROSS JOIN unnest(ARRAY['urgent', 'normal', 'bulk']) AS l(lane)
             CROSS JOIN LATERAL (
                 SELECT min(coalesce(due_since, due_at - make_interval(secs => :lost))) AS since
                   FROM (SELECT due_since, due_at FROM deliveries WHERE state = 'queued'
                            AND account = a.account AND lane = l.lane LIMIT :limit) bounded) q
             WHERE q.since IS NOT NULL"""),
        {"accounts": list(accounts), "lost": hint_lost_s, "limit": limit},
    )
    return {(row[0], row[1]): row[2] for row in rows}


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
        SELECT id, state, accepted_at, ended_at, seen_delivery_id, seen_as,
               state = 'seen' AND seen_as NOT IN ('delivered', 'opened_by_machine') AS by_a_person
          FROM intents
         WHERE brand_id = :brand_id
           AND (CAST(:since AS timestamptz) IS NULL OR accepted_at >= :since)
    ), sent AS MATERIALIZED (
        SELECT d.id, d.intent_id, d.step, d.channel, d.state, d.reason, d.crossed,
               d.handed_over_at, m.by_a_person AND d.id = m.seen_delivery_id AS reached
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
           (SELECT count(*) FROM mine WHERE by_a_person) AS reached,
           (SELECT json_agg(json_build_object('channel', channel, 'deliveries', deliveries,
                                              'sent', sent, 'reached', reached)
                            ORDER BY channel) FROM (
                SELECT channel, count(*) AS deliveries, count(handed_over_at) AS sent,
                       count(*) FILTER (WHERE reached) AS reached
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
