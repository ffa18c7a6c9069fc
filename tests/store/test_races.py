"""Two at once: whoever comes second finds what the first one did, and says nothing twice.

An event marks an intent as seen in the very moment in which its escalation is due. Whatever the
order, nothing is claimed after the commit of "seen", and what was in a worker's hands by then is
marked as crossed.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text

from app.channels.contract import Accepted
from app.domain.tokens import Purpose
from app.store.inbox import TRACKING, Arrival, keep_arrivals
from app.usecases import rates, runtime
from app.usecases.deciding.decide import decide_intents
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.delivering.dispatch import dispatch
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.apply import apply
from converge_producer import intent_id
from tests.store.conftest import DECLARED, House, customer, intent, policy
from tests.store.interleaving import side_by_side

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CLAIM = "SET state = 'sending'"
SEEN = "UPDATE intents i SET state = 'seen'"
SETTLE = "INSERT INTO attempts"
CANCEL = "crossed = d.state IN"


@pytest.fixture
def twice(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose policy `again` sends a second mail when the first was not seen."""
    more = (
        policy("again", (["email"], 1800), (["email"], None)),
        policy("text", (["sms"], None)),
    )
    policies = {**DECLARED.policies, **{one["name"]: one for one in more}}
    apply(house.runtime, replace(DECLARED, policies=policies))
    # Nobody reads them again under their locks while somebody else must move first.
    monkeypatch.setattr(runtime, "CATALOG_FRESH_S", 3600.0)
    monkeypatch.setattr(rates, "RATES_FRESH_S", 3600.0)
    house.runtime.catalog()
    house.runtime.rates()
    return house


class Escalation:
    """One intent: its first mail went out long ago and was opened just now; its second is due."""

    def __init__(self, house: House, name: str = "ada", *, decided: bool = True) -> None:
        self.house = house
        [verdict] = house.accept(intent(customer(name), policy="again"))
        assert verdict.id is not None
        self.intent: UUID = verdict.id
        house.run()
        house.execute(
            "UPDATE deliveries SET handed_over_at = handed_over_at - interval '31 minutes',"
            " due_at = now() WHERE intent_id = :id",
            id=self.intent,
        )
        self.first: int = house.rows(
            "SELECT id FROM deliveries WHERE intent_id = :id", id=self.intent
        )[0][0]
        self.second = 0
        if decided:
            house.tick()
            decide_intents(house.runtime, house.hints.decisions)
            house.hints.decisions = []
            house.tick()
            [(_, _, _, ids)] = house.hints.deliveries
            [self.second] = ids
            house.hints.deliveries = []
        track(house, self.first)

    def seen(self) -> None:
        read_feedback(self.house.runtime)

    def deliver(self) -> None:
        deliver(self.house.runtime, "relay", [self.second], Hand(uuid4()))

    def decide(self) -> None:
        decide_intents(self.house.runtime, [self.intent])

    def second_one(self) -> Any:
        """The escalation's delivery, and how often it arrived; None where there is none."""
        rows = self.house.rows(
            "SELECT id, state, crossed, due_at, attempts FROM deliveries"
            " WHERE intent_id = :id AND step = 1",
            id=self.intent,
        )
        return rows[0] if rows else None

    def intent_state(self) -> str:
        state: str = self.house.rows("SELECT state FROM intents WHERE id = :id", id=self.intent)[0][
            0
        ]
        return state


def track(house: House, delivery: int) -> None:
    """Somebody opens the mail of a delivery."""
    body = {"delivery": delivery, "event": "opened", "index": 0, "agent": BROWSER}
    body |= {"ip": "127.0.0.1", "method": "GET"}
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival(TRACKING, uuid4().hex, orjson.dumps(body))])


def arrived(house: House, delivery: int) -> int:
    mark = house.runtime.words.signer.sign(Purpose.TRACE, delivery)
    return [one.header("X-Converge-Delivery") for one in house.sink.messages].count(mark)


def later(house: House) -> None:
    house.execute(
        "UPDATE deliveries SET due_at = now() WHERE due_at < now() + interval '2 minutes'"
    )


def test_no_claim_beside_a_seen_that_is_being_written(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, claim=case.deliver) as both:
        both.go("seen", CANCEL)
        both.go("seen", "COMMIT")
        assert both.go("claim"), "it does not even wait"
    assert (case.intent_state(), case.second_one().state) == ("seen", "cancelled")
    assert not arrived(twice, case.second)


def test_what_was_claimed_before_seen_is_marked_as_crossed(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, claim=case.deliver) as both:
        both.go("claim", CLAIM)
        both.go("claim", "COMMIT")
        assert not both.go("seen"), "it waits for what is being claimed"
        both.go("claim", SETTLE)
        assert both.go("seen")
        assert (case.second_one().state, case.second_one().crossed) == ("sending", True)
    second = case.second_one()
    assert (second.state, second.crossed, second.due_at) == ("sent", True, None)
    assert case.intent_state() == "seen"
    assert arrived(twice, case.second) == 1


def test_a_claim_between_the_two_writes_of_seen_is_crossed(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, claim=case.deliver) as both:
        both.go("seen", CANCEL)
        both.go("claim", SETTLE)
        assert both.go("seen")
        assert case.second_one().crossed
    assert (case.second_one().state, arrived(twice, case.second)) == ("sent", 1)


def test_a_try_that_failed_beside_seen_is_not_tried_again(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    twice.sink.faults.refuse_body = "451 4.3.0 Busy"
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, claim=case.deliver) as both:
        both.go("claim", SETTLE)
        both.go("seen", CANCEL)
        both.go("seen", "COMMIT")
        assert not both.go("claim"), "settle waits for seen"
        assert both.go("seen")
    twice.sink.faults.refuse_body = None
    later(twice)
    twice.run()
    assert case.second_one().state == "cancelled"
    assert not arrived(twice, case.second)


def test_nothing_is_decided_beside_seen(twice: House, database_url: str) -> None:
    case = Escalation(twice, decided=False)
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, decide=case.decide) as both:
        both.go("seen", "COMMIT")
        assert not both.go("decide"), "it waits for the intent"
    assert case.second_one() is None


def test_what_was_decided_before_seen_is_cancelled(twice: House, database_url: str) -> None:
    case = Escalation(twice, decided=False)
    engine = twice.runtime.engine
    with side_by_side(engine, database_url, seen=case.seen, decide=case.decide) as both:
        both.go("decide", "COMMIT")
        assert not both.go("seen"), "it waits for the intent"
    assert case.second_one().state == "cancelled"
    assert case.intent_state() == "seen"


def test_seen_and_due_in_any_order(twice: House, database_url: str) -> None:
    for seed in range(50):
        chance = Random(seed)
        case = Escalation(twice, f"ada-{seed}", decided=chance.random() < 0.7)
        busy = chance.random() < 0.3
        twice.sink.faults.refuse_body = "451 4.3.0 Busy" if busy else None
        acts = {"seen": case.seen, "tick": partial(dispatch, twice.runtime)}
        acts |= {"claim": case.deliver} if case.second else {"decide": case.decide}
        with side_by_side(twice.runtime.engine, database_url, **acts) as all_at_once:
            all_at_once.by_chance(chance)
        twice.sink.faults.refuse_body = None
        claimed, seen = all_at_once.place("claim", CLAIM), all_at_once.place("seen", SEEN)
        second = case.second_one()
        if second is not None and second.attempts:
            assert claimed is not None, seed
            assert seen is not None, seed
            assert claimed < seen, f"nothing is claimed after the commit of seen ({seed})"
        for _ in range(3):
            later(twice)
            twice.run()
        assert case.intent_state() == "seen", seed
        if second is not None:
            after = case.second_one()
            assert (after.due_at, after.attempts) == (None, second.attempts), seed
            assert after.state == ("sent" if arrived(twice, after.id) else "cancelled"), seed


def test_two_dispatchers_hint_everything_once(twice: House, database_url: str) -> None:
    for seed in range(10):
        names = [f"n{seed}-{n}" for n in range(20)]
        twice.accept(*(intent(customer(name), campaign=name[-1]) for name in names))
        ticks = {f"tick{n}": partial(dispatch, twice.runtime) for n in range(3)}
        with side_by_side(twice.runtime.engine, database_url, **ticks) as ticking:
            ticking.by_chance(Random(seed))
        twice.tick()
        hinted = [one for _, _, _, ids in twice.hints.deliveries for one in ids]
        assert len(hinted) == len(set(hinted)) == 20
        assert twice.work() == {"sent": 20}


def test_a_hint_that_comes_twice_at_once_is_claimed_once(twice: House, database_url: str) -> None:
    for seed in range(10):
        case = Escalation(twice, f"ada-{seed}")
        acts = {"one": case.deliver, "other": case.deliver}
        with side_by_side(twice.runtime.engine, database_url, **acts) as both:
            both.by_chance(Random(seed))
        assert (case.second_one().state, case.second_one().attempts) == ("sent", 1)
        assert arrived(twice, case.second) == 1


def test_the_same_intents_enqueued_at_once_in_other_orders(house: House) -> None:
    """Both are held up in the middle of it, with half of theirs inserted: no deadlock follows."""
    names = [f"n{n}" for n in range(100)]
    accepted = house.accept(*(intent(customer(name)) for name in names))
    documents = [intent(name, key=f"key-{name}") for name in names]
    middle = sorted(intent_id("demo", None, f"key-{name}") for name in names)[50]
    by_id = sorted(documents, key=lambda one: intent_id("demo", None, one["key"]))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    with house.runtime.engine.connect() as holder, ThreadPoolExecutor() as pool:
        holder.execute(
            text(
                "INSERT INTO intents SELECT (jsonb_populate_record(i,"
                " jsonb_build_object('id', CAST(:new AS text)))).* FROM intents i WHERE id = :id"
            ),
            {"new": str(middle), "id": accepted[0].id},
        )
        orders = (by_id, by_id[::-1])
        answers = [pool.submit(house.accept, *documents) for documents in orders]
        deadline = time.monotonic() + 30
        while house.rows(waiting)[0][0] < 2:
            assert time.monotonic() < deadline
        holder.rollback()
        verdicts = [one.status for answer in answers for one in answer.result(30)]
    assert (verdicts.count("accepted"), verdicts.count("exists")) == (100, 100)


def lose_the_lease(house: House) -> None:
    """Time passes for what is in a worker's hands, and the dispatcher notices."""
    house.execute("UPDATE deliveries SET due_at = now() WHERE state = 'sending'")
    house.tick()


def test_a_late_worker_still_says_what_happened(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    with side_by_side(twice.runtime.engine, database_url, late=case.deliver) as late:
        late.go("late", SETTLE)
        lose_the_lease(twice)
        assert case.second_one().state == "unknown"
    assert case.second_one().state == "sent"
    twice.run()
    assert arrived(twice, case.second) == 1
    [attempt] = twice.rows(
        "SELECT outcome, reason FROM attempts WHERE delivery_id = :id", id=case.second
    )
    assert tuple(attempt) == ("accepted", "lease_ended"), "heard of after its lease"


def test_a_worker_that_is_too_late_changes_nothing(twice: House, database_url: str) -> None:
    """A new attempt has begun: the old one is written down, and that is all."""
    case = Escalation(twice)
    engine = twice.runtime.engine
    acts = {"late": case.deliver, "new": case.deliver}
    with side_by_side(engine, database_url, **acts) as both:
        both.go("late", SETTLE)
        lose_the_lease(twice)
        twice.execute("UPDATE deliveries SET due_at = now() WHERE state = 'unknown'")
        twice.tick()
        twice.hints.deliveries.clear()
        assert case.second_one().state == "queued"
        both.go("new", SETTLE)
        twice.sink.messages.clear()
        assert both.go("late")
        assert case.second_one().state == "sending", "it belongs to the new attempt"
    assert case.second_one().state == "sent"
    attempts = twice.rows(
        "SELECT outcome, reason FROM attempts WHERE delivery_id = :id", id=case.second
    )
    assert sorted(map(tuple, attempts), key=str) == [
        ("accepted", "lease_ended"),
        ("accepted", None),
    ]


def test_a_delivery_that_kills_its_workers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its batch along, then a small one, then none: no other suspect is out with it."""
    house.accept(*(intent(customer(f"n{n}"), policy="email-only") for n in range(25)))
    poison = house.rows("SELECT id FROM deliveries ORDER BY id")[2][0]
    relay = house.runtime.accounts["relay"].provider
    send = relay.send

    def deadly(batch: Any, deadline: float) -> Any:
        if any(message.delivery_id == poison for message in batch):
            raise Death
        return send(batch, deadline)

    monkeypatch.setattr(relay, "send", deadly)
    sizes, out = [], []
    while house.rows("SELECT FROM deliveries WHERE state NOT IN ('sent', 'failed')"):
        house.tick()
        house.tick()
        out += house.rows("SELECT count(*) FROM deliveries WHERE state = 'queued' AND losses > 1")
        for _, _, account, ids in house.hints.deliveries:
            try:
                deliver(house.runtime, account, ids, Hand(uuid4()))
            except Death:
                sizes.append(len(ids))
        house.hints.deliveries.clear()
        lose_the_lease(house)
        assert len(sizes) <= 3
    assert sizes[0] == 25
    assert 1 < sizes[1] <= 10, "few are suspected along with it"
    assert sizes[2] == 1
    assert max(row[0] for row in out) == 1, "what dies is a process, with all that it has in hand"
    states = house.rows("SELECT id, state, reason FROM deliveries ORDER BY id")
    assert [row.reason for row in states if row.id == poison] == ["killed_its_worker"]
    assert [row.state for row in states if row.id != poison] == ["sent"] * 24
    assert len(house.sink.messages) == 24, "nobody else was told twice"
    house.tick()
    house.work()
    assert "exhausted" in {row[0] for row in house.rows("SELECT state FROM intents")}


def test_a_late_hint_takes_no_suspect_along(house: House) -> None:
    """The hint of a batch stays in the broker while it counts as lost and others are published."""
    house.accept(*(intent(customer(f"n{n}"), policy="email-only") for n in range(3)))
    house.tick()
    ((_, _, account, batch),) = house.hints.deliveries
    suspect = batch[1]
    house.execute("UPDATE deliveries SET losses = 2 WHERE id = :id", id=suspect)
    assert deliver(house.runtime, account, batch, Hand(uuid4())) == {"sent": 2}
    assert house.states() == {"sent": 2, "queued": 1}
    assert deliver(house.runtime, account, [suspect], Hand(uuid4())) == {"sent": 1}


class Death(BaseException):
    """A worker dies of what it was given."""


def test_a_receipt_that_comes_before_settle_waits_for_it(
    twice: House, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's reference is known to the ledger once settle has written it."""
    texts = twice.runtime.accounts["texts"].provider
    monkeypatch.setattr(texts, "send", lambda _batch, _deadline: [Accepted("ref-1")])
    twice.accept(intent({"ref": "ada", "phone": "+12025550101"}, policy="text"))
    twice.tick()
    receipt = {"id": "fact-1", "ref": "ref-1", "event": "delivered", "at": "2026-01-01T00:00:00Z"}
    with side_by_side(twice.runtime.engine, database_url, claim=twice.work) as one:
        one.go("claim", SETTLE)
        with twice.runtime.engine.begin() as connection:
            keep_arrivals(connection, [Arrival("texts", "fact-1", orjson.dumps(receipt))])
        assert read_feedback(twice.runtime)["unread"] == 1
        assert twice.states() == {"sending": 1}
    assert twice.states() == {"sent": 1}
    twice.execute("UPDATE inbox SET due_at = now() WHERE due_at IS NOT NULL")
    assert read_feedback(twice.runtime)["delivered"] == 1
    assert twice.states() == {"delivered": 1}
    assert not twice.rows("SELECT FROM inbox WHERE due_at IS NOT NULL")


def test_an_open_that_comes_before_settle(twice: House, database_url: str) -> None:
    case = Escalation(twice)
    with side_by_side(twice.runtime.engine, database_url, claim=case.deliver) as one:
        one.go("claim", SETTLE)
        track(twice, case.second)
        read_feedback(twice.runtime)
        assert case.second_one().state == "delivered"
    assert case.second_one().state == "delivered", "a state never goes back"
