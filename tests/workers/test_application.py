"""The Celery application in real processes over a real broker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from app.bootstrap import build
from app.store.session import POOL_TIMEOUT_S, STATEMENT_TIMEOUT_S
from config.settings import Settings, load_settings
from converge_producer.queues import (
    CONTROL,
    QUEUES,
    TASK_DISPATCH,
    TASK_UPKEEP,
    deliver_task,
    lane_queue,
)
from tasks.control import Turns
from tasks.intents import AGAIN_S
from workers.application import make_app
from workers.fleets import FLEETS, fleet_commands

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "--quiet", "-A", "tests.workers.small_app"]
PRIVATE = "ada@example.com"


def _wait(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def settings(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setenv("CONVERGE_DATABASE_URL", database_url)
    monkeypatch.setenv("CONVERGE_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERGE_SECRET", "s" * 40)
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(tmp_path / "data"))
    return load_settings()


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    app = make_app(settings)
    yield app
    app.close()


@contextmanager
def _running(*arguments: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        output.open("wb") as log,
        subprocess.Popen([*CELERY, *arguments], cwd=ROOT, stdout=log, stderr=log) as process,
    ):
        yield process
        process.terminate()
        assert process.wait(40) == 0, output.read_text()


def _worker(queues: str, output: Path) -> Any:
    return _running("worker", "-Q", queues, "-P", "threads", "-c", "2", output=output)


@contextmanager
def _events(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Every event that workers send, as Flower gets them."""
    seen: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})

        def read() -> None:
            for _ in receiver.consume(limit=None, timeout=None, wakeup=True):
                if receiver.should_stop:
                    return

        thread = Thread(target=read, daemon=True)
        thread.start()
        yield seen
        receiver.should_stop = True
        thread.join(10)


def _of(events: list[dict[str, Any]], kind: str, task_id: str) -> list[dict[str, Any]]:
    return [each for each in events if each["type"] == kind and each.get("uuid") == task_id]


def test_a_failure_shows_its_place_and_not_a_word_it_said(
    app: Celery, redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with _events(app) as events, _worker("sms.normal", log):
        sent = app.send_task(
            deliver_task("sms"),
            ({"v": 1, "private": PRIVATE},),
            queue=lane_queue("sms", "normal"),
            argsrepr="<1 sms delivery, relay>",
        )
        _wait(lambda: _of(events, "task-failed", sent.id))
        (failed,) = _of(events, "task-failed", sent.id)
        assert "ValueError at " in failed["exception"]
        assert "tests/workers/small_app.py:" in failed["exception"]
        (received,) = _of(events, "task-received", sent.id)
        assert received["args"] == "<1 sms delivery, relay>"
    assert PRIVATE not in str(events)
    assert PRIVATE not in log.read_text()
    assert "task_failed" in log.read_text()
    with Redis.from_url(redis_url) as redis:
        left = [key for key in redis.scan_iter() if redis.type(key) in (b"hash", b"list")]
    assert left == [], "a failed task is acknowledged: its retry is the ledger's matter"


def test_what_no_task_takes_is_told_without_its_body(
    app: Celery, redis_url: str, tmp_path: Path
) -> None:
    """Of a release that is not here yet, of no encoding that we know, of no task at all."""
    log = tmp_path / "log"
    queue = lane_queue("sms", "normal")
    private = {"v": 1, "intents": [{"to": PRIVATE}]}
    bodies = {
        "unknown": ({"task": "sms.later", "id": "1"}, "application/json", json.dumps(private)),
        "none": ({}, "application/json", json.dumps(private)),
        "no_json": ({}, "application/json", f"[{PRIVATE}"),
        "pickled": (
            {"task": deliver_task("sms"), "id": "2"},
            "application/x-python-serialize",
            PRIVATE,
        ),
        "garbled": ({"task": deliver_task("sms"), "id": "3"}, "application/json", f"[{PRIVATE}"),
        "misshapen": ({"task": deliver_task("sms"), "id": "4"}, "application/json", f'"{PRIVATE}"'),
    }
    with _worker(queue, log) as worker, app.connection_for_write() as connection:
        producer = connection.Producer()
        for headers, kind, body in bodies.values():
            producer.publish(
                body,
                routing_key=queue,
                exchange="",
                headers=headers | {"argsrepr": PRIVATE} if headers else None,
                content_type=kind,
                content_encoding="utf-8",
            )
        with Redis.from_url(redis_url) as redis:
            _wait(lambda: not any(queue.encode() in key for key in redis.scan_iter()))
        done = app.send_task(deliver_task("sms"), ({"v": 1, "private": ""},), queue=queue)
        _wait(lambda: done.id in log.read_text())
        assert worker.poll() is None, "none of it ends the worker"
    told = log.read_text()
    assert told.count("message_not_taken") == len(bodies), told
    assert PRIVATE not in told, told


def test_sigterm_lets_the_running_batch_end_and_no_longer(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVERGE_SOFT_SHUTDOWN_SECONDS", "90")
    told, gate = tmp_path / "told", tmp_path / "gate"
    with _worker("email.normal", tmp_path / "log") as worker:
        payload = {"v": 1, "file": str(told), "gate": str(gate), "seconds": 90}
        app.send_task(deliver_task("email"), (payload,), queue=lane_queue("email", "normal"))
        _wait(lambda: told.exists() and told.read_text() == "started")
        worker.terminate()
        time.sleep(1)
        assert worker.poll() is None, "it waits for the batch"
        gate.touch()
        assert worker.wait(45) == 0, "far below the soft shutdown's time"
    assert told.read_text() == "done"


def test_beat_ticks_the_control_queue(app: Celery, settings: Settings, tmp_path: Path) -> None:
    def ticks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each for each in events if each.get("result") == "'released 1'"]

    with (
        _events(app) as events,
        _worker(CONTROL, tmp_path / "worker.log"),
        _running("beat", output=tmp_path / "beat.log"),
    ):
        _wait(lambda: len(ticks(events)) >= 2)
    received = [each for each in events if each.get("name") == TASK_DISPATCH and "args" in each]
    assert {each["args"] for each in received} == {"<tick>"}
    assert (settings.data_dir / "beat.pulse").exists()
    assert not (ROOT / "celerybeat-schedule").exists()


def test_no_tick_depends_on_clocks_that_agree(settings: Settings) -> None:
    for tick in make_app(settings).conf.beat_schedule.values():
        assert "expires" not in tick["options"], "Celery compares it with the worker's own clock"


def test_ticks_that_gathered_are_dropped_save_for_the_first() -> None:
    turns = Turns()
    tick = {"v": 1, "every_s": 60.0}
    assert [turns.take(TASK_DISPATCH, tick) for _ in range(3)] == [True, False, False]
    assert turns.take(TASK_UPKEEP, tick), "each kind has its own turns"
    before = [turns.take(TASK_DISPATCH, {"v": 1}) for _ in range(2)]
    assert before == [True, True], "a beat of the release before does not say how often it ticks"


def test_a_worker_on_a_wrong_schema_says_which_command_to_run(
    settings: Settings, servers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONVERGE_DATABASE_URL", servers.database_url)  # never migrated
    done = subprocess.run(
        [*CELERY, "worker", "-Q", CONTROL, "-P", "threads"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "converge migrate" in done.stderr


def test_an_unknown_queue_is_an_error(settings: Settings, tmp_path: Path) -> None:
    done = subprocess.run(
        [*CELERY, "worker", "-Q", "emial.normal"], cwd=ROOT, capture_output=True, timeout=60
    )
    assert done.returncode != 0


def test_every_task_name_of_the_wire_has_a_body(settings: Settings) -> None:
    code = (
        "from workers.celery import app\n"
        "from converge_producer.queues import TASKS\n"
        "app.loader.import_default_modules()\n"
        "missing = set(TASKS) - set(app.tasks)\n"
        "raise SystemExit(', '.join(missing) if missing else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("fleets", [["core", "email", "sms", "chat", "social"], ["all"]])
def test_every_queue_has_one_kind_of_worker(settings: Settings, fleets: list[str]) -> None:
    served = [queue for name in fleets for each in FLEETS[name](settings) for queue in each.queues]
    assert sorted(served) == sorted(QUEUES)


@pytest.mark.parametrize("channel", ["email", "sms", "chat", "social"])
def test_urgent_has_a_process_alone_and_the_rest_has_n(settings: Settings, channel: str) -> None:
    several = settings.model_copy(update={"worker_processes": 3})
    lines = [command.argv for command in fleet_commands(channel, several)]
    queues = [line[line.index("-Q") + 1] for line in lines]
    assert queues == [f"{channel}.urgent", *[f"{channel}.normal,{channel}.bulk"] * 3]
    assert len({line[line.index("-n") + 1] for line in lines}) == 4
    assert all("--without-gossip" in line and "--without-mingle" in line for line in lines)


def test_the_broker_may_be_rabbitmq_by_url_alone(settings: Settings) -> None:
    rabbit = settings.model_copy(update={"broker_url": "amqp://guest@127.0.0.1//"})
    app = make_app(rabbit)
    assert app.conf.broker_transport_options == {"confirm_publish": True}
    queue = app.amqp.queues["email.bulk"]
    assert queue.queue_arguments["x-queue-type"] == "quorum"
    assert queue.exchange.type == "topic"


def test_python_m_workers_names_what_it_knows(settings: Settings) -> None:
    command = [sys.executable, "-m", "workers"]
    done = subprocess.run([*command, "fax"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "email" in done.stderr


def test_python_m_workers_without_servers_says_how_to_start_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(tmp_path / "nothing"))
    command = [sys.executable, "-m", "workers", "email"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "converge up" in done.stderr


def test_a_fleet_comes_up_answers_its_health_check_and_ends(settings: Settings) -> None:
    command = [sys.executable, "-m", "workers", "sms"]
    environment = {**os.environ, "CONVERGE_WORKER_PROCESSES": "1"}
    ping = [*command, "--ping"]
    assert subprocess.run(ping, cwd=ROOT, env=environment, timeout=60).returncode == 1
    with subprocess.Popen(command, cwd=ROOT, env=environment) as fleet:
        _wait(
            lambda: subprocess.run(ping, cwd=ROOT, env=environment, timeout=60).returncode == 0, 60
        )
        fleet.terminate()
        assert fleet.wait(40) == 0


def test_redis_gives_nothing_to_another_while_it_runs(settings: Settings) -> None:
    """A run that outlasts the visibility time-out does no harm, but none should.

    The longest is a batch whose lease ends while it waits for the ledger: a connection, the claim,
    the lease, a last statement. Accepting is a connection, a statement that waits, and a pause.
    """
    longest = POOL_TIMEOUT_S + STATEMENT_TIMEOUT_S + Settings().lease_seconds + STATEMENT_TIMEOUT_S
    assert settings.broker_url.startswith("redis:")
    options = make_app(settings).conf.broker_transport_options
    assert options["visibility_timeout"] >= longest
    assert options["visibility_timeout"] >= POOL_TIMEOUT_S + STATEMENT_TIMEOUT_S + AGAIN_S


def test_what_is_sent_ends_within_the_grace(settings: Settings) -> None:
    patient = settings.model_copy(update={"lease_seconds": 600.0})
    runtime = build(patient)
    assert runtime.timing.send <= patient.soft_shutdown_seconds
    runtime.engine.dispose()
