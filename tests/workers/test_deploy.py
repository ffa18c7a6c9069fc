"""Deploys under load: a release follows another, workers come and go, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from app.store import schema
from app.usecases.operating.control import Operator
from app.usecases.operating.fleet import drain, workers
from converge_producer.intent import to_document
from converge_producer.publishing import Publisher
from converge_producer.queues import INTENTS, TASK_ACCEPT
from converge_producer.wire import WIRE_VERSION
from tests.workers.crew import Crew
from tests.workers.fleet import ROOT, Fleet, Reckoning
from tests.workers.load import Load
from workers.fleets import Worker

ON_REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True)
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(240)]

HEAD = schema.RELEASE
NEXT = f"{int(HEAD) + 1:04}"
EXPANSION = f'''"""What the next release brings along: it only expands."""

from alembic import op

revision, down_revision = "{NEXT}", "{HEAD}"


def upgrade() -> None:
    op.execute("ALTER TABLE deliveries ADD COLUMN color text")
    op.execute("ALTER TABLE intents ADD COLUMN shade text NOT NULL DEFAULT 'none'")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_color")
        op.execute("CREATE INDEX CONCURRENTLY deliveries_color ON deliveries (color, id)")
'''
SCALED_TO = 3
ROUNDS = 3
BURST = 3_000


def next_release(folder: Path) -> Path:
    """The source of a release to come: a migration more, payloads of a version that this one does
    not read, and workers that sign as `new`."""
    for part in ("app", "config", "producer", "tasks", "workers"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    versions = folder / "app/store/migrations/versions"
    (versions / f"{NEXT}_colors.py").write_text(EXPANSION)
    change(folder / "workers/fleets.py", 'f"{name}@%h"', 'f"{name}@new.%h"')
    change(
        folder / "producer/src/converge_producer/wire.py",
        f"WIRE_VERSION: Final = {WIRE_VERSION}",
        f"WIRE_VERSION: Final = {WIRE_VERSION + 1}",
    )
    return folder


def publish_of_next(fleet: Fleet) -> None:
    """A producer that was deployed too early sends what workers of this release cannot read."""
    chunk = {"v": WIRE_VERSION + 1, "chunk": str(uuid4()), "brand": "demo", "test": False}
    intents = [to_document(one) for one in fleet.intents("next", 1)]
    publisher = Publisher(fleet.settings.broker_url)
    publisher.publish(TASK_ACCEPT, chunk | {"intents": intents}, INTENTS, "<1 intent>")
    publisher.close()


def change(file: Path, old: str, new: str) -> None:
    said = file.read_text()
    assert said.count(old) == 1, file
    file.write_text(said.replace(old, new))


def attempts(fleet: Fleet, worker: str, since: datetime) -> int:
    """How many attempts workers of that name have begun and recorded."""
    return fleet.count(
        "SELECT count(*) FROM attempts WHERE worker LIKE :w AND started_at > :since",
        w=worker,
        since=since,
    )


def all_sent(fleet: Fleet, campaign: str, number: int) -> Reckoning:
    """Every intent handed over was accepted and sent; what came twice is on record."""
    fleet.wait(lambda: fleet.accepted(campaign) == number)
    reckoning = fleet.at_rest(campaign, number)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    return reckoning


def test_a_release_follows_another_with_a_migration_between(fleet: Fleet, tmp_path: Path) -> None:
    tree = next_release(tmp_path / "next")
    old = fleet.first
    with Load(fleet, "deploy") as load:
        fleet.wait(lambda: attempts(fleet, "%", fleet.started_at) > 100)
        command = [sys.executable, "-c", "from app.cli import main; main()", "migrate"]
        publish_of_next(fleet)
        fleet.wait(lambda: old.logged("chunk_handed_back") > 1)
        migrated = subprocess.run(
            command,
            cwd=tree,
            env=os.environ | old.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert migrated.stdout == f"Done: 1 migration ({NEXT}); the ledger is at schema {NEXT}.\n"
        new = fleet.join(*fleet.fleets("core", "email", "beat"), name="new", root=tree)
        fleet.wait(lambda: fleet.accepted("next") == 1)
        restarted_at = fleet.now()
        for name in ("core-1", "email-1"):
            restart(fleet, old, name)
        fleet.wait(lambda: attempts(fleet, "email-1@new.%", restarted_at))
        fleet.wait(lambda: old_attempts(fleet, restarted_at))
        fleet.leave(old)
        left_at = fleet.now()
        fleet.wait(lambda: attempts(fleet, "%", left_at) > 100)
    reckoning = all_sent(fleet, load.campaign, load.number)
    assert max(reckoning.arrived.values()) == 1, "nobody was killed"
    assert "wrong_schema" not in new.log()
    fleet.leave(new)
    fleet.start()


def restart(fleet: Fleet, crew: Crew, name: str) -> None:
    """End one worker as operators do, and wait until its successor takes work."""
    ready = crew.logged("worker_ready")
    crew.process(name).terminate()
    fleet.wait(lambda: crew.logged("worker_ready") > ready)


def old_attempts(fleet: Fleet, since: datetime) -> int:
    return attempts(fleet, "email-1@%", since) - attempts(fleet, "email-1@new.%", since)


@ON_REDIS
def test_workers_come_and_go_under_load(fleet: Fleet) -> None:
    """As `--scale worker-email=4` and back, again and again: work spreads to all there are."""
    queues = ("email.normal", "email.bulk")
    seconds, bursts = [], []

    def burst() -> str:
        """A steady load is little: those who asked first have it. This is for everyone."""
        bursts.append(f"burst-{len(bursts)}")
        fleet.enqueue(bursts[-1], BURST, urgency="bulk")
        return bursts[-1]

    with Load(fleet, "scaled") as load:
        for number in range(ROUNDS):
            more = Worker(f"extra{number}", queues, threads=2, processes=SCALED_TO).commands()
            crew = fleet.join(*more, name=f"extra-{number}")
            for one in more:
                while not attempts(fleet, f"{one.name}@%", fleet.started_at):
                    fleet.at_rest(burst(), BURST)
            last = burst()
            fleet.wait(lambda last=last: fleet.sending(last))
            seconds.append(fleet.leave(crew))
    for campaign, size in [(load.campaign, load.number), *((each, BURST) for each in bursts)]:
        reckoning = all_sent(fleet, campaign, size)
        assert max(reckoning.arrived.values()) == 1
    assert max(seconds) < fleet.settings.soft_shutdown_seconds
    assert len(bursts) < ROUNDS * (SCALED_TO + 1)


@ON_REDIS
def test_workers_drain_under_load(fleet: Fleet) -> None:
    by = Operator("tests", "to look at one of them alone")
    with Load(fleet, "drained") as load:
        for name in ("email-1", "core-1"):
            drain(fleet.runtime, name, by)
            fleet.wait(lambda name=name: state_of(fleet, name) == "drained")
        since, accepted = fleet.now(), fleet.accepted("drained")
        fleet.wait(lambda: attempts(fleet, "email-2@%", since) > 50)
        fleet.wait(lambda: fleet.accepted("drained") > accepted + 50)
        assert not attempts(fleet, "email-1@%", since)
        drain(fleet.runtime, "email-1", by, undo=True)
        fleet.wait(lambda: attempts(fleet, "email-1@%", since))
        restart(fleet, fleet.first, "core-1")
    reckoning = all_sent(fleet, load.campaign, load.number)
    assert max(reckoning.arrived.values()) == 1


def state_of(fleet: Fleet, name: str) -> str:
    (found,) = [one for one in workers(fleet.runtime) if one.name.startswith(f"{name}@")]
    return found.state


@ON_REDIS
def test_workers_end_within_their_grace_while_a_provider_hangs(fleet: Fleet) -> None:
    with Load(fleet, "hanging") as load:
        fleet.wait(lambda: fleet.accepted("hanging") > 100 and fleet.sending("hanging"))
        fleet.mail["relay"].hang()
        # All that a worker takes from now on is in the hands of a provider that does not answer.
        fleet.wait(lambda: fleet.sending("hanging") > 100)
        fleet.leave(fleet.first)
        assert not fleet.sending("hanging"), "finished, or handed back"
        fleet.mail["relay"].go_on()
        fleet.start()
    all_sent(fleet, load.campaign, load.number)
