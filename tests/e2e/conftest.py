"""Converge as a user runs it: `converge up` in a folder of its own, shared by the tests here."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
import pytest
import requests

from app.cli import context
from app.cli.commands import run
from tests.e2e.api import house, sink, site  # noqa: F401  # fixtures

ROOT = Path(__file__).parents[2]
CONVERGE = Path(sys.executable).with_name("converge")
READY_WITHIN_S = 100.0
T = TypeVar("T")
Inside = Callable[..., tuple[int, str, str]]


def environment(**settings: str | Path) -> dict[str, str]:
    """This machine's variables, with no settings of Converge but these (without the prefix)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONVERGE_")}
    given = {f"CONVERGE_{name}": str(value) for name, value in settings.items()}
    return {**kept, "COLUMNS": "200", **given}


def run_converge(
    *arguments: str | Path, stdin: str | bytes = b"", **settings: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; nothing that it does is expected to take long."""
    done = subprocess.run(
        [CONVERGE, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment(**settings),
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    told = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
    assert "Traceback" not in told.stderr, told.stderr
    return told


def wait_for(what: Callable[[], T | None], why: str, most_s: float = 30.0) -> T:
    """Wait until `what` returns something true, and return that."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {most_s:.0f} s: {why}")


@dataclass
class Converge:
    """A running `converge up`."""

    folder: Path
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def addresses(self) -> dict[str, int]:
        """The ports that it chose."""
        found: dict[str, int] = json.loads((self.folder / "data/addresses.json").read_text())
        return found

    @property
    def key(self) -> str:
        """The API key that it made."""
        return (self.folder / "data/api-key").read_text().strip()

    def url(self, name: str) -> str:
        """Where `api_port`, `flower_port` or `sandbox_url` answers."""
        return f"http://127.0.0.1:{self.addresses[name]}"

    def run(
        self, *arguments: str | Path, stdin: str | bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside it."""
        return run_converge(*arguments, stdin=stdin, DATA_DIR=self.folder / "data")

    def json(self, *arguments: str | Path) -> Any:
        """What a command prints with `--json`, and nothing else."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def enqueue(self, *intents: dict[str, Any]) -> list[dict[str, Any]]:
        """Enqueue intents; return the verdicts."""
        lines = "".join(json.dumps(intent) + "\n" for intent in intents)
        done = self.run("enqueue", "-", "--json", stdin=lines)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def intent(self, intent_id: UUID | str, **expected: str) -> dict[str, Any] | None:
        """An intent as the API tells it, once it is as expected."""
        answer = requests.get(
            f"{self.url('api_port')}/v1/intents/{intent_id}",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        fits = all(told[name] == value for name, value in expected.items())
        return told if fits else None

    def screen(self, address: str) -> list[dict[str, Any]]:
        """What an address got in the sandbox."""
        answer = requests.get(
            f"{self.url('sandbox_url')}/state", params={"to": address}, timeout=30
        )
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages

    def family(self) -> list[psutil.Process]:
        """Every process of it: children, and the servers, which are sessions of their own."""
        servers = json.loads((self.folder / "data/servers.json").read_text())["servers"]
        pids = [each["pid"] for each in servers.values()]
        found = psutil.Process(self.process.pid).children(recursive=True)
        return found + [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """Stop it as Ctrl-C does; return the exit status."""
        self.process.send_signal(with_signal)
        return self.process.wait(60)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the user whom Postgres runs as may pass (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="converge-e2e-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """While the block runs no other test's Converge begins: both would choose the same ports."""
    with (Path(tempfile.gettempdir()) / "converge-e2e.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def running(folder: Path, **settings: str | Path) -> Iterator[Converge]:
    """Run `converge up` on the data of `folder` until the block ends."""
    with _one_at_a_time():
        converge = _begin(folder, settings)
    try:
        yield converge
    finally:
        if converge.process.poll() is None:
            converge.stop()


def _begin(folder: Path, settings: Mapping[str, str | Path]) -> Converge:
    output = folder / "output.txt"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [CONVERGE, "up"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(DATA_DIR=folder / "data", WORKER_PROCESSES="1", **settings),
            cwd=ROOT,
            start_new_session=True,
        )
    converge = Converge(folder, process, output)
    try:
        wait_for(
            lambda: "Converge is running" in output.read_text() or process.poll() is not None,
            "Converge runs",
            READY_WITHIN_S,
        )
    except AssertionError:
        converge.stop()
        raise
    assert process.poll() is None, output.read_text()
    return converge


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Inside]:
    """Run a command in this process, which is quick: (exit status, output, errors)."""
    monkeypatch.setenv("COLUMNS", "200")

    def forget() -> None:
        if context.runtime.cache_info().currsize:
            context.runtime().engine.dispose()
        context.runtime.cache_clear()
        context.settings.cache_clear()

    def run_inside(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["converge", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        forget()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    yield run_inside
    forget()


@pytest.fixture(scope="session")
def converge() -> Iterator[Converge]:
    """A Converge that runs for all tests of this folder; they use customers of their own."""
    with open_folder() as folder, running(folder) as running_converge:
        yield running_converge
