"""Real worker processes on a ledger, a broker and mail servers of their own.

A fleet is what an operator runs: `python -m workers core`, `email` and `beat`, each its own process
tree, kept alive by the supervisor that `converge up` uses. Leases are short, so that what a fault
leaves behind is found soon. What came of the work is reckoned from the two ends that cannot be
argued with: the mail servers' records and the ledger.
"""

import json
import signal
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
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.bootstrap import build
from app.domain.tokens import Purpose
from app.supervisor import ChildFailed, Command
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.apply import BrandWish, Declared, apply
from app.usecases.runtime import Runtime
from config.settings import Settings
from converge_producer import Intent, Producer
from converge_producer.intent import to_document
from tests.workers.brokers import Broker
from tests.workers.crew import Crew
from workers.fleets import FLEETS, fleet_commands

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the tests alone and long enough"
LEASE_S = 4.0
HINT_LOST_S = 3.0
PROCESSES = 2
THREADS = 2
DEADLINE_S = 120.0  # on a machine that does other things as well
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

    def hang(self) -> None:
        """Take connections and answer nothing, until told to go on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
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

    def __init__(self, settings: Settings, runtime: Runtime, folder: Path, broker: Broker) -> None:
        self.settings = settings
        self.runtime = runtime
        self.broker = broker
        self.mail: dict[str, MailServer] = {}
        self._folder = folder
        self._crews: list[Crew] = []
        self.first: Crew
        self.started_at: datetime

    def start(self) -> Crew:
        """Start what an operator runs, and wait until each process takes work."""
        self.started_at = self.now()
        self.first = self.join(*self.fleets("core", "email", "beat"), name=f"first-{uuid4()}")
        return self.first

    def fleets(self, *names: str) -> list[Command]:
        """The commands that run fleets."""
        return [Command(name, (sys.executable, "-m", "workers", name)) for name in names]

    def join(self, *commands: Command, name: str, root: Path = ROOT) -> Crew:
        """Let more processes join, of the release whose source is in `root`."""
        workers = 0
        for one in commands:
            fleet = one.name in FLEETS
            workers += len(fleet_commands(one.name, self.settings)) if fleet else "-Q" in one.argv
        crew = Crew(commands, workers, self.settings, self._folder / f"{name}.log", root)
        self._crews.append(crew)
        crew.begin()
        self.wait(crew.is_ready)
        return crew

    def stop(self) -> None:
        for crew in self._crews:
            crew.stop()

    def leave(self, crew: Crew) -> float:
        """Let a crew end under load; return how many seconds it took."""
        self._crews.remove(crew)
        return crew.end_well()

    def logged(self, event: str) -> int:
        """How often the workers have said `event`."""
        return sum(crew.logged(event) for crew in self._crews)

    def wait(self, look: Callable[[], T], within_s: float = DEADLINE_S) -> T:
        """Wait until `look` finds something; what crashed is started again meanwhile."""
        deadline = time.monotonic() + within_s
        while not (found := look()):
            try:
                for crew in self._crews:
                    crew.poll()
            except ChildFailed as failed:
                self._give_up(str(failed))
            if time.monotonic() > deadline:
                self._give_up("it did not come to pass")
            threading.Event().wait(0.05)
        return found

    def _give_up(self, why: str) -> NoReturn:
        said = "\n".join(crew.tail() for crew in self._crews)
        pytest.fail(f"{why}; the workers said:\n{said}")

    def process(self, name: str) -> psutil.Process:
        """The Celery process of that name in the first crew."""
        return self.first.process(name)

    def there(self, name: str) -> bool:
        """Whether the process of that name has been started again."""
        try:
            return self.process(name).is_running()
        except (LookupError, psutil.NoSuchProcess):
            return False

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

    def intents(self, campaign: str, number: int, first: int = 0, **more: Any) -> list[Intent]:
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
            for n in range(first, first + number)
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

    def all_hold(self, campaign: str) -> bool:
        """Whether each mail process has deliveries in hand: more batches than one takes at a time.

        True for sure only while their mail server hangs; else they may end the next moment.
        """
        claims = self.count(
            "SELECT count(DISTINCT claim_token) FROM deliveries "
            "WHERE campaign = :c AND state = 'sending'",
            c=campaign,
        )
        return claims > (PROCESSES - 1) * THREADS

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
    database_url: str,
    broker: Broker,
    folder: Path,
    accounts: Mapping[str, Mapping[str, Any]],
    lease_s: float = LEASE_S,
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
            redis_url=broker.redis_url,
            broker_url=broker.url,
            secret=(SECRET,),
            public_url="https://converge.example",
            config_dir=folder,
            data_dir=folder,
            lease_seconds=lease_s,
            hint_lost_seconds=HINT_LOST_S,
            worker_processes=PROCESSES,
            worker_threads=THREADS,
        )
        runtime = build(settings)
        stack.callback(runtime.engine.dispose)
        stack.callback(runtime.hints.close)
        apply(runtime, DECLARED)
        fleet = Fleet(settings, runtime, folder, broker)
        fleet.mail = mail
        stack.callback(fleet.stop)
        fleet.start()
        yield fleet
