"""All of Converge on one machine: its servers, its processes and their ports.

What `converge up` and `converge demo` have in common.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

import requests

from app.bootstrap import build
from app.cli.context import declared
from app.cli.failures import Problem
from app.cli.ports import environment, has_local_sandbox, remember_ports, with_free_ports
from app.embedded import EmbeddedServers, Source
from app.supervisor import Command, Supervisor
from app.usecases.operating.apply import apply
from app.usecases.runtime import Runtime
from config.settings import Settings

LOG = "converge.log"
LOG_TAIL = 12
STOP_GRACE_S = 45.0
READY_LINE = '"worker_ready"'


@dataclass(slots=True)
class Machine:
    """A set-up machine. `moved` says in words which ports are not the usual ones."""

    settings: Settings
    runtime: Runtime
    log: Path
    habits: tuple[str, ...] = ()
    moved: list[str] = field(default_factory=list)
    workers: int = 0

    @property
    def api_url(self) -> str:
        """Where the API answers on this machine."""
        return f"http://{_reachable(self.settings.api_host)}:{self.settings.api_port}"

    @property
    def flower_url(self) -> str:
        """Where Flower answers on this machine."""
        return f"http://{_reachable(self.settings.flower_host)}:{self.settings.flower_port}"

    @property
    def has_sandbox(self) -> bool:
        """Whether a sandbox is wanted here; one that was set to be elsewhere is not ours."""
        here = has_local_sandbox(self.settings)
        return here and any(account.sandbox for account in self.runtime.accounts.values())

    def run(self, meanwhile: Generator[object, None, None]) -> int:
        """Run every process until `meanwhile` or a signal ends it; return the exit status."""
        commands = self._commands()
        supervisor = Supervisor(commands, grace_s=STOP_GRACE_S, output=self.log)
        return supervisor.run(meanwhile)

    def wait_until_ready(self, most_s: float = 90.0) -> Iterator[str]:
        """Yield what is waited for, until everything answers; after `most_s` go on regardless."""
        # The log of an earlier run is not about these processes.
        begin = self.log.stat().st_size if self.log.exists() else 0
        deadline = time.monotonic() + most_s
        while (waiting := self._not_ready(begin)) and time.monotonic() < deadline:
            yield waiting

    def why_it_ended(self) -> str:
        """Say that a process does not come up, with the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line[:200] for line in lines if line and not line.startswith("worker: ")]
        shown = "\n".join(said[-LOG_TAIL:])
        return (
            f"A process does not come up, so everything was stopped. The end of the log:\n{shown}"
        )

    def _commands(self) -> list[Command]:
        workers = worker_commands("all")
        logged = self.settings.log_level in ("debug", "info")
        self.workers = len(workers) if logged else 0
        wanted = [
            Command("api", (sys.executable, "-m", "app.api.server")),
            *workers,
            Command("beat", (sys.executable, "-m", "workers", "beat")),
            Command("flower", (sys.executable, "-m", "workers", "flower")),
        ]
        if self.has_sandbox:
            wanted.insert(0, self._sandbox())
        return wanted

    def _sandbox(self) -> Command:
        of = self.settings
        url = urlsplit(of.sandbox_url)
        options = {
            "--host": url.hostname or "127.0.0.1",
            "--smtp-port": str(of.sandbox_smtp_port),
            "--http-port": str(url.port or 80),
            "--public-url": of.public_url,
            "--reach-url": self.api_url,
        }
        pairs = (part for option in options.items() for part in option)
        return Command("sandbox", (sys.executable, "-m", "app.sandbox", *pairs, *self.habits))

    def _not_ready(self, begin: int) -> str:
        places = {"the API": f"{self.api_url}/healthz", "Flower": f"{self.flower_url}/healthcheck"}
        if self.has_sandbox:
            places["the sandbox"] = f"{self.settings.sandbox_url}/healthz"
        for name, url in places.items():
            if not answers(url):
                return name
        with self.log.open("rb") as log:
            log.seek(begin)
            ready = log.read().count(READY_LINE.encode())
        return "" if ready >= self.workers else f"the workers ({ready} of {self.workers})"


@contextmanager
def one_machine(
    settings: Settings, *, habits: tuple[str, ...] = (), safe: bool = True
) -> Iterator[Machine]:
    """Set a machine up and take it down; in the embedded profile with its servers and its data.

    Raises what is wrong with settings, declarations, servers or the schema.
    """
    settings, moved = with_free_ports(settings)
    log = settings.data_dir.resolve() / LOG
    if not settings.embedded:
        log.parent.mkdir(parents=True, exist_ok=True)
        os.environ.update(environment(settings))
        yield Machine(settings, build(settings), log, habits, moved)
        return
    from app.store.migrate import upgrade  # brings Alembic, which other commands do not need

    wishes = declared(settings.config_dir)  # wrong declarations are told before anything starts
    servers = EmbeddedServers(
        settings.data_dir, source=Source(settings.embedded_source), safe=safe, exclusive=True
    )
    try:
        found = servers.start()
        settings = settings.with_servers(found.database_url, found.redis_url, found.secret)
        os.environ.update(environment(settings))
        upgrade(settings.database_url)
        runtime = build(settings)
        apply(runtime, wishes, actor="converge up")
        remember_ports(settings)
        yield Machine(settings, runtime, log, habits, moved)
        runtime.engine.dispose()
    finally:
        with _deaf_to_signals():
            servers.stop()


def worker_commands(fleet: str) -> list[Command]:
    """The command lines of a fleet, each named after its worker."""
    asked = (sys.executable, "-m", "workers", fleet, "--print")
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603  # our own command line, no shell
    if answer.returncode:
        raise Problem(answer.stderr.strip() or f"The fleet {fleet!r} cannot be started.")
    lines = [tuple(shlex.split(line)) for line in answer.stdout.splitlines()]
    return [Command(line[line.index("-n") + 1].partition("@")[0], line) for line in lines]


def answers(url: str) -> bool:
    """Whether a URL on this machine answers well, within a second."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=1).ok
        except requests.RequestException:
            return False


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs as Ctrl-C does: by unwinding it."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise KeyboardInterrupt

    before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Nothing interrupts an orderly end: a second Ctrl-C would leave servers behind."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, signal.SIG_IGN) for each in ends}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _reachable(host: str) -> str:
    """An address to call for one to listen on."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  # compared only
