"""Accept what producers published."""

import time
from collections import Counter
from typing import Any
from uuid import UUID

import structlog
from celery import Task, shared_task
from celery.exceptions import Reject

from app.bootstrap import runtime
from app.observe.logging import where
from app.observe.tracing import sampled
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.intake.unreadable import refuse_unread
from converge_producer.queues import INTENTS, TASK_ACCEPT
from tasks.summary import NewerPayload, UnknownPayload, check_version, count_line

log = structlog.get_logger()

AGAIN_S = 1.0
BRAND_SHOWN = 200  # characters; a brand's name is far shorter


@shared_task(name=TASK_ACCEPT, bind=True)
def accept_chunk(task: Task, payload: dict[str, Any]) -> str:
    """Take a chunk of intents; what is refused is kept in the ledger with its reason.

    A chunk is nowhere but in the broker until it is accepted. So whatever keeps us from it (the
    ledger is away, only a release to come can read it, a fault of ours), it goes back, behind the
    others.
    """
    try:
        return _taken(task, payload)
    except NewerPayload as error:
        log.error("chunk_handed_back", task_id=task.request.id, error=str(error))  # noqa: TRY400  # our own words
    except Exception as error:  # noqa: BLE001  # told by its kind; its text may quote a row
        log.error("chunk_handed_back", task_id=task.request.id, error=where(error))  # noqa: TRY400  # its kind alone
    time.sleep(AGAIN_S)
    _hand_back(task, payload)
    return "handed back"


def _taken(task: Task, payload: Any) -> str:
    told = payload if isinstance(payload, dict) else {"intents": payload}
    intents = told.get("intents")
    # What is no list is refused like one bad intent: the ledger keeps it.
    documents = intents if isinstance(intents, list) else [intents]
    brand = str(told.get("brand"))[:BRAND_SHOWN]
    try:
        check_version(told)
        chunk = _chunk_id(told)
    except UnknownPayload as error:
        kept = refuse_unread(runtime(), UUID(task.request.id), brand, documents, str(error))
        return count_line({"refused": kept})
    submission = Submission(
        brand=brand,
        chunk=chunk,
        test=told.get("test") is True,
        keep_refusals=True,
        trace=sampled(told.get("traceparent")),
    )
    verdicts = accept(runtime(), submission, documents)
    return count_line(Counter(verdict.status for verdict in verdicts))


def _chunk_id(payload: dict[str, Any]) -> UUID:
    try:
        return UUID(payload["chunk"])
    except (KeyError, ValueError, AttributeError, TypeError):
        raise UnknownPayload("the chunk has no id") from None


def _hand_back(task: Task, payload: dict[str, Any]) -> None:
    """Publish it anew: given back, it would come first again, and RabbitMQ would count that."""
    request = task.request
    try:
        task.apply_async((payload,), task_id=request.id, queue=INTENTS, argsrepr=request.argsrepr)
    except Exception as error:  # noqa: BLE001  # whatever it is, the chunk is not to be lost
        raise Reject(f"the broker does not take it ({where(error)})", requeue=True) from None
