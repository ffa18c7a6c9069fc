"""Everything that a run breaks, and everything that it is held against: a Converge of its own.

Real Postgres and Redis as the embedded profile has them (nothing is traded for speed), the
processes of a fleet and of the API, providers that can misbehave, and people.
"""

import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import text

from app.bootstrap import build
from app.domain.tokens import Signer
from app.embedded import EmbeddedServers, postgres, redis
from app.embedded.binaries import Source, find_redis
from app.embedded.process import ServerProcess
from app.store import migrate
from app.supervisor import Command
from app.usecases.operating.apply import BrandWish, Declared, apply
from app.usecases.operating.keys import create_key
from app.usecases.runtime import Runtime
from config.settings import Settings
from tests.chaos import outside
from tests.chaos.load import BRAND, Load
from tests.chaos.outside import Arrivals, Gateway, NotingOutside, Relay
from tests.chaos.processes import Processes
from tests.chaos.schedule import GATEWAYS, PROCESSES, RELAYS
from workers.fleets import BEAT, fleet_commands

LEASE_S = 6.0
HINT_LOST_S = 5.0
UNSEEN_S = 10.0
COMES_UP_WITHIN_S = 120.0
TOKENS = "a secret of the tests alone and long enough"


def declared(expires_s: float) -> Declared:
    """One brand; an unseen mail is followed by a text."""
    ladders = {
        "notify": [("email", UNSEEN_S), ("sms", None)],
        "email-only": [("email", None)],
        "sms-only": [("sms", None)],
    }
    senders = {
        name: {
            "name": name.title(),
            "email": f"{name}@shop.example",
            "phone": "+15550100100",
            "tracking": "all",
        }
        for name in ("store", "billing")
    }
    settings = {"title": "Demo", "default_locale": "en", "default_sender": "store"}
    return Declared(
        brands={BRAND: BrandWish(settings=settings, senders=senders, topics={"orders": "Orders"})},
        policies={
            name: {
                "name": name,
                "expires_after_s": expires_s,
                "seen_at": "opened",
                "steps": [
                    {"channels": [channel], "unless_seen_within_s": within}
                    for channel, within in ladder
                ],
            }
            for name, ladder in ladders.items()
        },
    )


class Servers:
    """The Postgres and the Redis of a run, which can be stopped and started in their places."""

    def __init__(self, folder: Path) -> None:
        self._embedded = EmbeddedServers(folder, exclusive=True)

    def start(self) -> None:
        self._embedded.start()

    @property
    def database_url(self) -> str:
        return self._embedded.endpoints.database_url

    @property
    def redis_url(self) -> str:
        return self._embedded.endpoints.redis_url

    def stop(self) -> None:
        self._embedded.stop()

    def end(self, name: str, with_signal: Any) -> None:
        """End a server, and return when it has ended."""
        self._running(name).end(with_signal)

    def start_again(self, name: str) -> None:
        """Start a server on the port that it had, and return when it answers."""
        folder, port = self._embedded.data_dir, self._running(name).port
        password = self._embedded._read_state()["password"]
        answers: Callable[[int, str], bool]
        if name == "postgres":
            home = postgres.home_for(folder)
            programs = postgres.programs_for(home, Source.ANY)
            start, answers = partial(postgres.start, home, programs, port, True), postgres.ping
        else:
            start = partial(redis.start, find_redis(Source.ANY), folder, port, password, True)
            answers = redis.ping

        def up() -> bool:
            # While it was away its port may have become that of somebody's connection for a moment.
            if self._running(name).find() is None:
                self._embedded._running[name] = start()
            return answers(port, password)

        wait_until(up, f"{name} answers again")

    def _running(self, name: str) -> ServerProcess:
        return self._embedded._running[name]


@dataclass
class World:
    """All of it, and short words for looking at the ledger."""

    seed: int
    servers: Servers
    settings: Settings
    runtime: Runtime
    processes: Processes
    relays: dict[str, Relay]
    gateways: dict[str, Gateway]
    outside: NotingOutside
    arrivals: Arrivals
    key: str
    load: Load = field(default_factory=Load)

    @property
    def api_url(self) -> str:
        return self.settings.public_url

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.runtime.engine.begin() as connection:
            return list(connection.execute(text(query), parameters).all())

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.runtime.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def ready(self) -> bool:
        """Whether every process takes work."""
        workers = len(PROCESSES) - 2
        try:
            answer = requests.get(f"{self.api_url}/readyz", timeout=5)
        except requests.RequestException:
            return False
        return answer.ok and self.processes.logged("worker_ready") >= workers


@contextmanager
def running_world(seed: int, *, expires_s: float) -> Iterator[World]:
    """Start everything and wait until it works; at the end, end exactly what was started.

    The folder with the data and the logs stays when the block raises.
    """
    # Not under pytest's own folder: the user whom Postgres runs as could not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="converge-chaos-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        servers = Servers(folder / "servers")
        servers.start()
        stack.callback(servers.stop)
        migrate.upgrade(servers.database_url)
        settings = Settings(
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            secret=(TOKENS,),
            api_port=_quiet_port(),
            config_dir=folder,
            data_dir=folder,
            lease_seconds=LEASE_S,
            hint_lost_seconds=HINT_LOST_S,
            worker_processes=1,
            worker_threads=2,
        )
        loop = stack.enter_context(outside.running_loop())
        people, ways = stack.enter_context(outside.running_people(loop, settings.public_url, seed))
        arrivals, signer = Arrivals(), Signer([TOKENS.encode()])
        relays = {name: Relay(name, arrivals, people, signer) for name in RELAYS}
        gateways = {name: Gateway(name, arrivals, people, loop) for name in GATEWAYS}
        for relay in relays.values():
            stack.enter_context(outside.running_relay(relay, loop))
        for gateway in gateways.values():
            stack.enter_context(outside.running_gateway(gateway))
        (folder / "providers.toml").write_text(_accounts(relays, gateways))
        runtime = build(settings)
        stack.callback(runtime.engine.dispose)
        apply(runtime, declared(expires_s))
        processes = Processes(_commands(settings), folder / "processes.log")
        for provider in (*relays.values(), *gateways.values()):
            provider.kill_with(processes.kill_client)
        stack.callback(processes.stop)
        processes.start()
        world = World(
            seed=seed,
            servers=servers,
            settings=settings,
            runtime=runtime,
            processes=processes,
            relays=relays,
            gateways=gateways,
            outside=ways,
            arrivals=arrivals,
            key=create_key(runtime, BRAND),
        )
        world.execute("CREATE SCHEMA chaos")  # for what this run keeps in the ledger
        wait_until(world.ready, "the processes take work", processes.poll)
        yield world
    shutil.rmtree(folder, ignore_errors=True)


def _quiet_port() -> int:
    """A free port that no connection is given by chance, as are those from 32768 on (ip(7)): it
    stays the API's while that is away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _accounts(relays: dict[str, Relay], gateways: dict[str, Gateway]) -> str:
    lines = []
    for name, relay in relays.items():
        lines += [f"[{name}]", 'channel = "email"', 'provider = "smtp"', 'host = "127.0.0.1"']
        lines += [f"port = {relay.sink.port}", 'tls = "none"']
    for name, gateway in gateways.items():
        lines += [f"[{name}]", 'channel = "sms"', 'provider = "sandbox"', "concurrency = 8"]
        lines += [f'url = "{gateway.url}"', f'secret = "{outside.SECRET}"']
    return "\n".join(lines)


def _commands(settings: Settings) -> list[Command]:
    """The processes of PROCESSES, each a command of its own."""
    environment = settings.environment() | {
        "CONVERGE_API_PORT": str(settings.api_port),
        "CONVERGE_LEASE_SECONDS": str(settings.lease_seconds),
        "CONVERGE_HINT_LOST_SECONDS": str(settings.hint_lost_seconds),
        "CONVERGE_WORKER_THREADS": str(settings.worker_threads),
        "CONVERGE_LOG_FORMAT": "json",
        "PYTHONWARNINGS": "default",
    }
    two = settings.model_copy(update={"worker_processes": 2})
    commands = [
        *fleet_commands("core", settings),
        *fleet_commands("email", two),
        *fleet_commands("sms", settings),
        BEAT,
        Command("api", (sys.executable, "-m", "app.api.server")),
    ]
    assert {command.name for command in commands} == set(PROCESSES)
    return [Command(each.name, each.argv, environment) for each in commands]


def wait_until(
    look: Callable[[], object],
    what: str,
    meanwhile: Callable[[], None] = lambda: None,
    within_s: float = COMES_UP_WITHIN_S,
) -> None:
    """Wait until `look` finds something."""
    deadline = time.monotonic() + within_s
    while not look():
        meanwhile()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.05)
