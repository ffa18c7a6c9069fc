"""An application with our settings and base task, and bodies that tests can watch."""

import time
from pathlib import Path
from typing import Any

from config.settings import load_settings
from converge_producer.queues import TASK_DISPATCH, TASK_UPKEEP, deliver_task
from workers import signals
from workers.application import make_app

settings = load_settings()
app = make_app(settings)
app.conf.include = []
signals.connect(settings)


@app.task(name=deliver_task("email"))
def slow(payload: dict[str, Any]) -> str:
    Path(payload["file"]).write_text("started")
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end and not Path(payload.get("gate", "/nowhere")).exists():
        time.sleep(0.02)
    Path(payload["file"]).write_text("done")
    return "sent 1"


@app.task(name=deliver_task("sms"))
def fails(payload: dict[str, Any]) -> str:
    raise ValueError(f"no such row: {payload['private']}")


@app.task(name=TASK_DISPATCH)
def dispatch(payload: dict[str, Any]) -> str:
    return f"released {payload['v']}"


@app.task(name=TASK_UPKEEP)
def upkeep(payload: dict[str, Any]) -> str:
    return f"kept {payload['v']}"
