"""Pauses: rows that hold work by channel, account, sender or campaign."""

from sqlalchemy import Connection

from app.domain.pause import Pause
from app.store.session import sql

CANCELLING = "being cancelled: "
"""How the reason of a pause begins that holds only until its work is cancelled."""

_PAUSES = (
    "SELECT brand_id, channel, account, sender_id, campaign, started_at, ended_at FROM pauses "
)


def pauses_in_force(connection: Connection) -> list[Pause]:
    """The pauses that hold work now."""
    rows = connection.execute(sql(_PAUSES + "WHERE ended_at IS NULL"))
    return [Pause(**row) for row in rows.mappings()]


def pauses_lately(connection: Connection) -> list[Pause]:
    """The pauses in force and those ended in the last 60 days, which escalation clocks mind."""
    rows = connection.execute(
        sql(_PAUSES + "WHERE ended_at IS NULL OR ended_at > now() - interval '60 days'")
    )
    return [Pause(**row) for row in rows.mappings()]


def pause(
    connection: Connection,
    *,
    brand_id: int | None,
    channel: str | None,
    account: str | None,
    sender_id: int | None,
    campaign: str | None,
    reason: str,
    actor: str,
) -> bool:
    """Hold work; say whether this pause is new (the same one may already be in force).

    One that held only until its work was cancelled (`CANCELLING`) is taken over.
    """
    done = connection.execute(
        sql("""
            INSERT INTO pauses (brand_id, channel, account, sender_id, campaign, reason, actor)
            VALUES (:brand_id, :channel, :account, :sender_id, :campaign, :reason, :actor)
            ON CONFLICT (coalesce(brand_id, 0), coalesce(channel, ''), coalesce(account, ''),
                         coalesce(sender_id, 0), coalesce(campaign, '')) WHERE ended_at IS NULL
            DO UPDATE SET reason = excluded.reason, actor = excluded.actor
             WHERE starts_with(pauses.reason, :cancelling)"""),
        {
            "cancelling": CANCELLING,
            "brand_id": brand_id,
            "channel": channel,
            "account": account,
            "sender_id": sender_id,
            "campaign": campaign,
            "reason": reason,
            "actor": actor,
        },
    )
    return done.rowcount > 0


def resume(
    connection: Connection,
    *,
    brand_id: int | None,
    channel: str | None,
    account: str | None,
    sender_id: int | None,
    campaign: str | None,
    begins: str = "",
) -> bool:
    """End the pause with exactly these marks, if its reason `begins` so; say whether it did."""
    done = connection.execute(
        sql("""
            UPDATE pauses SET ended_at = now()
             WHERE ended_at IS NULL
               AND brand_id IS NOT DISTINCT FROM :brand_id
               AND channel IS NOT DISTINCT FROM CAST(:channel AS text)
               AND account IS NOT DISTINCT FROM CAST(:account AS text)
               AND sender_id IS NOT DISTINCT FROM :sender_id
               AND campaign IS NOT DISTINCT FROM CAST(:campaign AS text)
               AND starts_with(reason, :begins)"""),
        {
            "begins": begins,
            "brand_id": brand_id,
            "channel": channel,
            "account": account,
            "sender_id": sender_id,
            "campaign": campaign,
        },
    )
    return done.rowcount > 0
