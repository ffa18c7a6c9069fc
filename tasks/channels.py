"""Deliver on each channel: one task name a channel, so that Flower reads like the plan."""

from typing import Any
from uuid import UUID

from celery import Task, shared_task

from app.bootstrap import runtime
from app.usecases.delivering.deliver import Hand, deliver
from converge_producer.queues import deliver_task
from converge_producer.wire import CHANNELS
from tasks.summary import check_version, count_line


def _deliver(task: Task, payload: dict[str, Any]) -> str:
    """Hand a batch of deliveries over on one account."""
    check_version(payload)
    hand = Hand(task_id=UUID(task.request.id), worker=task.request.hostname or "")
    return count_line(deliver(runtime(), payload["account"], payload["ids"], hand))


for _channel in CHANNELS:
    shared_task(name=deliver_task(_channel), bind=True)(_deliver)
