"""How Celery is set up. Each value's reason is a trap that it avoids (docs/decisions)."""

import json
from typing import Any

from celery import Celery
from kombu.serialization import register
from kombu.utils.json import dumps

from config.settings import Settings
from converge_producer.queues import CONTROL, is_redis, task_queues, transport_options
from workers.schedule import schedule

TASK_MODULES = (
    "tasks.intents",
    "tasks.decisions",
    "tasks.control",
    "tasks.feedback",
    "tasks.channels",
)
_QUEUES_OF_THEIR_OWN = ("intents", "decisions", "feedback", "control")


def make_app(settings: Settings) -> Celery:
    """Make the application for these settings; nothing is connected yet."""
    # Kombu's own decoder calls back for every object in a message; our payloads are plain JSON.
    register("json", dumps, json.loads, "application/json", "utf-8")
    app = Celery("converge", task_cls="workers.task:QuietTask", include=list(TASK_MODULES))
    app.conf.update(_configuration(settings))
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": transport_options(settings.broker_url),
        # A broker that went away comes back: never give up, and survive a replica's promotion.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "task_queues": task_queues(settings.broker_url),
        "task_default_queue": CONTROL,
        "task_routes": {f"{name}.*": {"queue": name} for name in _QUEUES_OF_THEIR_OWN},
        "task_create_missing_queues": False,  # a typo is an error, not an orphan queue
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # The claim absorbs repeats, the lease finds what was lost, retries live in the ledger.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "worker_prefetch_multiplier": 1,
        # True would kill a batch in mid-send and then run it again.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # SIGTERM is left warm: it ends as soon as the running batches do, and they have deadlines.
        # REMAP_SIGTERM=SIGQUIT would sleep out this time-out at every stop under load.
        "worker_soft_shutdown_timeout": settings.soft_shutdown_seconds,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "control_queue_expires": 60,
        "enable_utc": True,
        "timezone": "UTC",
        "beat_schedule": schedule(settings.dispatch_seconds, settings.upkeep_seconds),
        "beat_scheduler": "celery.beat:Scheduler",  # in memory: ticks are idempotent, beats many
        "beat_max_loop_interval": 1,
    } | ({} if is_redis(settings.broker_url) else _RABBITMQ)


_RABBITMQ: dict[str, Any] = {
    "task_default_exchange": "converge",
    "task_default_exchange_type": "topic",
    "task_default_queue_type": "quorum",
    "worker_detect_quorum_queues": True,
}
