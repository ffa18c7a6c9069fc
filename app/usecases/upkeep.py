"""Upkeep: what must not grow for ever is taken away, a little at a time."""

from datetime import timedelta

import structlog
from sqlalchemy import text

from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

INBOX_KEPT = timedelta(days=7)
REFUSED_DOCUMENTS_KEPT = timedelta(days=7)
AT_ONCE = 5_000


def upkeep(runtime: Runtime) -> dict[str, int]:
    """Take away what has served its time; return how many rows of each."""
    limits = {"limit": AT_ONCE}
    with runtime.engine.begin() as connection:
        inbox = connection.execute(
            text("""
                DELETE FROM inbox WHERE id IN (
                    SELECT id FROM inbox WHERE due_at IS NULL
                       AND received_at < now() - CAST(:kept AS interval) LIMIT :limit)"""),
            {**limits, "kept": INBOX_KEPT},
        ).rowcount
        refused = connection.execute(
            text("""
                UPDATE refusals SET document = NULL WHERE id IN (
                    SELECT id FROM refusals WHERE document IS NOT NULL
                       AND refused_at < now() - CAST(:kept AS interval) LIMIT :limit)"""),
            {**limits, "kept": REFUSED_DOCUMENTS_KEPT},
        ).rowcount
    counts = {"inbox": inbox, "refusal_documents": refused}
    if any(counts.values()):
        _log.info("upkeep", **counts)
    return counts
