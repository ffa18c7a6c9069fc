"""Limits that operators set on accounts, for a time or until they are lifted."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_IN_FORCE = "ended_at IS NULL AND (until IS NULL OR until > now())"


@dataclass(frozen=True, slots=True)
class SetLimit:
    """A limit in force: messages a second, until when (None: until lifted), and who said why."""

    account: str
    per_second: float
    until: datetime | None
    reason: str
    actor: str
    set_at: datetime


def limits_in_force(connection: Connection) -> dict[str, float]:
    """Messages a second by account, where an operator has set them; one ends by mere time."""
    rows = connection.execute(text(f"SELECT account, per_second FROM limits WHERE {_IN_FORCE}"))  # noqa: S608  # our own constant
    return {row[0]: row[1] for row in rows}


def told_limits(connection: Connection) -> list[SetLimit]:
    """The limits in force, with who said so and why."""
    rows = connection.execute(
        text(
            "SELECT account, per_second, until, reason, actor, set_at FROM limits "  # noqa: S608  # our own constant
            f"WHERE {_IN_FORCE} ORDER BY account"
        )
    )
    return [SetLimit(*row) for row in rows]


def set_limit(
    connection: Connection,
    *,
    account: str,
    per_second: float,
    for_s: float | None,
    reason: str,
    actor: str,
) -> bool:
    """Set an account's limit, in place of one that it had; say whether that changed anything.

    One that ends after `for_s` seconds counts from now, so it is new each time.
    """
    done = connection.execute(
        text("""
            INSERT INTO limits (account, per_second, until, reason, actor)
            VALUES (:account, :per_second, now() + make_interval(secs => :for_s), :reason, :actor)
            ON CONFLICT (account) WHERE ended_at IS NULL
            DO UPDATE SET per_second = excluded.per_second, until = excluded.until,
                          reason = excluded.reason, actor = excluded.actor, set_at = now()
             WHERE (limits.per_second, limits.until)
                   IS DISTINCT FROM (excluded.per_second, excluded.until)"""),
        {
            "account": account,
            "per_second": per_second,
            "for_s": for_s,
            "reason": reason,
            "actor": actor,
        },
    )
    return done.rowcount > 0


def lift_limit(connection: Connection, account: str) -> bool:
    """End an account's limit; say whether one was in force."""
    done = connection.execute(
        text("""
            UPDATE limits SET ended_at = now() WHERE account = :account AND ended_at IS NULL
            RETURNING until IS NULL OR until > now()"""),
        {"account": account},
    )
    return bool(done.scalar())
