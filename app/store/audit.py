"""The audit trail: who changed what, when and why."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from app.store.session import as_rows


def note(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: Mapping[str, Any],
    reason: str = "",
) -> None:
    """Write one change down, in the transaction that makes it."""
    connection.execute(
        text("""
            INSERT INTO audit (actor, action, subject, reason)
            SELECT :actor, :action, r.subject, :reason
              FROM json_to_recordset(CAST(:rows AS json)) AS r(subject jsonb)"""),
        {
            "actor": actor,
            "action": action,
            "reason": reason,
            "rows": as_rows([{"subject": dict(subject)}]),
        },
    )
