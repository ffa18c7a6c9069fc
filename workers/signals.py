"""What happens around Celery's life: logging, forks, RabbitMQ's dead letters."""

from typing import Any

import structlog
from celery import signals

from app.observe.logging import configure_logging
from config.settings import Settings
from converge_producer.queues import dead_letter_queue, is_redis

log = structlog.get_logger()


def connect(settings: Settings) -> None:
    """Connect everything; once per process."""
    # weak=False: nobody else keeps these functions.
    signals.setup_logging.connect(_logging(settings), weak=False)
    signals.worker_process_init.connect(_after_fork, weak=False)
    signals.worker_ready.connect(_ready, weak=False)


def _logging(settings: Settings) -> Any:
    def set_up(**_: Any) -> None:
        """Take logging over: with a receiver here Celery leaves it alone."""
        configure_logging(settings.log_level, settings.log_format)

    return set_up


def _after_fork(**_: Any) -> None:
    """Forget the parent's connections (prefork only; our fleets use threads)."""
    from app.bootstrap import runtime

    runtime.cache_clear()
    runtime().engine.dispose(close=False)


def _ready(sender: Any, **_: Any) -> None:
    """Say that work is taken; on RabbitMQ make sure that what it gives up on is kept."""
    app = sender.app
    if not is_redis(app.conf.broker_url):
        with app.connection_for_write() as connection:
            dead_letter_queue().bind(connection.default_channel).declare()
    log.info("worker_ready", worker=sender.hostname)
