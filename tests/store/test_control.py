"""Operators: pause, resume, cancel and replay take effect, are audited, and lose nothing."""

from uuid import UUID

import pytest

from app.usecases.control import (
    BadTarget,
    Operator,
    Target,
    cancel,
    cancel_intents,
    pause,
    replay,
    resume,
)
from app.usecases.inspect import failed as failed_ones
from tests.store.conftest import House, customer, intent

OPERATOR = Operator("grace", "the relay is being repaired")


@pytest.mark.parametrize(
    "target",
    [
        Target(channel="email"),
        Target(account="relay"),
        Target(brand="demo", sender="store"),
        Target(campaign="spring"),
        Target(channel="email", campaign="spring"),
    ],
    ids=str,
)
def test_paused_work_waits_and_goes_on(house: House, target: Target) -> None:
    assert pause(house.runtime, target, OPERATOR) is True
    assert pause(house.runtime, target, OPERATOR) is False
    house.accept(intent(customer(), campaign="spring"))
    house.run()
    assert house.states() == {"planned": 1}
    assert resume(house.runtime, target, OPERATOR) is True
    assert resume(house.runtime, target, OPERATOR) is False
    assert house.run() == {"sent": 1}
    actions = house.rows(
        "SELECT actor, action, reason FROM audit WHERE action <> 'apply' ORDER BY id"
    )
    assert [row.action for row in actions] == ["pause", "resume"]
    assert actions[0].reason == OPERATOR.reason


def test_a_pause_also_holds_what_was_hinted_already(house: House) -> None:
    house.accept(intent(customer()), intent(customer("bob"), urgency="urgent"))
    house.tick()
    pause(house.runtime, Target(channel="email"), OPERATOR)
    house.work()
    assert house.states() == {"planned": 2}
    assert house.sink.messages == []
    assert house.rows("SELECT FROM attempts") == []


def test_a_pause_holds_just_what_it_names(house: House) -> None:
    pause(house.runtime, Target(campaign="spring"), OPERATOR)
    house.accept(
        intent(customer("ada"), campaign="spring"),
        intent(customer("bob"), campaign="summer"),
        intent(customer("cyd")),
    )
    house.run()
    rows = house.rows("SELECT campaign, state FROM deliveries ORDER BY campaign")
    assert [tuple(row) for row in rows] == [("", "sent"), ("spring", "planned"), ("summer", "sent")]


def test_a_cancelled_campaign_ends_and_what_left_stays(house: House) -> None:
    house.accept(intent(customer("ada"), campaign="spring"))
    house.run()
    house.accept(
        intent(customer("bob"), campaign="spring"), intent(customer("cyd"), campaign="summer")
    )
    assert cancel(house.runtime, Target(campaign="spring"), OPERATOR) == 2
    house.run()
    rows = house.rows(
        "SELECT i.campaign, i.state, d.state FROM intents i JOIN deliveries d ON d.intent_id = i.id"
        " ORDER BY i.accepted_at, i.campaign"
    )
    assert [tuple(row) for row in rows] == [
        ("spring", "cancelled", "sent"),
        ("spring", "cancelled", "cancelled"),
        ("summer", "open", "sent"),
    ]
    assert house.rows("SELECT FROM deliveries WHERE state <> 'sent' AND due_at IS NOT NULL") == []


def test_one_intent_is_cancelled_once(house: House) -> None:
    [verdict] = house.accept(intent(customer()))
    assert isinstance(verdict.id, UUID)
    assert cancel_intents(house.runtime, [verdict.id], OPERATOR) == [verdict.id]
    assert cancel_intents(house.runtime, [verdict.id], OPERATOR) == []
    house.run()
    assert house.sink.messages == []


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (Target(), "target"),
        (Target(brand="demo"), "target"),
        (Target(channel="pigeon"), "channel"),
        (Target(account="nowhere"), "account"),
        (Target(sender="nobody"), "sender"),
        (Target(brand="acme", campaign="x"), "brand"),
    ],
    ids=str,
)
def test_a_target_that_does_not_exist_is_named(house: House, target: Target, field: str) -> None:
    with pytest.raises(BadTarget) as error:
        pause(house.runtime, target, OPERATOR)
    assert error.value.field == field


def test_nothing_is_done_without_a_reason(house: House) -> None:
    with pytest.raises(BadTarget, match="reason"):
        pause(house.runtime, Target(channel="email"), Operator("grace", " "))


def test_what_failed_is_replayed(house: House) -> None:
    house.sink.faults.refuse = {"ada@example.com": "554 5.6.0 not that content"}
    house.accept(intent(customer(phone="+12025550102")))
    house.tick()
    house.work()
    [failed] = house.rows("SELECT id FROM deliveries WHERE state = 'failed'")
    house.sink.faults.refuse = {}
    assert replay(house.runtime, [failed.id], OPERATOR) == [failed.id]
    assert replay(house.runtime, [failed.id], OPERATOR) == []
    house.run()
    [row] = house.rows(f"SELECT state FROM deliveries WHERE id = {failed.id}")
    assert row.state == "sent"


def test_a_dead_letter_is_replayed_though_its_intent_was_exhausted(house: House) -> None:
    house.sink.faults.refuse = {"ada@example.com": "554 5.6.0 not that content"}
    house.accept(intent(customer(), policy="email-only"))
    house.run()
    [row] = house.rows("SELECT state FROM intents")
    assert row.state == "exhausted"
    [failed], _ = failed_ones(house.runtime)
    assert failed["replayable"] is True
    house.sink.faults.refuse = {}
    assert replay(house.runtime, [failed["id"]], OPERATOR) == [failed["id"]]
    assert house.run() == {"sent": 1}
    [row] = house.rows("SELECT state, decide_at = expires_at AS waits FROM intents")
    assert tuple(row) == ("open", True)


def test_nothing_is_replayed_past_its_deadline(house: House) -> None:
    house.sink.faults.refuse = {"ada@example.com": "554 5.6.0 not that content"}
    house.accept(intent(customer(), policy="email-only"))
    house.run()
    house.execute("UPDATE intents SET expires_at = now()")
    [failed], _ = failed_ones(house.runtime)
    assert failed["replayable"] is False
    assert replay(house.runtime, [failed["id"]], OPERATOR) == []
