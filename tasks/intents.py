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
        brand=payload["brand"],
        chunk=UUID(payload["chunk"]),
        test=bool(payload.get("test")),
        keep_refusals=True,
    )
    verdicts = accept(runtime(), submission, payload["intents"])
    return count_line(Counter(verdict.status for verdict in verdicts))
