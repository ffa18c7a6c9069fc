"""Operators: pause, resume, cancel and replay take effect, are audited, and lose nothing."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event

from app.usecases.operating import control
from app.usecases.operating.backlog import COUNT_BOUND, queue_state
from app.usecases.operating.control import (
    BadTarget,
    Operator,
    Target,
    cancel,
    cancel_intents,
    pause,
    replay,
    resume,
    unassigned,
    waits,
)
from app.usecases.telling.inspect import failed as failed_ones
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


@pytest.mark.parametrize(
    "target",
    [
        Target(channel="email"),
        Target(account="relay"),
        Target(channel="email", campaign="spring"),
        Target(account="relay", sender="store"),
    ],
    ids=str,
)
def test_what_waits_on_a_channel_or_account_is_cancelled(house: House, target: Target) -> None:
    house.accept(intent(customer("sent"), campaign="spring"))
    house.run()
    only_sms = {"ref": "other", "phone": "+12025550102"}
    house.accept(intent(only_sms, campaign="spring"), intent(customer("hinted"), campaign="spring"))
    house.tick()
    house.accept(intent(customer("waits"), campaign="spring"))
    assert cancel(house.runtime, target, OPERATOR) == 2
    house.work()
    rows = house.rows(
        "SELECT c.ref, i.state, d.state FROM intents i JOIN customers c ON c.id = i.customer_id"
        " JOIN deliveries d ON d.intent_id = i.id ORDER BY c.ref"
    )
    assert {row[0]: row[1] for row in rows} == {
        "hinted": "cancelled",
        "waits": "cancelled",
        "sent": "open",
        "other": "open",
    }
    assert len(house.sink.messages) == 1
    assert cancel(house.runtime, target, OPERATOR) == 0


def test_what_waits_for_a_channels_only_account_is_its_own(house: House) -> None:
    """It has no account before it is released; whatever says that it waits there ends it there."""
    target = Target(account="relay")
    pause(house.runtime, target, OPERATOR)
    house.accept(*(intent(customer(f"c{n}")) for n in range(3)))
    house.run()
    assert house.rows("SELECT DISTINCT account, state FROM deliveries") == [("", "planned")]
    assert waits(house.runtime, target).here
    assert cancel(house.runtime, target, OPERATOR) == 3
    assert not waits(house.runtime, target).here
    resume(house.runtime, target, OPERATOR)
    house.run()
    assert house.sink.messages == []


def test_what_several_accounts_may_take_is_of_none_of_them(house: House) -> None:
    relay = house.runtime.accounts["relay"]
    accounts = {**house.runtime.accounts, "second": replace(relay, name="second")}
    house.runtime = replace(house.runtime, accounts=accounts)
    house.accept(*(intent(customer(f"c{n}"), campaign="spring") for n in range(3)))
    house.execute("UPDATE deliveries SET account = 'relay' WHERE id % 3 = 0")
    target = Target(account="relay")
    assert unassigned(house.runtime, target, 10) == 2
    assert unassigned(house.runtime, Target(account="relay", campaign="summer"), 10) == 0
    assert cancel(house.runtime, target, OPERATOR) == 1
    assert unassigned(house.runtime, target, 10) == 2
    house.runtime = replace(
        house.runtime, accounts={**accounts, "second": replace(relay, name="second", sandbox=True)}
    )
    assert unassigned(house.runtime, target, 10) == 0, "the other one is for tests"
    assert cancel(house.runtime, target, OPERATOR) == 2


def test_a_cancel_reads_what_is_open_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, each its own transaction, and without beginning again for each of them."""
    monkeypatch.setattr(control, "CANCEL_BATCH", 4)
    house.accept(*(intent(customer(f"c{n}"), campaign="spring") for n in range(10)))
    house.accept(*(intent(customer(f"d{n}"), campaign="summer") for n in range(10)))
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(house.runtime.engine, "before_cursor_execute", note)
    told: list[int] = []
    assert cancel(house.runtime, Target(campaign="spring"), OPERATOR, told.append) == 10
    assert told == [4, 8, 10]
    walks = [one for one in statements if "decide_at IS NOT NULL" in one]
    assert len(walks) == 1
    assert house.rows("SELECT count(*) FROM intents WHERE state = 'open'")[0][0] == 10
    actions = house.rows("SELECT action, subject FROM audit WHERE action <> 'apply' ORDER BY id")
    assert [row.action for row in actions] == ["cancel", "cancelled"]
    assert actions[1].subject == {"campaign": "spring", "intents": 10}


def paused_why(house: House) -> list[str]:
    return [row.reason for row in house.rows("SELECT reason FROM pauses WHERE ended_at IS NULL")]


@pytest.mark.parametrize(
    "target", [Target(campaign="spring"), Target(account="relay"), Target(channel="email")], ids=str
)
def test_a_cancel_holds_at_once_what_it_comes_to_later(
    house: House, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setattr(control, "CANCEL_BATCH", 4)
    documents = [intent(customer(f"c{n}"), campaign="spring") for n in range(10)]
    house.accept(*documents)
    house.tick()
    more = [intent(customer(f"d{n}"), campaign="spring") for n in range(10)]
    house.accept(*more)
    held: list[str] = []

    def meanwhile(_: int) -> None:
        house.run()
        held.extend(paused_why(house))

    assert cancel(house.runtime, target, OPERATOR, meanwhile) == 20
    assert house.sink.messages == []
    assert set(held) == {f"being cancelled: {OPERATOR.reason}"}
    assert paused_why(house) == []
    house.accept(intent(customer("later"), campaign="spring"))
    assert house.run() == {"sent": 1}


def test_a_cancel_that_was_killed_is_held_until_it_is_done_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control.pauses, "resume", lambda *_, **__: False)
    target = Target(campaign="spring")
    cancel(house.runtime, target, OPERATOR)
    monkeypatch.undo()
    assert paused_why(house) == [f"being cancelled: {OPERATOR.reason}"]
    cancel(house.runtime, target, OPERATOR)
    assert paused_why(house) == []


def test_a_cancel_that_is_interrupted_lets_the_rest_go_on(house: House) -> None:
    house.accept(intent(customer(), campaign="spring"))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel(house.runtime, Target(campaign="spring"), OPERATOR, interrupt)
    assert paused_why(house) == []


def test_a_cancel_lifts_no_pause_of_an_operator(house: House) -> None:
    target, own = Target(campaign="spring"), Operator("ada", "to look at it")
    pause(house.runtime, target, own)
    cancel(house.runtime, target, OPERATOR)
    assert paused_why(house) == [own.reason]
    resume(house.runtime, target, own)
    house.accept(intent(customer(), campaign="spring"))
    cancel(house.runtime, target, OPERATOR, lambda _: pause(house.runtime, target, own))
    assert paused_why(house) == [own.reason], "said while it was being cancelled"


WAITS = {
    Target(campaign="spring"): True,
    Target(campaign="sprung"): False,
    Target(account="relay"): True,
    Target(account="relay", campaign="spring"): True,
    Target(account="texts"): False,
    Target(channel="sms"): False,
    Target(channel="email", sender="store"): True,
    Target(brand="demo", sender="billing"): False,
}


def test_whether_anything_waits_is_told(house: House) -> None:
    def told() -> dict[Target, bool]:
        return {target: waits(house.runtime, target).here for target in WAITS}

    assert set(told().values()) == {False}
    house.accept(intent(customer(), campaign="spring"))
    assert told() == WAITS, "planned"
    house.tick()
    assert told() == WAITS, "hinted"
    assert waits(house.runtime, Target(campaign="sprung")).campaigns == ["spring"]
    house.work()
    assert set(told().values()) == {False}


MANY = 100_000


def test_a_pause_touches_none_of_the_rows_that_it_holds(house: House) -> None:
    """It is minded where work is released: what it holds is neither written nor read through."""
    house.accept(intent(customer(), campaign="spring"))
    house.execute(
        "INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,"
        " campaign, state, due_at) SELECT intent_id, brand_id, sender_id, endpoint_id + n, step,"
        " channel, lane, campaign, 'planned', now() FROM deliveries, generate_series(1, :n) n",
        n=MANY,
    )
    house.execute("ANALYZE deliveries")
    versions = (
        "SELECT count(*), md5(string_agg(ctid::text || xmin::text, ',' ORDER BY id))"
        " FROM deliveries WHERE campaign = 'spring'"
    )

    def read() -> int:
        house.rows("SELECT pg_stat_force_next_flush()")
        of = "FROM pg_stat_user_tables WHERE relname = 'deliveries'"
        return int(house.rows(f"SELECT seq_tup_read + idx_tup_fetch {of}")[0][0])

    house.runtime.engine.dispose()  # one connection from now on, whose reading is counted
    before = house.rows(versions)
    pause(house.runtime, Target(campaign="spring"), OPERATOR)
    begin = read()
    for _ in range(3):
        assert house.run() == {}
    assert begin >= MANY, "what is read is counted"
    assert read() - begin < 1_000
    lane = queue_state(house.runtime)["lanes"][0]
    assert (lane["due"], lane["held"], lane["held_why"]) == (0, COUNT_BOUND, [OPERATOR.reason])
    assert house.rows(versions) == before
    resume(house.runtime, Target(campaign="spring"), OPERATOR)
    assert house.tick()["released"] > 0


def test_an_account_is_shown_as_paused_where_all_its_work_is(house: House) -> None:
    def shown() -> dict[str, str]:
        return {one["name"]: one["state"] for one in queue_state(house.runtime)["accounts"]}

    pause(house.runtime, Target(account="relay", campaign="spring"), OPERATOR)
    assert shown() == {"relay": "ready", "texts": "ready"}
    pause(house.runtime, Target(account="relay"), OPERATOR)
    assert shown() == {"relay": "paused", "texts": "ready"}


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
        (Target(channel="sms", account="relay"), "account"),
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
