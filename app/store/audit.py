"""The audit trail: who changed what, when and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `subject` names what was changed by our own ids and names."""

    at: datetime
    actor: str
    action: str
    subject: Mapping[str, Any]
    reason: str


def changes_since(
    connection: Connection, since: datetime | None, limit: int, *, customer_id: int | None = None
) -> list[Change]:
    """The latest changes (to one customer), the newest first."""
    of_one = """AND subject ? 'customer'
               AND subject -> 'customer' = to_jsonb(CAST(:customer AS bigint))"""
    rows = connection.execute(
        text(f"""
            SELECT at, actor, action, subject, reason FROM audit
             WHERE (CAST(:since AS timestamptz) IS NULL OR at >= :since)
               {of_one if customer_id is not None else ""}
             ORDER BY id DESC LIMIT :limit"""),  # noqa: S608  # a constant of ours
        {"since": since, "limit": limit, "customer": customer_id},
    )
    return [Change(*row) for row in rows]


def note(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: Mapping[str, Any],
    reason: str = "",
) -> None:
    """Write one change down, in the transaction that makes it."""
    note_each(connection, actor=actor, action=action, subjects=[subject], reason=reason)


def note_each(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subjects: Collection[Mapping[str, Any]],
    reason: str = "",
) -> None:
    """Write down the same change to each of some subjects, in the transaction that makes it."""
    connection.execute(
        text("""
            INSERT INTO audit (actor, action, subject, reason)
            SELECT :actor, :action, r.subject, :reason
              FROM json_to_recordset(CAST(:rows AS json)) AS r(subject jsonb)"""),
        {
            "actor": actor,
            "action": action,
            "reason": reason,
            "rows": as_rows([{"subject": dict(subject)} for subject in subjects]),
        },
    )
