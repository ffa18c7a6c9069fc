"""Real worker processes on a ledger, a broker and mail servers of their own.

A fleet is what an operator runs: `python -m workers core`, `email` and `beat`, each its own process
tree, kept alive by the supervisor that `converge up` uses. Leases are short, so that what a fault
leaves behind is found soon. What came of the work is reckoned from the two ends that cannot be
argued with: the mail servers' records and the ledger.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

import psutil
import pytest
from redis import Redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.bootstrap import build
from app.domain.tokens import Purpose
from app.embedded import Endpoints
from app.supervisor import ChildFailed, Command, Supervisor
from app.usecases.accept import Submission, accept
from app.usecases.apply import BrandWish, Declared, apply
from app.usecases.runtime import Runtime
from config.settings import Settings
from converge_producer import Intent, Producer
from converge_producer.intent import to_document
from tests.conftest import empty_database
from workers.fleets import fleet_commands

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the tests alone and long enough"
LEASE_S = 4.0
HINT_LOST_S = 3.0
PROCESSES = 2
DEADLINE_S = 60.0
T = TypeVar("T")

DECLARED = Declared(
    brands={
        "demo": BrandWish(
            settings={"title": "Demo", "default_locale": "en", "default_sender": "store"},
            senders={
                name: {"name": name.title(), "email": f"{name}@shop.example", "tracking": "all"}
                for name in ("store", "billing")
            },
            topics={"orders": "Your orders"},
        )
    },
    policies={
        name: {
            "name": name,
            "expires_after_s": 3600,
            "seen_at": "opened",
            "steps": [{"channels": ["email"], "unless_seen_within_s": None}],
        }
        for name in ("notify", "email-only")
    },
)


class MailServer:
    """A recording SMTP sink in a process of its own; `options` are those of its command line."""

    def __init__(self, record: Path, *options: str) -> None:
        self._record = record
        record.touch()
        command = [sys.executable, "-m", "app.sandbox.mailsink", "--record", str(record), *options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())

    def record(self) -> list[dict[str, Any]]:
        """Every message that it took, in order; a line that is being written is left out."""
        lines = self._record.read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def taken(self) -> int:
        return self._record.read_bytes().count(b"\n")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What became of the deliveries of a campaign: what the ledger says and what arrived."""

    accepted: int
    states: Mapping[int, str]
    reasons: Mapping[int, str | None]
    outcomes: Mapping[int, Sequence[tuple[str, str | None]]]
    arrived: Mapping[int, int]
    lane: Mapping[int, str]

    def outcome_count(self, outcome: str, reason: str | None = None) -> int:
        return sum(
            said == outcome and why == (reason or why)
            for outcomes in self.outcomes.values()
            for said, why in outcomes
        )

    def check(self) -> None:
        """Nothing is lost, and nothing came twice save what the ledger owns up to."""
        assert len(self.states) == self.accepted, "every accepted intent has its delivery"
        ended = {"sent", "delivered", "failed", "expired", "cancelled"}
        assert set(self.states.values()) <= ended
        assert set(self.arrived) <= set(self.states), "nothing arrives that nobody asked for"
        for delivery, state in self.states.items():
            arrived, outcomes = self.arrived.get(delivery, 0), self.outcomes.get(delivery, ())
            told = f"delivery {delivery} is {state}, arrived {arrived} times: {outcomes}"
            assert arrived >= 1 or (state in ("failed", "expired") and self.reasons[delivery]), told
            assert arrived <= sum(said in ("accepted", "ambiguous") for said, _ in outcomes), told
            # A lease that ended is a doubt on record, also where its worker came back after all.
            doubts = sum(said == "ambiguous" or why == "lease_ended" for said, why in outcomes)
            assert arrived <= 1 + doubts, told


class Fleet:
    """The processes, and short words for what tests do with them."""

    def __init__(self, settings: Settings, runtime: Runtime, folder: Path) -> None:
        self.settings = settings
        self.runtime = runtime
        self.mail: dict[str, MailServer] = {}
        self._log = folder / "workers.log"
        environment = settings.environment() | {
            "CONVERGE_LEASE_SECONDS": str(settings.lease_seconds),
            "CONVERGE_HINT_LOST_SECONDS": str(settings.hint_lost_seconds),
            "CONVERGE_WORKER_PROCESSES": str(settings.worker_processes),
            "CONVERGE_WORKER_THREADS": str(settings.worker_threads),
            "CONVERGE_LOG_FORMAT": "json",
            "PYTHONWARNINGS": "default",
        }
        names = ("core", "email", "beat")
        self._supervisor = Supervisor(
            [Command(name, (sys.executable, "-m", "workers", name), environment) for name in names],
            grace_s=30,
            output=self._log,
        )

    def start(self) -> None:
        """Start every process, and wait until each takes work."""
        self._supervisor.start()
        workers = sum(len(fleet_commands(name, self.settings)) for name in ("core", "email"))
        self.wait(lambda: self.logged("worker_ready") >= workers)
        return self

    def stop(self) -> None:
        self._supervisor.stop()

    def logged(self, event: str) -> int:
        """How often the workers have said `event`."""
        return self._log.read_text(errors="replace").count(f'"{event}"')

    def wait(self, look: Callable[[], T], within_s: float = DEADLINE_S) -> T:
        """Wait until `look` finds something; what crashed is started again meanwhile."""
        deadline = time.monotonic() + within_s
        while not (found := look()):
            try:
                self._supervisor.poll()
            except ChildFailed as failed:
                self._give_up(str(failed))
            if time.monotonic() > deadline:
                self._give_up("it did not come to pass")
            threading.Event().wait(0.05)
        return found

    def _give_up(self, why: str) -> NoReturn:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])
        pytest.fail(f"{why}; the workers said:\n{tail}")

    def process(self, name: str) -> psutil.Process:
        """The Celery process of that name, such as `email-1`; `beat` is beat."""
        for child in self._supervisor._children:
            if child.process is not None:
                parent = psutil.Process(child.process.pid)
                if child.command.name == name:
                    return parent
                for each in parent.children():
                    if any(part.startswith(f"{name}@") for part in each.cmdline()):
                        return each
        raise LookupError(name)

    def kill(self, name: str) -> None:
        """End a process as a crash does; its supervisor starts another one."""
        self.process(name).kill()

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.runtime.engine.begin() as connection:
            return list(connection.execute(text(query), parameters).all())

    def now(self) -> datetime:
        """The ledger's clock."""
        at: datetime = self.rows("SELECT clock_timestamp()")[0][0]
        return at

    def count(self, query: str, **parameters: Any) -> int:
        """One number from the ledger; a ledger that is away counts nothing."""
        try:
            return int(self.rows(query, **parameters)[0][0])
        except OperationalError:
            return 0

    def intents(self, campaign: str, number: int, **more: Any) -> list[Intent]:
        """So many transactional intents, each to a customer of its own."""
        return [
            Intent(
                {"ref": f"{campaign}-{n}", "email": f"{campaign}-{n}@example.com"},
                "orders",
                "Your **order** {{ n }} is on its way.",
                subject="Order {{ n }}",
                data={"n": n},
                key=f"{campaign}-{n}",
                campaign=campaign,
                **more,
            )
            for n in range(number)
        ]

    def enqueue(self, campaign: str, number: int, **more: Any) -> None:
        """Hand intents to the broker, as a service does."""
        with Producer(self.settings.broker_url, brand="demo") as producer:
            producer.enqueue_many(self.intents(campaign, number, **more))

    def accept_as_test(self, campaign: str, number: int) -> None:
        """Accept intents of a test key, which go to the sandbox's accounts."""
        documents = [to_document(one) for one in self.intents(campaign, number)]
        verdicts = accept(self.runtime, Submission("demo", uuid4(), test=True), documents)
        assert {verdict.status for verdict in verdicts} == {"accepted"}

    def accepted(self, campaign: str) -> int:
        return self.count("SELECT count(*) FROM intents WHERE campaign = :c", c=campaign)

    def sending(self, campaign: str) -> int:
        """How many deliveries are in workers' hands."""
        return self.count(
            "SELECT count(*) FROM deliveries WHERE campaign = :c AND state = 'sending'", c=campaign
        )

    def arrived(self) -> int:
        return sum(server.taken() for server in self.mail.values())

    def at_rest(self, campaign: str, accepted: int) -> Reckoning:
        """Wait until every delivery of the campaign has come to its end, and reckon."""
        moving = "SELECT count(*) FROM deliveries WHERE campaign = :c AND state = ANY(:s)"
        ended = ["sent", "delivered", "failed", "expired", "cancelled"]
        self.wait(lambda: self.count(moving, c=campaign, s=ended) >= accepted)
        return self.reckon(campaign)

    def reckon(self, campaign: str) -> Reckoning:
        deliveries = self.rows(
            "SELECT id, state, reason, lane FROM deliveries WHERE campaign = :c", c=campaign
        )
        outcomes: dict[int, list[tuple[str, str | None]]] = {}
        for row in self.rows(
            "SELECT a.delivery_id, a.outcome, a.reason FROM attempts a "
            "JOIN deliveries d ON d.id = a.delivery_id WHERE d.campaign = :c",
            c=campaign,
        ):
            outcomes.setdefault(row[0], []).append((row[1], row[2]))
        mine = {row.id for row in deliveries}
        arrivals = [one for one in self.arrivals() if one[0] in mine]
        return Reckoning(
            accepted=self.accepted(campaign),
            states={row.id: row.state for row in deliveries},
            reasons={row.id: row.reason for row in deliveries},
            outcomes=outcomes,
            arrived=Counter(delivery for delivery, _ in arrivals),
            lane={row.id: row.lane for row in deliveries},
        )

    def arrivals(self) -> list[tuple[int, float]]:
        """Every message that arrived, in order: its delivery, and when (Unix seconds)."""
        signer, now = self.runtime.words.signer, datetime.now(UTC)
        return sorted(
            (
                (signer.read(line["mark"], Purpose.TRACE, now).id, line["at"])
                for server in self.mail.values()
                for line in server.record()
            ),
            key=lambda one: one[1],
        )


@contextmanager
def running_fleet(
    database_url: str, redis_url: str, folder: Path, accounts: Mapping[str, Mapping[str, Any]]
) -> Iterator[Fleet]:
    """Run a fleet whose accounts each have a mail server.

    Of an account, `sink` holds the server's options; the rest stands in `providers.toml`.
    """
    with ExitStack() as stack:
        mail, providers = {}, []
        for name, account in accounts.items():
            mail[name] = MailServer(folder / f"{name}.jsonl", *account.get("sink", ()))
            stack.callback(mail[name].stop)
            lines = {
                "channel": "email",
                "provider": "smtp",
                "host": "127.0.0.1",
                "port": mail[name].port,
                "tls": "none",
                **{key: value for key, value in account.items() if key != "sink"},
            }
            providers += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in lines.items())]
        (folder / "providers.toml").write_text("\n".join(providers))
        settings = Settings(
            database_url=database_url,
            redis_url=redis_url,
            secret=(SECRET,),
            public_url="https://converge.example",
            config_dir=folder,
            data_dir=folder,
            lease_seconds=LEASE_S,
            hint_lost_seconds=HINT_LOST_S,
            worker_processes=PROCESSES,
            worker_threads=2,
        )
        runtime = build(settings)
        stack.callback(runtime.engine.dispose)
        apply(runtime, DECLARED)
        fleet = Fleet(settings, runtime, folder)
        fleet.mail = mail
        stack.callback(fleet.stop)
        fleet.start()
        yield fleet


@contextmanager
def own_broker(servers: Endpoints) -> Iterator[str]:
    """A database of the Redis server that no other test uses."""
    url = f"{servers.redis_url.rpartition('/')[0]}/1"
    with Redis.from_url(url) as connection:
        connection.flushall()
    yield url


@pytest.fixture(scope="module")
def accounts() -> dict[str, dict[str, Any]]:
    """Live messages go out by `relay`.

    Those of test keys go to `rough`, which drops every 97th connection when it has taken the
    message and before it says so.
    """
    return {
        "relay": {"sink": ("--ack-latency", "0.005")},
        "rough": {"sink": ("--drop-before-ack-every", "97"), "sandbox": True},
    }


@pytest.fixture(scope="module")
def fleet(
    postgres_url: str,
    servers: Endpoints,
    accounts: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """One fleet for the tests of a module, each with a campaign of its own."""
    folder = tmp_path_factory.mktemp("fleet")
    with (
        pytest.MonkeyPatch.context() as environment,
        empty_database(postgres_url) as database_url,
        own_broker(servers) as redis_url,
    ):
        for name in [name for name in os.environ if name.startswith("CONVERGE_")]:
            environment.delenv(name)
        with running_fleet(database_url, redis_url, folder, accounts) as fleet:
            yield fleet
