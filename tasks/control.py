"""The ticks of beat: dispatch and upkeep."""

from typing import Any

from celery import shared_task

from app.bootstrap import runtime
from app.usecases.dispatch import dispatch
from app.usecases.upkeep import upkeep
from converge_producer.queues import TASK_DISPATCH, TASK_UPKEEP
from tasks.summary import check_version, count_line


@shared_task(name=TASK_DISPATCH)
def dispatch_tick(payload: dict[str, Any]) -> str:
    """Pass on everything whose time has come."""
    check_version(payload)
    return count_line(dispatch(runtime()))


@shared_task(name=TASK_UPKEEP)
def upkeep_tick(payload: dict[str, Any]) -> str:
    """Take away what has served its time."""
    check_version(payload)
    return count_line(upkeep(runtime()))
