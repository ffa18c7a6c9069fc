"""What happens around Celery's life: logging, start, queues, fork, the pulse of beat."""

import gc
from pathlib import Path
from typing import Any

import structlog
from celery import signals

from app.observe.logging import configure_logging, where
from config.settings import Settings
from converge_producer.queues import is_redis
from workers.rabbitmq import declare_queues

log = structlog.get_logger()


def connect(settings: Settings) -> None:
    """Connect everything; once per process."""

    def take_logging_over(**_: Any) -> None:
        # With a receiver here Celery leaves logging alone.
        configure_logging(settings.log_level, settings.log_format)

    def start(**_: Any) -> None:
        take_logging_over()  # Celery sets logging up only after this
        _build_runtime()
        if not is_redis(settings.broker_url):
            declare_queues(settings.broker_url)

    def pulse(**_: Any) -> None:
        beat_pulse(settings).touch()

    def beat_starts(**_: Any) -> None:
        signals.after_task_publish.connect(pulse, weak=False)

    # weak=False: nobody else keeps these functions.
    signals.setup_logging.connect(take_logging_over, weak=False)
    signals.beat_init.connect(beat_starts, weak=False)
    signals.worker_init.connect(start, weak=False)
    signals.worker_process_init.connect(_after_fork, weak=False)
    signals.worker_ready.connect(_ready, weak=False)


def beat_pulse(settings: Settings) -> Path:
    """The file whose age says when beat last ticked."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings.data_dir / "beat.pulse"


def _build_runtime() -> None:
    """Build the runtime before any thread wants it; a worker that cannot work says why and ends."""
    from app.bootstrap import runtime

    try:
        runtime()
    except Exception as error:  # noqa: BLE001  # told, and the process ends
        ours = type(error).__module__.partition(".")[0] in ("app", "config")
        log.critical("cannot_start", reason=str(error) if ours else where(error))
        raise SystemExit(1) from None


def _after_fork(**_: Any) -> None:
    """Leave the parent's connections to the parent (prefork only; our fleets use threads)."""
    from app.bootstrap import runtime

    if runtime.cache_info().currsize:
        runtime().engine.dispose(close=False)
        runtime.cache_clear()


def _ready(sender: Any, **_: Any) -> None:
    """Say that work is taken."""
    from app.bootstrap import runtime
    from workers.pulse import begin

    begin(runtime(), sender)
    _collect_seldom()
    log.info("worker_ready", worker=sender.hostname)


def _collect_seldom() -> None:
    """Leave what this process is made of out of every garbage collection, and collect seldom.

    A batch makes thousands of short-lived objects and hardly a cycle: with Python's thresholds a
    tenth to a fifth of accept's time went into looking through modules and caches again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
