"""The workers over a real RabbitMQ, by its URL alone."""

import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest

from config.settings import load_settings
from converge_producer.queues import DEAD_LETTERS, deliver_task, lane_queue
from tests.workers.test_producer_rabbitmq import amqp_url
from workers.application import make_app

__all__ = ["amqp_url"]

pytestmark = pytest.mark.debian
ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "--quiet", "-A", "tests.workers.small_app"]


def test_a_task_and_a_tick_go_through_quorum_queues(
    database_url: str,
    redis_url: str,
    amqp_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONVERGE_DATABASE_URL", database_url)
    monkeypatch.setenv("CONVERGE_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERGE_BROKER_URL", amqp_url)
    monkeypatch.setenv("CONVERGE_SECRET", "s" * 40)
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(tmp_path / "data"))
    told = tmp_path / "told"
    log = tmp_path / "log"
    worker = ["worker", "-Q", "email.normal,control", "-P", "threads", "-c", "2"]
    app = make_app(load_settings())
    with (
        log.open("wb") as output,
        subprocess.Popen([*CELERY, *worker], cwd=ROOT, stdout=output, stderr=output) as process,
        subprocess.Popen([*CELERY, "beat"], cwd=ROOT, stdout=output, stderr=output) as beat,
    ):
        payload = {"v": 1, "file": str(told), "seconds": 0}
        app.send_task(deliver_task("email"), (payload,), queue=lane_queue("email", "normal"))
        deadline = time.monotonic() + 60
        pulse = tmp_path / "data" / "beat.pulse"
        while not (told.exists() and told.read_text() == "done" and pulse.exists()):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        with kombu.Connection(amqp_url) as connection:
            connection.default_channel.queue_declare(DEAD_LETTERS, passive=True)
        beat.terminate()
        process.terminate()
        assert (beat.wait(30), process.wait(30)) == (0, 0), log.read_text()
    app.close()
    assert "Traceback" not in log.read_text()
