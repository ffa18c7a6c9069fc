"""Dispatch: who goes first, by which account, and that nobody's waiting holds up another."""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError

from app.channels.registry import Account
from app.store import lanes
from app.usecases.delivering import dispatch as dispatching
from app.usecases.hints import Hints
from app.usecases.operating.backlog import queue_state
from app.usecases.operating.control import Operator, Target, pause, resume
from converge_producer.publishing import Publisher
from converge_producer.queues import DECISIONS
from tests.store.conftest import House, customer, intent

OPERATOR = Operator("grace", "the relay is being repaired")


def with_rate(house: House, rate: float) -> None:
    with_accounts(house, replace(house.runtime.accounts["relay"], rate=rate))


def with_accounts(house: House, *accounts: Account) -> None:
    named = {account.name: account for account in accounts}
    house.runtime = replace(house.runtime, accounts={**house.runtime.accounts, **named})


@pytest.fixture
def two(house: House) -> House:
    """A house with a second relay to the same server."""
    with_accounts(house, replace(house.runtime.accounts["relay"], name="other"))
    return house


def queued(house: House) -> dict[str, int]:
    rows = house.rows("SELECT campaign, count(*) FROM deliveries WHERE state = 'queued' GROUP BY 1")
    return {row[0]: row[1] for row in rows}


def test_campaigns_that_wait_for_later_take_no_turns(house: House) -> None:
    with_rate(house, 10.0)
    house.accept(*(intent(customer(f"l{n}"), campaign=f"later-{n}") for n in range(60)))
    house.execute("UPDATE deliveries SET due_at = now() + interval '1 hour'")
    house.accept(*(intent(customer(f"n{n}"), campaign="now") for n in range(30)))
    house.tick()
    assert queued(house) == {"now": 20}, "two seconds of its rate, all for the one that is due"


def test_what_a_small_campaign_leaves_of_its_share_is_for_the_others(house: House) -> None:
    with_rate(house, 20.0)
    house.accept(*(intent(customer(f"s{n}"), campaign=f"small-{n}") for n in range(9)))
    house.accept(*(intent(customer(f"b{n}"), campaign="big") for n in range(50)))
    house.tick()
    assert queued(house) == {"big": 31} | {f"small-{n}": 1 for n in range(9)}


def test_a_paused_account_s_work_goes_by_another_one(two: House) -> None:
    two.accept(*(intent(customer(f"c{n}")) for n in range(10)))
    two.tick()
    two.execute("UPDATE deliveries SET account = 'relay'")
    two.hints.deliveries = [
        (channel, lane, "relay", ids) for channel, lane, _, ids in two.hints.deliveries
    ]
    pause(two.runtime, Target(account="relay"), OPERATOR)
    two.work()
    assert two.run() == {"sent": 10}
    assert {row[0] for row in two.rows("SELECT account FROM deliveries")} == {"other"}


def test_what_a_paused_account_may_have_taken_waits_and_holds_nobody_up(two: House) -> None:
    with_accounts(two, replace(two.runtime.accounts["other"], rate=10.0))
    two.accept(*(intent(customer(f"c{n}"), campaign="tried") for n in range(30)))
    two.execute("UPDATE deliveries SET account = 'relay', attempts = 1")
    two.execute(
        "INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, started_at,"
        " finished_at) SELECT id, gen_random_uuid(), 1, account, 'ambiguous', now(), now()"
        " FROM deliveries"
    )
    two.accept(*(intent(customer(f"n{n}"), campaign="new") for n in range(10)))
    pause(two.runtime, Target(account="relay"), OPERATOR)
    two.tick()
    assert queued(two) == {"new": 10}
    resume(two.runtime, Target(account="relay"), OPERATOR)
    two.tick()
    assert queued(two) == {"new": 10, "tried": 30}


def test_a_campaign_paused_on_an_account_stops_nothing_else(two: House) -> None:
    pause(two.runtime, Target(account="relay", campaign="spring"), OPERATOR)
    pause(two.runtime, Target(account="other", campaign="summer"), OPERATOR)
    two.accept(
        *(intent(customer(f"a{n}"), campaign="spring") for n in range(3)),
        *(intent(customer(f"b{n}"), campaign="summer") for n in range(3)),
        intent(customer("urgent"), campaign="autumn", urgency="urgent"),
    )
    assert two.run() == {"sent": 7}
    rows = two.rows("SELECT campaign, account FROM deliveries WHERE campaign <> 'autumn'")
    assert {tuple(row) for row in rows} == {("spring", "other"), ("summer", "relay")}


def test_accounts_share_by_weight(two: House) -> None:
    relay = two.runtime.accounts["relay"]
    with_accounts(two, replace(relay, weight=3))
    two.runtime = replace(two.runtime, jitter=Random(7).random)
    for n in range(40):
        two.accept(intent(customer(f"c{n}")))
        two.tick()
    shares = Counter(row[0] for row in two.rows("SELECT account FROM deliveries"))
    assert shares["relay"] > shares["other"] > 0


def test_an_urgent_hint_of_the_dispatcher_is_as_small_as_any(house: House) -> None:
    pause(house.runtime, Target(account="relay"), OPERATOR)
    house.accept(*(intent(customer(f"c{n}"), urgency="urgent") for n in range(30)))
    resume(house.runtime, Target(account="relay"), OPERATOR)
    house.tick()
    assert [len(ids) for *_, ids in house.hints.deliveries] == [20, 10]


@pytest.mark.parametrize("urgency", ["urgent", "normal"])
def test_what_nobody_takes_is_seen_to_wait_however_often_it_is_hinted(
    house: House, urgency: str
) -> None:
    house.accept(intent(customer(), urgency=urgency))
    if urgency == "normal":
        house.execute("UPDATE deliveries SET due_at = due_at - interval '90 seconds'")
        house.tick()
    ages = []
    for _ in range(3):
        # The hint counts as lost half a minute later.
        house.execute("""UPDATE deliveries SET due_at = due_at - interval '60 seconds',
                                due_since = due_since - interval '60 seconds'""")
        house.tick()
        [lane] = queue_state(house.runtime)["lanes"]
        assert (lane["lane"], lane["hinted"], lane["due"]) == (urgency, 1, 0)
        ages.append(lane["oldest_due_s"])
    since = 0 if urgency == "urgent" else 90
    for n, age in enumerate(ages, 1):
        assert since + 60 * n <= age < since + 60 * n + 30


@pytest.mark.parametrize(
    ("pace", "rate", "sizes"),
    [
        (None, None, [200, 200, 50]),
        (60, None, [60] * 7 + [30]),
        (399, None, [200, 200, 50]),
        (1_000, None, [400, 50]),
        (1_000, 1_200.0, [300, 150]),
    ],
)
def test_a_hint_holds_what_an_account_does_within_a_second(
    house: House, pace: int | None, rate: float | None, sizes: list[int]
) -> None:
    if pace is not None:
        house.runtime.health.after_batch("relay", ok=pace, failed=0, seconds=1.0)
    with_accounts(house, replace(house.runtime.accounts["relay"], rate=rate))
    house.accept(*(intent(customer(f"c{n}")) for n in range(450)))
    house.tick()
    assert [len(ids) for _, _, _, ids in house.hints.deliveries] == sizes


@pytest.mark.parametrize("attempts", [0, 1])
def test_no_more_is_tied_to_an_account_than_it_has_room_for(two: House, attempts: int) -> None:
    """Another one has room for thousands; what was never tried goes by that one."""
    with_accounts(two, replace(two.runtime.accounts["other"], rate=10.0))
    two.accept(*(intent(customer(f"c{n}")) for n in range(400)))
    two.execute("UPDATE deliveries SET account = 'other', attempts = :n", n=attempts)
    two.accept(*(intent(customer(f"n{n}")) for n in range(100)))
    two.tick()
    rows = two.rows("SELECT account, count(*) FROM deliveries WHERE state = 'queued' GROUP BY 1")
    given = dict(map(tuple, rows))
    assert 20 <= given["other"] <= 40, "its two seconds, and what came to its turn besides"
    if attempts == 0:
        assert sum(given.values()) == 500
        return
    assert given["relay"] == 100, "those behind are not kept waiting"
    two.execute(
        "UPDATE deliveries SET state = 'sent', handed_over_at = now(), due_at = NULL"
        " WHERE state = 'queued'"
    )
    assert two.tick()["released"] > 0, "as soon as it has room again it goes on"


def test_an_account_that_is_held_and_has_no_room_keeps_nothing_that_may_go_by_another(
    two: House,
) -> None:
    with_accounts(two, replace(two.runtime.accounts["other"], rate=1.0))
    two.accept(*(intent(customer(f"c{n}")) for n in range(10)))
    two.tick()
    two.execute("UPDATE deliveries SET account = 'other'")
    two.accept(*(intent(customer(f"n{n}"), campaign="spring") for n in range(5)))
    two.execute("UPDATE deliveries SET account = 'other', attempts = 1 WHERE campaign = 'spring'")
    two.tick()
    assert "spring" not in queued(two)
    pause(two.runtime, Target(account="other", campaign="spring"), OPERATOR)
    two.tick()
    assert queued(two)["spring"] == 5


@pytest.fixture
def ringing(house: House) -> House:
    """An intent whose time has come, an escalation clock that rang, and a lease that ended."""
    house.accept(*(intent(customer(one), key=one) for one in ("due", "unseen", "lost")))
    house.tick()
    house.hints.deliveries.clear()
    for key, change in {
        "due": "state = 'sent', handed_over_at = now(), due_at = NULL",
        "unseen": "state = 'sent', handed_over_at = now(), due_at = now() - interval '1 hour'",
        "lost": "state = 'sending', claim_token = gen_random_uuid(), due_at = now()",
    }.items():
        house.execute(
            f"UPDATE deliveries SET {change}"
            " WHERE intent_id = (SELECT id FROM intents WHERE key = :key)",
            key=key,
        )
    house.execute("UPDATE intents SET decide_at = now() - interval '1 hour' WHERE key = 'due'")
    return house


def overdue(house: House) -> int:
    """How many clocks have rung of which nobody took note."""
    [row] = house.rows("""
        SELECT (SELECT count(*) FROM intents WHERE decide_at < now() - interval '30 minutes')
             + (SELECT count(*) FROM deliveries WHERE due_at < now() - interval '30 minutes') AS n
    """)
    return int(row.n)


def test_nothing_more_is_asked_while_enough_waits_to_be_decided(ringing: House) -> None:
    ringing.hints.in_broker = {DECISIONS: dispatching.ENOUGH_TO_DECIDE}
    for _ in range(3):
        ringing.tick()
    assert ringing.hints.decisions == []
    assert overdue(ringing) == 2, "they stay due"
    assert ringing.states() == {"sent": 2, "unknown": 1}, "an ended lease is seen to all the same"
    ringing.execute("UPDATE deliveries SET due_at = now() WHERE state = 'unknown'")
    ringing.tick()
    assert ringing.states() == {"sent": 2, "queued": 1}, "and so is what became unknown"

    ringing.hints.in_broker = {DECISIONS: dispatching.ENOUGH_TO_DECIDE - 1}
    ringing.tick()
    assert len(set(ringing.hints.decisions)) == 2
    assert overdue(ringing) == 0


def test_where_the_broker_does_not_tell_what_waits_clocks_ring_on(ringing: House) -> None:
    ringing.hints.in_broker = None
    ringing.tick()
    assert len(set(ringing.hints.decisions)) == 2


def test_the_broker_is_asked_once_a_tick_and_only_where_something_rings(
    ringing: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def depths() -> dict[str, int]:
        asked.append(1)
        return {DECISIONS: 0}

    monkeypatch.setattr(ringing.hints, "depths", depths)
    ringing.tick()
    assert len(asked) == 1
    ringing.tick()
    assert len(asked) == 1, "what was hinted has another half a minute"


def test_hints_that_wait_to_be_decided_are_counted_in_the_broker(redis_url: str) -> None:
    publisher = Publisher(redis_url)
    hints = Hints(publisher)
    assert hints.decisions_waiting() == 0
    hints.decide([uuid4() for _ in range(501)])
    assert hints.decisions_waiting() == 2
    publisher.close()
    assert Hints(Publisher("redis://127.0.0.1:9/0")).decisions_waiting() is None


def test_a_channel_that_fails_does_not_stop_the_next_nor_the_inbox(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement is given up by the ledger; somebody is to see that, once all are done."""
    house.accept(intent(customer()))
    house.accept(intent({"ref": "bob", "phone": "+12025550102"}))
    house.execute("INSERT INTO inbox (source, external_id, body) VALUES ('relay', 'x', '')")
    due_flows = lanes.due_flows

    def slow(connection: Any, channel: str, lane: str) -> Any:
        if channel == "email":
            connection.exec_driver_sql("SET LOCAL statement_timeout = 10")
            connection.exec_driver_sql("SELECT pg_sleep(5)")
        return due_flows(connection, channel, lane)

    monkeypatch.setattr(lanes, "due_flows", slow)
    with pytest.raises(OperationalError, match="statement timeout"):
        house.tick()
    assert [channel for channel, *_ in house.hints.deliveries] == ["sms"]
    assert house.hints.inbox == 1
