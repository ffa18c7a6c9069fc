"""Open intents that an operator wants to end, found in one walk along an index."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

_FITS = """
    AND (CAST(:brand_id AS int) IS NULL OR brand_id = :brand_id)
    AND (CAST(:sender_id AS int) IS NULL OR sender_id = :sender_id)
    AND (CAST(:campaign AS text) IS NULL OR campaign = :campaign)
"""
_OPEN = f"SELECT id FROM intents WHERE decide_at IS NOT NULL {_FITS}"  # noqa: S608  # our own words
# By the index of campaigns, which begins with the brand.
_OF_CAMPAIGN = f"""{_OPEN}
    AND campaign <> '' AND brand_id = ANY(ARRAY(SELECT id FROM brands))"""  # noqa: S608  # ours
# What no account was given yet is the account's own where it is the only one that could take it.
_ON_CHANNEL = f"""{_FITS}
    AND (CAST(:channel AS text) IS NULL OR channel = :channel)
    AND (CAST(:account AS text) IS NULL OR account = :account
         OR account = '' AND test = ANY(CAST(:alone_for AS boolean[])))
"""
# Apart, so that each walks its own partial index.
_WAITING = f"""
    SELECT intent_id FROM deliveries WHERE state = 'planned' {_ON_CHANNEL}
    UNION ALL
    SELECT intent_id FROM deliveries WHERE state = 'queued' {_ON_CHANNEL}
"""  # noqa: S608  # our own words


def intents_to_end(
    connection: Connection,
    at_once: int,
    *,
    brand_id: int | None,
    sender_id: int | None,
    campaign: str | None,
    channel: str | None,
    account: str | None,
    alone_for: Collection[bool] = (),
) -> Iterator[Sequence[UUID]]:
    """Yield the open intents that fit all marks, `at_once` at most at a time.

    With a channel or an account those that have a delivery waiting there (planned or queued). With
    an account name its channel, too, and whether it is the only one of that for test intents, for
    live ones or both (`alone_for`): then what waits for any account waits for it. It is one
    statement whose rows are fetched part by part, so every row is read once, as it was when the
    walk began; the connection's transaction stays open meanwhile. Among much else a part may take
    long to be found, so it has no time limit.
    """
    marks: dict[str, Any] = {"brand_id": brand_id, "sender_id": sender_id, "campaign": campaign}
    query = _OF_CAMPAIGN if campaign else _OPEN
    if channel or account:
        query = _WAITING
        marks |= {"channel": channel, "account": account, "alone_for": list(alone_for)}
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    walk = connection.execute(
        text(query), marks, execution_options={"yield_per": at_once, "stream_results": True}
    )
    yield from walk.scalars().partitions(at_once)


def count_unassigned(
    connection: Connection,
    limit: int,
    *,
    brand_id: int | None,
    sender_id: int | None,
    campaign: str | None,
    channel: str,
    tests: Collection[bool],
) -> int:
    """How many planned deliveries of a channel no account was given yet, `limit` at most."""
    count: int = connection.execute(
        text(f"""
            SELECT count(*) FROM (
                SELECT FROM deliveries WHERE state = 'planned' AND channel = :channel
                   AND account = '' AND test = ANY(CAST(:tests AS boolean[])) {_FITS}
                 LIMIT :limit) bounded"""),  # noqa: S608  # our own words
        {
            "brand_id": brand_id,
            "sender_id": sender_id,
            "campaign": campaign,
            "channel": channel,
            "tests": list(tests),
            "limit": limit,
        },
    ).scalar_one()
    return count
