"""Upkeep: what must not grow for ever is taken away, a little at a time."""

from datetime import timedelta

import structlog

from app.store.inbox import forget_inbox
from app.store.refusals import forget_documents
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

INBOX_KEPT = timedelta(days=7)
REFUSED_DOCUMENTS_KEPT = timedelta(days=7)
AT_ONCE = 5_000
MOST = 20
"""Parts that one run takes, each in a transaction of its own."""


def upkeep(runtime: Runtime) -> dict[str, int]:
    """Take away what has served its time; return how many rows of each."""
    counts = {"inbox": 0, "refusal_documents": 0}
    for _ in range(MOST):
        with runtime.engine.begin() as connection:
            inbox = forget_inbox(connection, INBOX_KEPT.total_seconds(), AT_ONCE)
            documents = forget_documents(
                connection, REFUSED_DOCUMENTS_KEPT.total_seconds(), AT_ONCE
            )
        counts["inbox"] += inbox
        counts["refusal_documents"] += documents
        if max(inbox, documents) < AT_ONCE:
            break
    if any(counts.values()):
        _log.info("upkeep", **counts)
    return counts
