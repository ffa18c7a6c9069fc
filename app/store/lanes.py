"""Lanes: deliveries that wait are released to accounts, flow by flow, each with a hint.

Every move is a compare-and-set on the state.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from app.domain.settlement import ALONE_AFTER_LOSSES
from app.store.deliveries import IN_DOUBT
from app.store.session import as_rows, sql

GONE_AFTER_S = 900.0
"""How long an account is not known before it counts as gone: new ones are not known to all
processes at once."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Waiting work that takes its turn as one: a sender's campaign within a channel and lane."""

    sender_id: int
    brand_id: int
    campaign: str
    test: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A flow's turn: how many of it may go, and by which (paused) accounts it may not go now."""

    flow: Flow
    most: int
    held: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """A delivery that is to be given a hint: its losses decide whether it goes alone.

    Or one that was given up (`lost`): it may have gone out by an account that there is no more.
    """

    id: int
    account: str
    losses: int
    flow: Flow
    lost: bool = False


def due_flows(connection: Connection, channel: str, lane: str) -> list[Flow]:
    """The flows with deliveries that are due, found by skipping through the index.

    The cost grows with the number of flows, not with the number of rows that wait.
    """
    rows = connection.execute(
        sql("""
            WITH RECURSIVE flows AS (
                (SELECT sender_id, campaign, test, brand_id, due_at FROM deliveries
                  WHERE state = 'planned' AND channel = :channel AND lane = :lane
                  ORDER BY sender_id, campaign, test, due_at LIMIT 1)
                UNION ALL
                SELECT next.* FROM flows f CROSS JOIN LATERAL (
                    SELECT sender_id, campaign, test, brand_id, due_at FROM deliveries d
                     WHERE state = 'planned' AND channel = :channel AND lane = :lane
                       AND (d.sender_id, d.campaign, d.test) > (f.sender_id, f.campaign, f.test)
                     ORDER BY sender_id, campaign, test, due_at LIMIT 1) next
            )
            SELECT sender_id, brand_id, campaign, test FROM flows WHERE due_at <= now()"""),
        {"channel": channel, "lane": lane},
    )
    return [Flow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Ways:
    """The accounts that released work is given to: in `turns`, with the record of that choice.

    `known` are all that serve the channel: what was given to one of them before keeps it.
    `resting` are those of them that can take nothing for a while, `full` those that have enough to
    do for now.
    """

    turns: Sequence[str]
    known: Collection[str]
    resting: Collection[str] = ()
    full: Collection[str] = ()
    choice_id: int | None = None


def next_suspect(connection: Connection, channel: str, *, test: bool) -> int | None:
    """Choose the delivery that may be tried next of those that have cost so many workers that
    each is tried alone (`ALONE_AFTER_LOSSES`); None while another one of the channel is out.

    A batch of its own is not enough: what dies is a process, with all that it has in hand. Chance
    decides, so that one that is held by a pause does not keep the others waiting.
    """
    chosen: int | None = connection.execute(
        sql("""
            SELECT id FROM deliveries
             WHERE losses >= 2 AND state = 'planned' AND channel = :channel AND test = :test
               AND due_at <= now()
               AND NOT EXISTS (SELECT FROM deliveries other
                                WHERE other.losses >= 2 AND other.state IN ('queued', 'sending')
                                  AND other.channel = :channel)
             ORDER BY random() LIMIT 1"""),
        {"channel": channel, "test": test},
    ).scalar()
    return chosen


def waiting_long(
    connection: Connection,
    channel: str,
    lane: str,
    since: Mapping[Flow, datetime | None],
    *,
    able: Collection[str],
    policies: Collection[int],
    waited_s: float,
    limit: int,
) -> tuple[list[UUID], dict[Flow, datetime]]:
    """Find intents of these policies with an untried delivery on `channel` that has been due for so
    many seconds, whose customer has an address on one of the `able` channels.

    Flows are read in the order given, each from what has been due `since` then (None: from its
    oldest), until `limit` deliveries are read, whether they are looked for or not. Returned with
    the intents: since when those flows are to be read next time that were not read to their end.
    """
    flows = [
        {
            "number": number,
            "sender_id": flow.sender_id,
            "campaign": flow.campaign,
            "test": flow.test,
            "since": at,
        }
        for number, (flow, at) in enumerate(since.items())
    ]
    rows = connection.execute(
        sql(_WAITING_LONG),
        {
            "flows": as_rows(flows),
            "channel": channel,
            "lane": lane,
            "able": list(able),
            "policies": list(policies),
            "waited": waited_s,
            "limit": limit,
        },
    ).all()
    found = [intent_id for row in rows for intent_id in row.intents or ()]
    if sum(row.read for row in rows) < limit:
        return found, {}
    places, last = list(since.items()), rows[-1]
    further = {flow: at for flow, at in places[last.number + 1 :] if at is not None}
    flow, began = places[last.number]
    # Where one moment fills a whole look, the next begins after it.
    stuck = timedelta(microseconds=last.until == began)
    return found, further | {flow: last.until + stuck}


# The rows read are bounded before anything is joined to them: however many wait that are not
# looked for, a look takes as long. Each limit of one keeps the planner from reading all intents, or
# all endpoints, instead of those of these rows.
_WAITING_LONG = """
    WITH waiting AS MATERIALIZED (
        SELECT f.number, d.* FROM json_to_recordset(CAST(:flows AS json)) AS f(
                   number int, sender_id int, campaign text, test boolean, since timestamptz)
         CROSS JOIN LATERAL (
            SELECT intent_id, attempts, due_at FROM deliveries
             WHERE state = 'planned' AND channel = :channel AND lane = :lane
               AND sender_id = f.sender_id AND campaign = f.campaign AND test = f.test
               AND due_at >= coalesce(f.since, '-infinity')
               AND due_at <= now() - make_interval(secs => :waited)
             ORDER BY due_at LIMIT :limit) d
         LIMIT :limit
    )
    SELECT w.number, count(*) AS read, max(w.due_at) AS until,
           array_agg(DISTINCT i.id) FILTER (
               WHERE w.attempts = 0 AND i.state = 'open'
                 AND i.policy_id = ANY(CAST(:policies AS int[]))
                 AND (SELECT true FROM endpoints e
                       WHERE e.customer_id = i.customer_id AND e.state = 'active'
                         AND e.channel = ANY(CAST(:able AS text[])) LIMIT 1)) AS intents
      FROM waiting w CROSS JOIN LATERAL (
           SELECT id, state, policy_id, customer_id FROM intents
            WHERE id = w.intent_id LIMIT 1) i
     GROUP BY w.number ORDER BY w.number"""


def release(
    connection: Connection,
    channel: str,
    lane: str,
    ways: Ways,
    shares: Sequence[Share],
    hint_lost_s: float,
    suspect: int | None = None,
) -> list[Released]:
    """Take due deliveries of each flow, at most its share, as queued, each for an account.

    A delivery that an account was assigned to before keeps it. From one that rests, that is held
    for its flow or that is not known any more it moves on, unless that account may have taken it:
    an attempt without a verdict is never repeated elsewhere, so it waits for its own; and one whose
    account has not been known for `GONE_AFTER_S` seconds has failed. What was tried by a `full`
    account waits until that has room, and those behind it go; what it has not tried moves on. After
    `hint_lost_s` seconds without a claim the hint counts as lost. Of those that are to be tried
    alone only `suspect` goes.
    """
    able = [name for name in ways.known if name not in (*ways.resting, *ways.full)]
    flows = [
        {
            "sender_id": share.flow.sender_id,
            "campaign": share.flow.campaign,
            "test": share.flow.test,
            "most": share.most,
            "able": [name for name in able if name not in share.held],
            "no_room": [name for name in ways.full if name not in share.held],
        }
        for share in shares
    ]
    rows = connection.execute(
        sql(f"""
            WITH picked AS MATERIALIZED (
                SELECT d.* FROM json_to_recordset(CAST(:flows AS json)) AS f(
                           sender_id int, campaign text, test boolean, most int, able text[],
                           no_room text[])
                 CROSS JOIN LATERAL (
                    SELECT id, account = ANY(f.able) AS stays,
                           account <> '' AND account <> ALL(CAST(:known AS text[]))
                           AND attempts > 0 AND {IN_DOUBT} AS lost
                      FROM deliveries d
                     WHERE state = 'planned' AND channel = :channel AND lane = :lane
                       AND sender_id = f.sender_id AND campaign = f.campaign AND test = f.test
                       AND due_at <= now()
                       AND (attempts = 0 OR account <> ALL(f.no_room))
                       AND (account = '' OR account = ANY(f.able) OR attempts = 0
                            OR account <> ALL(CAST(:known AS text[]))
                               AND due_at < now() - make_interval(secs => :gone)
                            OR NOT {IN_DOUBT})
                       AND (losses < :alone OR id = CAST(:suspect AS bigint))
                     ORDER BY due_at LIMIT f.most FOR UPDATE SKIP LOCKED) d
            ), given AS (
                SELECT *, (CAST(:turns AS text[]))[1 + (row_number() OVER () - 1) % :round]
                       AS account
                  FROM picked
            )
            UPDATE deliveries d SET
                   state = CASE WHEN given.lost THEN 'failed' ELSE 'queued' END,
                   reason = CASE WHEN given.lost THEN 'account_gone' ELSE d.reason END,
                   account = CASE WHEN given.stays OR given.lost THEN d.account
                                  ELSE given.account END,
                   choice_id = CASE WHEN given.stays OR given.lost THEN d.choice_id
                                    ELSE :choice END,
                   due_since = d.due_at,
                   due_at = CASE WHEN given.lost THEN now()
                                 ELSE now() + make_interval(secs => :lost) END
              FROM given WHERE d.id = given.id AND d.id = ANY(ARRAY(SELECT id FROM picked))
            RETURNING d.id, d.account, d.losses, d.sender_id, d.brand_id, d.campaign, d.test,
                      given.lost"""),  # noqa: S608  # our own words
        {
            "flows": as_rows(flows),
            "channel": channel,
            "lane": lane,
            "turns": list(ways.turns),
            "round": len(ways.turns),
            "known": list(ways.known),
            "choice": ways.choice_id,
            "lost": hint_lost_s,
            "gone": GONE_AFTER_S,
            "alone": ALONE_AFTER_LOSSES,
            "suspect": suspect,
        },
    )
    return [Released(row[0], row[1], row[2], Flow(*row[3:7]), row[7]) for row in rows]


def outstanding(
    connection: Connection, accounts: Collection[str], limit: int
) -> dict[tuple[str, str], int]:
    """How many deliveries are hinted and not claimed yet, by account and lane, `limit` at most.

    Bounded: the dispatcher releases no more than about two seconds of an account's pace.
    """
    rows = connection.execute(
        sql("""
            SELECT a.account, l.lane, q.waiting
              FROM unnest(CAST(:accounts AS text[])) AS a(account)
             CROSS JOIN unnest(ARRAY['urgent', 'normal', 'bulk']) AS l(lane)
             CROSS JOIN LATERAL (SELECT count(*) AS waiting FROM (
                 SELECT FROM deliveries WHERE state = 'queued' AND account = a.account
                    AND lane = l.lane LIMIT :limit) bounded) q"""),
        {"accounts": list(accounts), "limit": limit},
    )
    return {(row[0], row[1]): row[2] for row in rows}


def take_back(connection: Connection, ids: Collection[int], account: str) -> None:
    """Put deliveries queued for an account that is gone back to planned."""
    connection.execute(
        sql("""
            UPDATE deliveries SET state = 'planned', reason = 'account_gone',
                   due_at = coalesce(due_since, now())
             WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'queued'
               AND account = :account"""),
        {"ids": list(ids), "account": account},
    )


def release_lost_hints(connection: Connection, limit: int, hint_lost_s: float) -> int:
    """Make queued deliveries whose hint was never claimed planned again; return how many.

    They are due since when they first were, so that they come first, and are seen to be late.

    Accounts are found by skipping through the index, so that those no longer configured count.
    """
    done = connection.execute(
        sql("""
            WITH RECURSIVE lines AS (
                (SELECT account, lane FROM deliveries WHERE state = 'queued'
                  ORDER BY account, lane LIMIT 1)
                UNION ALL
                SELECT next.* FROM lines l CROSS JOIN LATERAL (
                    SELECT account, lane FROM deliveries d
                     WHERE state = 'queued' AND (d.account, d.lane) > (l.account, l.lane)
                     ORDER BY account, lane LIMIT 1) next
            ), lost AS MATERIALIZED (
                SELECT d.id FROM lines l CROSS JOIN LATERAL (
                    SELECT id FROM deliveries
                     WHERE state = 'queued' AND account = l.account AND lane = l.lane
                       AND due_at <= now()
                     ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED) d
            )
            UPDATE deliveries d SET state = 'planned',
                   due_at = coalesce(d.due_since, d.due_at - make_interval(secs => :lost))
              FROM lost WHERE d.id = lost.id"""),
        {"limit": limit, "lost": hint_lost_s},
    )
    return done.rowcount
