"""Read the inbox into events."""

from typing import Any

from celery import shared_task

from app.bootstrap import runtime
from app.usecases.hearing.feedback import read_feedback
from converge_producer.queues import TASK_FEEDBACK
from tasks.summary import check_version, count_line


@shared_task(name=TASK_FEEDBACK)
def read(payload: dict[str, Any]) -> str:
    """Read what waits in the inbox."""
    check_version(payload)
    return count_line(read_feedback(runtime()))
