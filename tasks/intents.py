"""Accept what producers published."""

import time
from collections import Counter
from typing import Any
from uuid import UUID

from celery import shared_task
from celery.exceptions import Reject
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from app.bootstrap import runtime
from app.usecases.accept import Submission, accept
from converge_producer.queues import TASK_ACCEPT
from tasks.summary import check_version, count_line

AGAIN_S = 1.0
PATIENCE_S = 60.0


@shared_task(name=TASK_ACCEPT)
def accept_chunk(payload: dict[str, Any]) -> str:
    """Take a chunk of intents; what is refused is kept in the ledger with its reason.

    A chunk is nowhere but in the broker until it is accepted. So while the ledger is away the task
    waits, and at last hands the chunk back.
    """
    check_version(payload)
    submission = Submission(
        brand=str(payload.get("brand")),
        chunk=UUID(payload["chunk"]),
        test=payload.get("test") is True,
        keep_refusals=True,
    )
    intents = payload.get("intents")
    # What is no list is refused like one bad intent: the ledger keeps it.
    documents = intents if isinstance(intents, list) else [intents]
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            verdicts = accept(runtime(), submission, documents)
        except (OperationalError, NoConnection) as error:
            if time.monotonic() > give_up:
                raise Reject("the ledger is away", requeue=True) from error
            time.sleep(AGAIN_S)
        else:
            return count_line(Counter(verdict.status for verdict in verdicts))
