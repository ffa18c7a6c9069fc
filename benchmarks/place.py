"""Where everything is measured: private servers, mail sinks and worker processes of one run.

Postgres and Redis are Converge's own embedded ones with the settings that users have (fsync and
synchronous_commit on), in a folder that goes away with the run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
from redis import Redis

from app.bootstrap import build
from app.embedded import EmbeddedServers
from app.store import migrate
from app.usecases.operating.apply import BrandWish, Declared, apply
from app.usecases.people.customers import put_customers
from app.usecases.runtime import Runtime
from benchmarks import mail
from config.schema import load_brands, load_policies
from config.settings import Settings
from workers.fleets import fleet_commands

ROOT = Path(__file__).parents[1]
START_S = 60.0
STOP_S = 60.0
CUSTOMERS = 5_000
SECRET = "a-secret-of-the-benchmarks-alone-and-long-enough"
RELAY = """
[{name}]
channel = "email"
provider = "smtp"
host = "127.0.0.1"
port = {port}
tls = "none"
"""
SANDBOX_SECRET = "a-secret-of-the-sandbox"
PHONE = """
[texts]
channel = "sms"
provider = "sandbox"
url = "{url}"
secret = "{secret}"
"""
NOWHERE = "http://127.0.0.1:9"
UNLIMITED = 100_000
"""A rate that never binds, so that the permits are asked for all the same."""


class Stuck(Exception):
    """What was waited for did not happen; the text says what, and shows the end of the log."""


class Place:
    """The servers of a run, and how processes are started against them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="converge-bench-"))
        # Whoever runs Postgres passes through to its own folder and can list nothing.
        self.folder.chmod(0o711)
        self._servers = EmbeddedServers(self.folder / "data", exclusive=True)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.sinks: list[int] = []
        self.settings: Settings
        self.brand_id = 0

    def __enter__(self) -> Self:
        found = self._servers.start()
        self.settings = Settings(
            database_url=found.database_url,
            redis_url=found.redis_url,
            secret=(SECRET,),
            public_url="https://converge.example",
            config_dir=self.folder / "config",
            data_dir=self.folder / "data",
        )
        self.settings.config_dir.mkdir()
        self.accounts()
        migrate.upgrade(found.database_url)
        runtime = self.runtime()
        apply(runtime, _declared())
        self.brand_id = runtime.catalog().brands["demo"].id
        for start in range(0, CUSTOMERS, 500):
            rows = [mail.customer(number) for number in range(start, start + 500)]
            put_customers(runtime, self.brand_id, rows)
        runtime.engine.dispose()
        self.execute("ANALYZE")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            end(process)
        self._servers.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- configuration ---------------------------------------------------------------------------

    def accounts(self, phone_url: str = NOWHERE, **relays: tuple[int, float | None]) -> None:
        """Write providers.toml: mail accounts by name as (port, rate), and one for texts."""
        tables = [
            RELAY.format(name=name, port=port) + (f"rate = {rate}\n" if rate else "")
            for name, (port, rate) in relays.items()
        ]
        tables.append(PHONE.format(url=phone_url, secret=SANDBOX_SECRET))
        (self.settings.config_dir / "providers.toml").write_text("".join(tables))

    def runtime(self) -> Runtime:
        """A runtime of this process, as workers have one."""
        return build(self.settings)

    def environment(self, **more: str) -> dict[str, str]:
        """What a process needs to see these servers; Converge's own variables are left behind."""
        clean = {name: text for name, text in os.environ.items() if not name.startswith("CONVERGE")}
        return clean | self.settings.environment() | {"CONVERGE_LOG_FORMAT": "json"} | more

    # -- the ledger ------------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement in a transaction of its own."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            connection.execute(statement, parameters)

    def script(self, statements: str) -> None:
        """Run several statements in one session."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            for statement in statements.split(";"):
                connection.execute(statement.encode())

    def one(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            row = connection.execute(query, parameters).fetchone()
        return None if row is None else row[0]

    def empty(self) -> None:
        """Forget every intent and hint, and let nothing of the work before cost the work after."""
        self.execute("TRUNCATE intents, decisions, deliveries, attempts, events, inbox, refusals")
        self.execute("CHECKPOINT")

    def redis(self) -> "Redis":
        """A client of the broker."""
        return Redis.from_url(self.settings.redis_url)

    # -- processes -------------------------------------------------------------------------------

    def spawn(
        self, name: str, *arguments: str, output: Any = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start `python ARGUMENTS` at the root of the repository; its words go to NAME.log."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=log if output is None else output,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self._processes.append(process)
        return process

    @contextmanager
    def sink(self, *options: str) -> Iterator[int]:
        """Run a mail sink and yield its port."""
        arguments = ("-m", "app.sandbox.mailsink", "--port", "0", *options)
        process = self.spawn("sink", *arguments, output=subprocess.PIPE)
        assert process.stdout is not None
        self.sinks.append(process.pid)
        try:
            yield int(process.stdout.readline())
        finally:
            self.sinks.remove(process.pid)
            end(process)

    @contextmanager
    def fleet(self, *names: str, **environment: str) -> Iterator["Fleet"]:
        """Run fleets as `python -m workers NAME` does, until they have said that they are ready."""
        fleet = Fleet(self, names, environment)
        try:
            fleet.wait_ready()
            yield fleet
        finally:
            fleet.end()


class Fleet:
    """Running fleets; `beat` may be among the names."""

    def __init__(self, place: Place, names: Sequence[str], environment: Mapping[str, str]) -> None:
        self._place = place
        self._log = place.folder / f"fleet-{time.monotonic_ns()}.log"
        settings = place.settings
        if "CONVERGE_WORKER_PROCESSES" in environment:
            processes = int(environment["CONVERGE_WORKER_PROCESSES"])
            settings = settings.model_copy(update={"worker_processes": processes})
        self._wanted = sum(len(fleet_commands(name, settings)) for name in names if name != "beat")
        self.processes = {
            name: place.spawn(self._log.stem, "-m", "workers", name, **environment)
            for name in names
        }

    def wait_ready(self) -> None:
        """Wait until every worker takes work."""

        def ready() -> bool:
            if any(process.poll() is not None for process in self.processes.values()):
                raise Stuck("a fleet ended at once\n" + self._tail())
            return self._log.read_bytes().count(b'"worker_ready"') >= self._wanted

        wait_until(ready, START_S, "the workers to be ready", self._tail)

    def suspend_beat(self) -> None:
        """Let no tick come any more, and wait for the one under way."""
        self.processes["beat"].send_signal(signal.SIGSTOP)
        time.sleep(1.0)

    def resume_beat(self) -> None:
        """Let ticks come again; one is overdue and comes at once."""
        self.processes["beat"].send_signal(signal.SIGCONT)

    def resident(self, name: str) -> int:
        """Bytes resident in memory of the worker called NAME@…, or of all so called."""
        found = 0
        for process in self.processes.values():
            for child in [psutil.Process(process.pid), *_children(process.pid)]:
                if any(part.startswith(f"{name}@") for part in child.cmdline()):
                    found += int(child.memory_info().rss)
        return found

    def processor_seconds(self) -> dict[str, float]:
        """Processor time used so far by each worker, by its name."""
        used: dict[str, float] = {}
        for process in self.processes.values():
            for child in [psutil.Process(process.pid), *_children(process.pid)]:
                named = [part for part in child.cmdline() if part.endswith("@%h")]
                if named:
                    times = child.cpu_times()
                    name = named[0].removesuffix("@%h")
                    used[name] = times.user + times.system
        return used

    def end(self) -> None:
        """End every process of these fleets."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            end(process)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def wait_until(
    true: Callable[[], bool], within_s: float, what: str, tail: Callable[[], str] = str
) -> None:
    """Wait for a condition; raises `Stuck`."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise Stuck(f"waited {within_s:.0f} s for {what}\n{tail()}")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours: ask first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _declared() -> Declared:
    brands = load_brands(ROOT / "config" / "brands.toml")
    return Declared(
        brands={
            name: BrandWish(brand.settings(), brand.sender_settings(), brand.topics)
            for name, brand in brands.items()
        },
        policies=load_policies(ROOT / "config" / "policies.toml"),
    )
