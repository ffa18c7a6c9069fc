"""Several accounts of one channel: shares, degrees of health, failover, and what is recorded."""

import queue
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from app.channels.registry import build_accounts
from app.domain.vocabulary import Channel
from app.limits.health import Health
from app.sandbox.mailsink import MailSink
from app.store.intents import ledger_now
from app.usecases.delivering.accounts import Chooser, weigh_accounts
from app.usecases.operating import control
from app.usecases.operating.backlog import queue_state
from app.usecases.operating.control import Operator, Target
from app.usecases.telling.inspect import show_intents
from tests.store.conftest import House, customer, intent

ME = Operator("tests", "to see")


class Two:
    """A house with two relays, `a` of weight 3 and `b` of weight 1, each with its own sink."""

    def __init__(self, house: House, a: MailSink, b: MailSink) -> None:
        self.house = house
        self.sinks = {"a": a, "b": b}
        self.rewire()

    def rewire(self, **of_a: Any) -> None:
        """Declare the accounts anew, with these more for `a`."""
        common = {"channel": "email", "provider": "smtp", "host": "127.0.0.1", "tls": "none"}
        raw = {
            "a": {**common, "port": self.sinks["a"].port, "weight": 3, **of_a},
            "b": {**common, "port": self.sinks["b"].port},
        }
        texts = self.house.runtime.accounts["texts"]
        accounts = {**build_accounts(raw), "texts": texts}
        self.house.runtime = replace(self.house.runtime, accounts=accounts)

    def went(self) -> dict[str, int]:
        return {name: len(sink.messages) for name, sink in self.sinks.items()}

    def shares(self, in_s: float = 0.0) -> dict[str, float]:
        with self.house.runtime.engine.begin() as connection:
            now = ledger_now(connection) + timedelta(seconds=in_s)
        weighing = weigh_accounts(self.house.runtime, "email", test=False, now=now, pauses=[])
        return {one.candidate.name: one.share for one in weighing.weighed}

    def fails(self, account: str, ok: int, failed: int, seconds: float = 0.1) -> None:
        self.house.runtime.health.after_batch(account, ok=ok, failed=failed, seconds=seconds)

    def breaks(self, account: str) -> None:
        self.house.runtime.health.after_batch(account, ok=0, failed=0, refused=3, seconds=0.1)

    def accounts(self) -> Counter[str]:
        return Counter(row.account for row in self.house.rows("SELECT account FROM deliveries"))

    def later(self) -> None:
        self.house.execute("UPDATE deliveries SET due_at = now() WHERE due_at IS NOT NULL")


@pytest.fixture
def two(house: House) -> Iterator[Two]:
    with MailSink().running() as b:
        two = Two(house, house.sink, b)
        yield two
        for name in ("a", "b"):
            house.runtime.accounts[name].provider.close()


@pytest.fixture
def fair(two: Two) -> Two:
    """Chance, but the same in every run."""
    two.house.runtime = replace(two.house.runtime, jitter=Random(7).random)
    return two


def many(house: House, n: int, **more: Any) -> None:
    house.accept(*(intent(customer(f"c{i}"), **more) for i in range(n)))


def test_a_backlog_is_parted_by_weight(two: Two) -> None:
    many(two.house, 200)
    two.house.run()
    assert two.went() == {"a": 150, "b": 50}


def test_messages_one_by_one_are_parted_by_chance(fair: Two) -> None:
    for n in range(40):
        fair.house.accept(intent(customer(f"one{n}")))
        fair.house.run()
    went = fair.went()
    assert sum(went.values()) == 40
    assert went["a"] > went["b"] > 0


def test_urgent_messages_are_parted_too(fair: Two) -> None:
    many(fair.house, 100, urgency="urgent")
    fair.house.work()
    went = fair.went()
    assert sum(went.values()) == 100
    assert went["a"] > went["b"] > 5


def test_the_choice_is_in_the_record_and_told(two: Two) -> None:
    verdicts = two.house.accept(intent(customer()), intent(customer("bob"), urgency="urgent"))
    two.house.run()
    [choice] = two.house.rows("SELECT channel, considered FROM choices")
    assert [(one["account"], one["share"]) for one in choice.considered] == [
        ("a", 0.75),
        ("b", 0.25),
    ]
    assert two.house.rows("SELECT FROM deliveries WHERE choice_id IS NULL") == []
    for verdict in verdicts:
        assert verdict.id is not None
        [story] = show_intents(two.house.runtime, [verdict.id])
        texts = " ".join(entry["text"] for entry in story["timeline"])
        assert "Shares of the accounts then: a 75% (weight 3), b 25% (weight 1)." in texts


def test_a_single_account_needs_no_record(house: House) -> None:
    house.accept(intent(customer()))
    house.run()
    assert house.rows("SELECT FROM choices") == []


def test_errors_and_slowness_take_shares_away_and_time_gives_them_back(two: Two) -> None:
    at_first = two.shares()["a"]
    two.fails("a", ok=90, failed=10)
    little = two.shares()["a"]
    two.fails("a", ok=40, failed=60)
    much = two.shares()["a"]
    assert at_first > little > much > 0
    assert two.shares(in_s=600)["a"] == pytest.approx(at_first, abs=0.01)
    two.house.runtime.health.forget("a")
    two.fails("a", ok=20, failed=0, seconds=8.0)
    two.fails("b", ok=20, failed=0, seconds=0.1)
    assert two.shares()["a"] < 0.3
    for _ in range(12):
        two.fails("a", ok=20, failed=0, seconds=0.1)
    assert two.shares()["a"] == pytest.approx(at_first, abs=0.02)


def test_a_dear_account_has_less(two: Two) -> None:
    two.rewire(cost_micros=400, weight=1)
    accounts = two.house.runtime.accounts
    two.house.runtime = replace(
        two.house.runtime, accounts={**accounts, "b": replace(accounts["b"], cost_micros=100)}
    )
    many(two.house, 100)
    two.house.run()
    assert two.went() == {"a": 20, "b": 80}


def test_what_one_did_not_take_goes_by_the_other(two: Two) -> None:
    two.house.sink.faults.refuse = {f"c{n}@example.com": "451 4.3.0 try later" for n in range(40)}
    many(two.house, 40)
    two.house.run()
    assert set(two.accounts()) == {"b"}
    [moved] = two.house.rows(
        "SELECT DISTINCT c.considered FROM deliveries d JOIN choices c ON c.id = d.choice_id"
        " WHERE d.attempts = 1 AND d.state = 'planned'"
    )
    assert [(one["account"], one["left"]) for one in moved.considered] == [
        ("a", "failed_just_now"),
        ("b", None),
    ]
    two.later()
    two.house.run()
    assert two.went() == {"a": 0, "b": 40}


def test_a_refused_account_is_left_at_once(two: Two) -> None:
    two.sinks["a"].faults.greeting = "554 5.7.1 you are not welcome"
    many(two.house, 40)
    two.house.run()
    two.house.run()
    assert two.went() == {"a": 0, "b": 40}
    assert {row.state for row in two.house.rows("SELECT state FROM deliveries")} == {"sent"}


def test_one_refused_sender_goes_by_another_and_the_account_goes_on(two: Two) -> None:
    """Its domain is mistyped, says `a`; all the others are taken."""
    for again in range(3):
        two.sinks["a"].faults.refuse = {f"x{again}@example.com": "553 5.1.8 Sender domain unknown"}
        two.house.accept(*(intent(customer(f"c{n}"), key=f"{again}-{n}") for n in range(19)))
        two.house.accept(intent(customer(f"x{again}")))
        two.house.execute("UPDATE deliveries SET account = 'a' WHERE state = 'planned'")
        two.house.execute("UPDATE deliveries SET attempts = 1 WHERE state = 'planned'")
        assert two.house.run() == {"sent": 19, "rejected": 1}
        assert two.house.run() == {"sent": 1}
    assert two.went() == {"a": 57, "b": 3}
    known = two.house.runtime.health.health(["a"])["a"]
    assert known.open_until is None
    assert 0 < known.errors < 0.1


def test_what_may_have_gone_out_never_goes_by_another(two: Two) -> None:
    two.sinks["a"].faults.drop_before_ack_every = 1
    many(two.house, 8)
    two.house.run()
    [doubtful] = two.house.rows("SELECT count(*) AS n FROM deliveries WHERE state = 'unknown'")
    assert doubtful.n > 0
    two.breaks("a")
    two.later()
    two.house.run()
    two.later()
    two.house.tick()
    two.house.hints.deliveries.clear()
    rows = two.house.rows(
        "SELECT DISTINCT d.account FROM deliveries d JOIN attempts a ON a.delivery_id = d.id"
        " WHERE a.outcome = 'ambiguous'"
    )
    assert [row.account for row in rows] == ["a"]


def test_work_tied_to_a_resting_account_moves_on_where_nothing_is_in_doubt(two: Two) -> None:
    many(two.house, 4)
    two.house.execute("UPDATE deliveries SET account = 'a', attempts = 1")
    two.breaks("a")
    two.house.run()
    assert two.went() == {"a": 0, "b": 4}


def test_a_paused_account_takes_over_nothing(two: Two) -> None:
    control.pause(two.house.runtime, Target(account="b"), ME)
    two.house.sink.faults.refuse = {"c0@example.com": "451 4.3.0 try later"}
    many(two.house, 1)
    assert two.house.run() == {"retry": 1}
    assert two.accounts() == Counter({"a": 1})


def test_a_paused_account_s_tied_work_moves_on_where_nothing_is_in_doubt(two: Two) -> None:
    many(two.house, 4)
    two.house.execute("UPDATE deliveries SET account = 'a', attempts = 1")
    control.pause(two.house.runtime, Target(account="a"), ME)
    two.house.run()
    assert two.went() == {"a": 0, "b": 4}


def in_doubt(two: Two, n: int) -> None:
    """Let messages wait for another try that `a` may have taken already."""
    many(two.house, n)
    two.house.execute("UPDATE deliveries SET account = 'a', attempts = 1")
    two.house.execute(
        "INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, started_at,"
        " finished_at) SELECT id, gen_random_uuid(), 1, 'a', 'ambiguous', now(), now()"
        " FROM deliveries"
    )


def test_what_a_paused_account_may_have_taken_is_held_and_shown_so(two: Two) -> None:
    in_doubt(two, 3)
    two.house.accept(intent(customer("d1")), intent(customer("d2")))
    control.pause(two.house.runtime, Target(account="a"), ME)
    two.house.run()
    assert two.went()["b"] == 2, "the others move on"
    [lane] = queue_state(two.house.runtime)["lanes"]
    assert (lane["due"], lane["held"], lane["held_why"]) == (0, 3, [ME.reason])
    assert lane["oldest_due_s"] is None
    control.resume(two.house.runtime, Target(account="a"), ME)
    [lane] = queue_state(two.house.runtime)["lanes"]
    assert (lane["due"], lane["held"], lane["held_why"]) == (3, 0, [])
    assert two.house.run() == {"sent": 3}
    assert two.went()["b"] == 2


def test_what_a_resting_account_may_have_taken_waits_until_it_is_well(two: Two) -> None:
    in_doubt(two, 3)
    two.breaks("a")
    assert two.house.tick()["released"] == 0
    two.house.runtime.health.forget("a")
    assert two.house.run() == {"sent": 3}
    assert two.went()["b"] == 0


def test_what_an_account_that_is_gone_may_have_taken_fails_after_a_while(two: Two) -> None:
    in_doubt(two, 2)
    accounts = two.house.runtime.accounts
    left = {name: account for name, account in accounts.items() if name != "a"}
    two.house.runtime = replace(two.house.runtime, accounts=left)
    assert two.house.run() == {}, "it may be known elsewhere, or in a moment"
    assert two.house.states() == {"planned": 2}
    two.house.execute("UPDATE deliveries SET due_at = now() - interval '20 minutes'")
    two.house.run()
    rows = two.house.rows("SELECT DISTINCT state, reason, account FROM deliveries")
    assert rows == [("failed", "account_gone", "a")]
    two.house.run()
    assert two.went()["b"] == 0
    two.house.runtime = replace(two.house.runtime, accounts=accounts)


def test_what_waits_for_a_permit_is_free_to_go_by_another(two: Two) -> None:
    two.rewire(rate=2.0)
    many(two.house, 40)
    two.house.run()
    held = two.house.rows(
        "SELECT DISTINCT account FROM deliveries WHERE state = 'planned' AND attempts = 0"
    )
    assert [row.account for row in held] in ([], [""])


def test_a_channel_whose_accounts_all_rest_is_left_for_another_of_the_step(two: Two) -> None:
    two.breaks("a")
    two.breaks("b")
    [verdict] = two.house.accept(intent(customer()))
    assert verdict.status == "accepted"
    two.house.run()
    assert two.went() == {"a": 0, "b": 0}
    [decision] = two.house.rows("SELECT considered FROM decisions")
    assert decision.considered[0][2] == "unhealthy"
    assert verdict.id is not None
    [story] = show_intents(two.house.runtime, [verdict.id])
    assert any("none of whose accounts can take it now" in one["text"] for one in story["timeline"])
    for name in ("a", "b"):
        two.house.runtime.health.forget(name)
    two.house.run()
    assert sum(two.went().values()) == 1


def test_new_grounds_are_kept_by_two_at_once_in_whatever_order_they_come(two: Two) -> None:
    """Each keeps grounds of both channels that nobody has kept before."""
    runtime = two.house.runtime
    texts = runtime.accounts["texts"]
    more = {name: replace(texts, name=name) for name in ("texts-1", "texts-2")}
    runtime = replace(runtime, accounts={**runtime.accounts, **more})
    health = dict.fromkeys(runtime.accounts, Health())
    in_turn: queue.SimpleQueue[object] = queue.SimpleQueue()

    def other() -> None:
        with runtime.engine.begin() as connection:
            in_turn.put(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            chooser = Chooser(runtime, connection, health, ())
            chooser.choose(Channel.SMS, test=False)
            in_turn.put("chosen")
            chooser.choose(Channel.EMAIL, test=False)

    def waits(pid: object) -> bool:
        look = "SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = :pid"
        return bool(two.house.rows(look, pid=pid)[0].waits)

    with ThreadPoolExecutor(1) as threads:
        with runtime.engine.begin() as connection:
            chooser = Chooser(runtime, connection, health, ())
            chooser.choose(Channel.EMAIL, test=False)
            ended = threads.submit(other)
            pid = in_turn.get(timeout=10)
            deadline = time.monotonic() + 10
            while in_turn.empty() and not waits(pid):
                assert time.monotonic() < deadline
            chooser.choose(Channel.SMS, test=False)
        ended.result(timeout=10)
    assert len(two.house.rows("SELECT FROM choices")) == 2
