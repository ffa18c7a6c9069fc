"""The workers over a real RabbitMQ, by its URL alone."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pytest

from config.settings import Settings, load_settings
from converge_producer import Intent, Producer
from converge_producer.queues import (
    DEAD_LETTERS,
    DELIVERY_LIMIT,
    INTENTS,
    deliver_task,
    lane_queue,
)
from tests.workers.brokers import messages_in_rabbitmq
from workers.application import make_app

pytestmark = [pytest.mark.debian, pytest.mark.long]
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


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_chunk_that_kills_its_workers_is_put_aside_and_put_back(
    database_url: str,
    redis_url: str,
    amqp_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(
        database_url=database_url,
        redis_url=redis_url,
        broker_url=amqp_url,
        secret=("s" * 40,),
        data_dir=tmp_path / "data",
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    with Producer(amqp_url, brand="demo") as producer:
        producer.enqueue(Intent("cust-42", "orders", "Hello", key="deadly"))
    log = tmp_path / "log"
    with psycopg.connect(database_url) as ledger:
        # The brand is not declared, so the chunk is refused: this is what its workers hang upon.
        ledger.execute("SET idle_in_transaction_session_timeout = 0")
        ledger.execute("LOCK TABLE refusals")
        for _ in range(DELIVERY_LIMIT - 1):
            take_and_vanish(amqp_url)
        for _ in range(2):
            with accepting_worker(log) as worker:
                until(lambda: writing_refusals(database_url))
                worker.kill()
            end_writing(database_url)
        until(lambda: messages_in_rabbitmq(amqp_url, DEAD_LETTERS) == 1)
        assert messages_in_rabbitmq(amqp_url, INTENTS) == 0
    put_back = [sys.executable, "-m", "workers", "revive"]
    done = subprocess.run(put_back, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Put back: 1 chunks.\n"), done.stderr
    assert messages_in_rabbitmq(amqp_url, DEAD_LETTERS) == 0
    with accepting_worker(log) as worker:
        until(lambda: ask(database_url, "SELECT key FROM refusals") == [("deadly",)])
        worker.terminate()
        assert worker.wait(40) == 0


@contextmanager
def accepting_worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "workers", "worker"]
    options = ["-Q", INTENTS, "-P", "threads", "-c", "1"]
    with (
        log.open("ab") as output,
        subprocess.Popen([*command, *options], cwd=ROOT, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def take_and_vanish(amqp_url: str) -> None:
    """What RabbitMQ sees of a worker that is killed: its connection ends, and it said nothing."""
    with kombu.Connection(amqp_url) as connection:
        until(lambda: connection.default_channel.basic_get(INTENTS))
        connection.collect()


def writing_refusals(database_url: str) -> list[tuple[Any, ...]]:
    """The ledger's processes that wait to write a refusal."""
    waiting = "wait_event_type = 'Lock' AND datname = current_database()"
    return ask(database_url, f"SELECT pid FROM pg_stat_activity WHERE {waiting}")


def end_writing(database_url: str) -> None:
    """What a killed worker asked of the ledger waits on; it is not to be taken for the next one."""
    for (pid,) in writing_refusals(database_url):
        ask(database_url, f"SELECT pg_terminate_backend({pid})")
    until(lambda: not writing_refusals(database_url))


def ask(database_url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)
