"""Lanes: deliveries that wait are released to accounts, flow by flow, each with a hint.

Every move is a compare-and-set on the state.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Flow:
    """Waiting work that takes its turn as one: a sender's campaign within a channel and lane."""

    sender_id: int
    brand_id: int
    campaign: str
    test: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A flow's turn: how many of it may go, and by which accounts it may not go now."""

    flow: Flow
    most: int
    held: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """A delivery that was given a hint: its losses decide whether it goes alone."""

    id: int
    account: str
    losses: int
    flow: Flow


def due_flows(connection: Connection, channel: str, lane: str) -> list[Flow]:
    """The flows with deliveries that are due, found by skipping through the index.

    The cost grows with the number of flows, not with the number of rows that wait.
    """
    rows = connection.execute(
        text("""
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


def release(
    connection: Connection,
    channel: str,
    lane: str,
    account: str,
    known: Collection[str],
    shares: Sequence[Share],
    hint_lost_s: float,
) -> list[Released]:
    """Take due deliveries of each flow, at most its share, as queued for `account`.

    A delivery that an account of `known` was assigned to before keeps it: only settle moves it. So
    one whose account is held for its flow waits. After `hint_lost_s` seconds without a claim the
    hint counts as lost.
    """
    flows = [
        {
            "sender_id": share.flow.sender_id,
            "campaign": share.flow.campaign,
            "test": share.flow.test,
            "most": share.most,
            "held": list(share.held),
        }
        for share in shares
    ]
    rows = connection.execute(
        text("""
            WITH picked AS MATERIALIZED (
                SELECT d.id FROM json_to_recordset(CAST(:flows AS json)) AS f(
                           sender_id int, campaign text, test boolean, most int, held text[])
                 CROSS JOIN LATERAL (
                    SELECT id FROM deliveries
                     WHERE state = 'planned' AND channel = :channel AND lane = :lane
                       AND sender_id = f.sender_id AND campaign = f.campaign AND test = f.test
                       AND due_at <= now() AND account <> ALL(f.held)
                     ORDER BY due_at LIMIT f.most FOR UPDATE SKIP LOCKED) d
            )
            UPDATE deliveries d SET state = 'queued',
                   account = CASE WHEN d.account = ANY(CAST(:known AS text[]))
                                  THEN d.account ELSE :account END,
                   due_at = now() + make_interval(secs => :lost)
              FROM picked WHERE d.id = picked.id
            RETURNING d.id, d.account, d.losses, d.sender_id, d.brand_id, d.campaign, d.test"""),
        {
            "flows": as_rows(flows),
            "channel": channel,
            "lane": lane,
            "account": account,
            "known": list(known),
            "lost": hint_lost_s,
        },
    )
    return [Released(row[0], row[1], row[2], Flow(*row[3:])) for row in rows]


def outstanding(
    connection: Connection, accounts: Collection[str], limit: int
) -> dict[tuple[str, str], int]:
    """How many deliveries are hinted and not claimed yet, by account and lane, `limit` at most.

    Bounded: the dispatcher releases no more than about two seconds of an account's pace.
    """
    rows = connection.execute(
        text("""
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
        text("""
            UPDATE deliveries SET state = 'planned', reason = 'account_gone', due_at = now()
             WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'queued'
               AND account = :account"""),
        {"ids": list(ids), "account": account},
    )


def release_lost_hints(connection: Connection, limit: int) -> int:
    """Make queued deliveries whose hint was never claimed planned again; return how many.

    Accounts are found by skipping through the index, so that those no longer configured count.
    """
    done = connection.execute(
        text("""
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
            UPDATE deliveries d SET state = 'planned', due_at = now()
              FROM lost WHERE d.id = lost.id"""),
        {"limit": limit},
    )
    return done.rowcount
