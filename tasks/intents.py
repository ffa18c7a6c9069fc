"""Accept what producers published."""

from collections import Counter
from typing import Any
from uuid import UUID

from celery import shared_task

from app.bootstrap import runtime
from app.usecases.accept import Submission, accept
from converge_producer.queues import TASK_ACCEPT
from tasks.summary import check_version, count_line


@shared_task(name=TASK_ACCEPT)
def accept_chunk(payload: dict[str, Any]) -> str:
    """Take a chunk of intents; what is refused is kept in the ledger with its reason."""
    check_version(payload)
    submission = Submission(
        brand=str(payload.get("brand")),
        chunk=UUID(payload["chunk"]),
        test=payload.get("test") is True,
        keep_refusals=True,
    )
    documents = payload.get("intents")
    # What is no list is refused like one bad intent: the ledger keeps it.
    verdicts = accept(
        runtime(), submission, documents if isinstance(documents, list) else [documents]
    )
    return count_line(Counter(verdict.status for verdict in verdicts))
