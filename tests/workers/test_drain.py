"""A worker that drains: what runs is finished, what was only fetched goes to another at once."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.settings import load_settings
from converge_producer.queues import deliver_task, lane_queue
from tests.workers.brokers import Broker
from workers.application import make_app

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "--quiet", "-A", "tests.workers.small_app"]
QUEUES = [lane_queue("email", lane) for lane in ("normal", "bulk")]
LONG_S = 300.0  # longer than all that is waited for meanwhile


def wait(condition: Callable[[], object], told: Callable[[], str], most_s: float = 60) -> None:
    deadline = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


class Place:
    """A broker, an empty ledger, and workers of one thread that do what tests can watch."""

    def __init__(self, database_url: str, folder: Path, pool: str) -> None:
        self.database_url = database_url
        self.folder = folder
        self.pool = pool
        self._app = make_app(load_settings())
        self._log = folder / "log"

    def close(self) -> None:
        self._app.close()

    @contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        options = ["-Q", ",".join(QUEUES), "-P", self.pool, "-c", "1", "-n", f"{name}@here"]
        with (
            self._log.open("ab") as log,
            subprocess.Popen([*CELERY, "worker", *options], cwd=ROOT, stdout=log, stderr=log) as it,
        ):
            try:
                self.wait(lambda: self.state(name) == "running")
                yield it
            finally:
                it.terminate()

    def send(self, name: str, queue: str, gate: Path | None = None) -> None:
        """Have a task done that says so, and that ends when the gate is there."""
        payload: dict[str, Any] = {"v": 1, "file": str(self.folder / name), "seconds": 0}
        if gate is not None:
            payload |= {"gate": str(gate), "seconds": LONG_S}
        self._app.send_task(deliver_task("email"), (payload,), queue=queue)

    def said(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def state(self, worker: str) -> str | None:
        rows = self.rows("SELECT state FROM workers WHERE name = %s", f"{worker}@here")
        return rows[0][0] if rows else None

    def drain(self, worker: str, asked: str = "now()") -> None:
        self.rows(
            f"UPDATE workers SET drain_asked_at = {asked} WHERE name = %s RETURNING id",
            f"{worker}@here",
        )

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def wait(self, condition: Callable[[], object]) -> None:
        wait(condition, self._log.read_text)

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture(params=["threads", pytest.param("solo", marks=pytest.mark.slow)])
def place(
    request: pytest.FixtureRequest,
    broker: Broker,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    broker.forget_everything()
    monkeypatch.setenv("CONVERGE_DATABASE_URL", database_url)
    monkeypatch.setenv("CONVERGE_REDIS_URL", broker.redis_url)
    monkeypatch.setenv("CONVERGE_BROKER_URL", broker.url)
    monkeypatch.setenv("CONVERGE_SECRET", "s" * 40)
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(tmp_path / "data"))
    place = Place(database_url, tmp_path, request.param)
    yield place
    place.close()


def test_what_was_fetched_goes_to_another_worker_and_what_runs_is_finished(place: Place) -> None:
    gate = place.folder / "gate"
    with ExitStack() as stack:
        first = stack.enter_context(place.worker("first"))
        place.send("long", QUEUES[0], gate)
        place.wait(lambda: place.said("long") == "started")
        waiting = [f"{queue}-{number}" for queue in QUEUES for number in range(3)]
        for name in waiting:
            place.send(name, name.rpartition("-")[0])
        place.drain("first")
        stack.enter_context(place.worker("second"))
        if place.pool == "solo":  # its one thread works, and can give nothing back meanwhile
            gate.touch()
        place.wait(lambda: all(place.said(name) == "done" for name in waiting))
        assert gate.exists() or place.said("long") == "started", "and it still runs"
        gate.touch()
        place.wait(lambda: place.state("first") == "drained")
        assert place.said("long") == "done"
        assert first.poll() is None, "it stays until it is stopped"
        place.drain("first", "NULL")
        place.wait(lambda: place.state("first") == "running")
        place.drain("second")
        place.wait(lambda: place.state("second") == "drained")
        place.send("again", QUEUES[1])
        place.wait(lambda: place.said("again") == "done")
    assert {place.state(name) for name in ("first", "second")} == {"stopped"}
    assert "Traceback" not in place.log()
