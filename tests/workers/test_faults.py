"""Faults on real processes under load: nothing is lost, and nothing is said twice in silence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.embedded import EmbeddedServers, postgres
from app.embedded.binaries import Source
from app.store import migrate
from app.usecases.operating.control import Operator, Target, pause, resume
from converge_producer.intake import MAX_CHUNK_INTENTS
from converge_producer.intent import to_document
from converge_producer.publishing import Publisher
from converge_producer.queues import INTENTS, TASK_ACCEPT, deliver_task, lane_queue
from converge_producer.wire import WIRE_VERSION
from tests.workers.brokers import RabbitMQBroker, RedisBroker
from tests.workers.fleet import LEASE_S, PROCESSES, THREADS, Fleet, running_fleet
from tests.workers.load import Load

pytestmark = pytest.mark.timeout(400)
ON_RABBITMQ = pytest.mark.parametrize(
    "broker",
    [pytest.param("rabbitmq", marks=[pytest.mark.debian, pytest.mark.long])],
    indirect=True,
)
A_FEW_TICKS_S = 30.0  # on a machine that does other things as well
RELAY = Target(account="relay")
OPERATOR = Operator("tests", "to let everything go at once")


def all_in_hand(fleet: Fleet, campaign: str, number: int) -> None:
    """Have a campaign accepted, and then sent by all mail processes at once: its mail server hangs,
    so each has work in hand, and more waits.

    Were it sent while it is accepted, the first might have given up before the last have any.
    """
    pause(fleet.runtime, RELAY, OPERATOR)
    fleet.enqueue(campaign, number)
    fleet.wait(lambda: fleet.accepted(campaign) == number)
    fleet.mail["relay"].hang()
    resume(fleet.runtime, RELAY, OPERATOR)
    fleet.wait(lambda: fleet.all_hold(campaign))


@contextmanager
def accepting_waits(fleet: Fleet) -> Iterator[None]:
    """Whoever accepts waits for the ledger while the block runs, with a chunk in hand."""
    with fleet.runtime.engine.begin() as ledger:
        ledger.execute(text("LOCK TABLE intents IN SHARE MODE"))
        yield


def all_accept(fleet: Fleet) -> bool:
    """Whether each thread of the core processes has a chunk in hand, and waits for the ledger."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO%'"
    )
    return fleet.count(waiting) == PROCESSES * THREADS


def test_a_worker_killed_under_load(fleet: Fleet) -> None:
    all_in_hand(fleet, "killed", 3_000)
    killed_at = fleet.now()
    fleet.kill("email-1")
    fleet.mail["relay"].go_on()
    reckoning = fleet.at_rest("killed", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    assert reckoning.outcome_count("ambiguous", "lease_ended") > 0, "it had work in hand"
    # The first: others may lose a lease as well, later, where they wait for a processor too long.
    lost = (
        "SELECT min(finished_at) FROM attempts WHERE reason = 'lease_ended' AND finished_at > :at"
    )
    noticed = fleet.rows(lost, at=killed_at)[0][0]
    assert (noticed - killed_at).total_seconds() < LEASE_S + A_FEW_TICKS_S


def test_a_broker_that_forgets_everything(fleet: Fleet) -> None:
    all_in_hand(fleet, "forgotten", 3_000)
    fleet.wait(lambda: fleet.broker.waiting("email.normal"))
    fleet.broker.forget_everything()
    fleet.mail["relay"].go_on()
    reckoning = fleet.at_rest("forgotten", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    assert max(reckoning.arrived.values()) == 1, "a lost hint is no reason to say it twice"


def test_a_broker_that_forgets_what_was_not_accepted_yet(fleet: Fleet) -> None:
    """Until accept commits, an intent is as durable as the broker: enqueued again, it is one."""
    with accepting_waits(fleet):
        fleet.enqueue("unaccepted", 3_000)
        fleet.wait(lambda: all_accept(fleet))
        fleet.broker.forget_everything()
    in_hand = PROCESSES * THREADS * MAX_CHUNK_INTENTS
    fleet.wait(lambda: fleet.accepted("unaccepted") == in_hand)
    assert not fleet.broker.waiting(INTENTS), "the other chunks were lost"
    fleet.enqueue("unaccepted", 3_000)
    fleet.wait(lambda: fleet.accepted("unaccepted") == 3_000)
    reckoning = fleet.at_rest("unaccepted", 3_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


def test_a_mail_server_that_drops_after_data(fleet: Fleet) -> None:
    fleet.accept_as_test("dropped", 1_500)
    reckoning = fleet.at_rest("dropped", 1_500)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}
    ambiguous = reckoning.outcome_count("ambiguous")
    assert ambiguous > 5
    assert sum(reckoning.arrived.values()) == 1_500 + ambiguous, "and each of them was sent again"


def test_a_beat_that_was_killed(fleet: Fleet) -> None:
    fleet.kill("beat")
    fleet.enqueue("unticked", 1_000)
    reckoning = fleet.at_rest("unticked", 1_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


def test_a_core_worker_killed_while_it_accepts(fleet: Fleet) -> None:
    fleet.enqueue("core", 500)
    fleet.wait(lambda: fleet.accepted("core") == 500)
    with accepting_waits(fleet):
        fleet.enqueue("core", 2_500, first=500)
        fleet.wait(lambda: all_accept(fleet))
        fleet.kill("core-1")
        fleet.kill("control-1")
    fleet.enqueue("core", 3_000)
    fleet.wait(lambda: fleet.accepted("core") == 3_000)
    reckoning = fleet.at_rest("core", 3_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


def test_payloads_of_other_releases(fleet: Fleet) -> None:
    """The one before is read, and so are fields unknown; what nobody reads is refused, and kept."""
    documents = [to_document(one) for one in fleet.intents("payloads", 6)]
    chunks: list[dict[str, Any]] = [
        {"v": WIRE_VERSION, "chunk": str(uuid4()), "later": {"field": 1}},
        {"v": WIRE_VERSION - 1, "chunk": str(uuid4())},
        {"v": WIRE_VERSION - 2, "chunk": str(uuid4())},
        {"v": "one", "chunk": str(uuid4())},
        {"v": WIRE_VERSION, "chunk": "no id"},
        {"v": WIRE_VERSION},
    ]
    publisher = Publisher(fleet.settings.broker_url)
    for chunk, document in zip(chunks, documents, strict=False):
        payload = chunk | {"brand": "demo", "test": False, "intents": [document]}
        publisher.publish(TASK_ACCEPT, payload, INTENTS, "<1 intent>")
    hint = {"v": WIRE_VERSION + 1, "account": "relay", "ids": [1]}
    publisher.publish(deliver_task("email"), hint, lane_queue("email", "normal"), "<hint>")
    refused = "SELECT line, brand, key, document FROM refusals WHERE code = 'unreadable_chunk'"
    fleet.wait(lambda: len(fleet.rows(refused)) == 4)
    assert {(row.brand, row.key) for row in fleet.rows(refused)} == {
        ("demo", f"payloads-{n}") for n in (2, 3, 4, 5)
    }
    assert all(row.document["to"] for row in fleet.rows(refused))
    fleet.wait(lambda: fleet.accepted("payloads") == 2)
    fleet.wait(lambda: fleet.logged("task_failed"))  # the hint, whose rows are found again
    fleet.at_rest("payloads", 2).check()
    publisher.close()


@pytest.mark.slow
def test_chunks_in_the_hands_of_killed_workers_come_back(fleet: Fleet) -> None:
    with accepting_waits(fleet):
        fleet.enqueue("held", 3_000)
        fleet.wait(lambda: all_accept(fleet))
        for number in range(PROCESSES):
            worker = fleet.process(f"core-{number + 1}")
            worker.kill()
            fleet.wait(lambda worker=worker: not worker.is_running())
    fleet.broker.let_time_pass()
    fleet.wait(lambda: fleet.accepted("held") == 3_000)
    reckoning = fleet.at_rest("held", 3_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


@pytest.mark.slow
def test_a_broker_that_cuts_every_connection(fleet: Fleet) -> None:
    fleet.enqueue("cut", 4_000)
    fleet.wait(lambda: fleet.accepted("cut") == 4_000)
    for share in (0.2, 0.4, 0.6):
        fleet.wait(lambda share=share: _sent(fleet, "cut") > share * 4_000)
        fleet.broker.cut_connections()
    reckoning = fleet.at_rest("cut", 4_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1, "a cut connection is no reason to say it twice"


def _sent(fleet: Fleet, campaign: str) -> int:
    query = "SELECT count(*) FROM deliveries WHERE campaign = :c AND state = 'sent'"
    return fleet.count(query, c=campaign)


@pytest.mark.slow
def test_a_worker_that_stood_still_for_longer_than_its_lease(fleet: Fleet) -> None:
    sleeper = fleet.process("email-1")
    all_in_hand(fleet, "stopped", 3_000)
    sleeper.suspend()
    fleet.mail["relay"].go_on()
    lost = "SELECT count(*) FROM deliveries WHERE campaign = :c AND losses > 0"
    fleet.wait(lambda: fleet.count(lost, c="stopped"))
    fleet.at_rest("stopped", 3_000)
    sleeper.resume()
    # What it says at last: that it had sent them, or that its time was over before it could.
    late = "SELECT count(*) FROM attempts WHERE worker LIKE 'email-1@%' AND reason IS NOT NULL"
    fleet.wait(lambda: fleet.count(late))
    reckoning = fleet.at_rest("stopped", 3_000)
    reckoning.check()
    assert set(reckoning.states.values()) == {"sent"}


@pytest.mark.slow
def test_a_ledger_that_restarts(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "servers", exclusive=True) as servers:
        migrate.upgrade(servers.endpoints.database_url)
        accounts = {"relay": {"sink": ("--ack-latency", "0.005")}}
        broker = RedisBroker(servers.endpoints.redis_url)
        # A lease that outlasts the restart, so that nobody gives up what was sent.
        with running_fleet(
            servers.endpoints.database_url, broker, tmp_path, accounts, lease_s=20
        ) as fleet:
            all_in_hand(fleet, "restarted", 3_000)
            with away(fleet, servers):
                fleet.mail["relay"].go_on()
                fleet.enqueue("meanwhile", 1_000)
                fleet.wait(lambda: fleet.logged("settle_again"))
                fleet.wait(lambda: fleet.logged("chunk_handed_back"))
            for campaign, number in (("restarted", 3_000), ("meanwhile", 1_000)):
                reckoning = fleet.at_rest(campaign, number)
                reckoning.check()
                assert set(reckoning.states.values()) == {"sent"}
                assert max(reckoning.arrived.values()) == 1, "what was sent is settled afterwards"


@pytest.mark.slow
@ON_RABBITMQ
def test_a_rabbitmq_that_restarts(fleet: Fleet) -> None:
    """Nothing that it took is lost, be it a chunk or a hint, nor what was handed over meanwhile."""
    assert isinstance(fleet.broker, RabbitMQBroker)
    with Load(fleet, "rabbit") as load:
        fleet.wait(lambda: fleet.accepted("rabbit") > 200)
        fleet.broker.node.stop()
        fleet.wait(lambda: load.again)
        fleet.broker.node.start()
        number = fleet.accepted("rabbit")
        fleet.wait(lambda: fleet.accepted("rabbit") > number + 100)
    fleet.wait(lambda: fleet.accepted("rabbit") == load.number)
    reckoning = fleet.at_rest("rabbit", load.number)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


@pytest.mark.slow
@ON_RABBITMQ
def test_core_workers_killed_and_connections_cut_while_they_accept_on_rabbitmq(
    fleet: Fleet,
) -> None:
    """No chunk need be handed over again: the broker kept it until it was accepted."""
    fleet.enqueue("kept", 6_000)
    for share in (0.1, 0.3, 0.5):
        fleet.wait(lambda share=share: fleet.accepted("kept") > share * 6_000)
        fleet.kill("core-1")
        fleet.broker.cut_connections()
        fleet.wait(lambda: fleet.there("core-1"))
    fleet.wait(lambda: fleet.accepted("kept") == 6_000)
    reckoning = fleet.at_rest("kept", 6_000)
    reckoning.check()
    assert max(reckoning.arrived.values()) == 1


@contextmanager
def away(fleet: Fleet, servers: EmbeddedServers) -> Iterator[None]:
    """Postgres is stopped, as its operators do, while the block runs."""
    stopped, password = servers._running["postgres"], servers._read_state()["password"]
    home = postgres.home_for(servers.data_dir)
    programs = postgres.programs_for(home, Source.ANY)

    def answers() -> bool:
        # While it was away its port may have become that of somebody's connection for a moment.
        if servers._running["postgres"].find() is None:
            servers._running["postgres"] = postgres.start(home, programs, stopped.port, safe=True)
        return postgres.ping(stopped.port, password)

    stopped.end(postgres.STOP_SIGNAL)
    yield
    fleet.wait(answers)
