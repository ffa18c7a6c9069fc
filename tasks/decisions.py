"""Decide the next step of intents whose time has come."""

from typing import Any
from uuid import UUID

from celery import shared_task

from app.bootstrap import runtime
from app.usecases.deciding.decide import decide_intents
from converge_producer.queues import TASK_DECIDE
from tasks.summary import check_version, count_line


@shared_task(name=TASK_DECIDE)
def decide(payload: dict[str, Any]) -> str:
    """Decide a batch of intents."""
    check_version(payload)
    return count_line(decide_intents(runtime(), [UUID(key) for key in payload["intents"]]))
