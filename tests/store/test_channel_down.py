"""All accounts of a channel rest: what can go by another channel does not wait for them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.limits import LimitsUnavailable, connect
from app.store.lanes import Flow, waiting_long
from app.usecases.deciding import decide as deciding
from app.usecases.deciding.decide import decide_intents
from app.usecases.delivering import dispatch as dispatching
from app.usecases.operating.control import BadTarget, Operator
from app.usecases.operating.limits import retry_account
from app.usecases.telling.inspect import show_intents
from tests.store.conftest import House, customer, intent


def breaks(house: House, account: str) -> None:
    house.runtime.health.after_batch(account, ok=0, failed=0, refused=3, seconds=0.1)


def planned(house: House) -> list[tuple[str, int, str]]:
    rows = house.rows("SELECT channel, step, state FROM deliveries ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("urgency", "state"), [("normal", "planned"), ("bulk", "planned"), ("urgent", "queued")]
)
def test_the_next_step_is_taken_while_the_first_one_rests(
    house: House, urgency: str, state: str
) -> None:
    breaks(house, "relay")
    house.accept(intent(customer(phone="+12025550101"), urgency=urgency))
    assert planned(house) == [("sms", 1, state)]
    [decision] = house.rows("SELECT considered FROM decisions")
    assert [tuple(each[:3]) for each in decision.considered] == [
        (0, "email", "unhealthy"),
        (1, "chat", "no_endpoint"),
        (1, "sms", "chosen"),
    ]


def test_who_has_no_other_way_waits_for_the_first(house: House) -> None:
    breaks(house, "relay")
    house.accept(intent(customer()))
    assert planned(house) == [("email", 0, "planned")]
    breaks(house, "texts")
    house.accept(intent(customer("bob", phone="+12025550102"), key="bobs"))
    assert planned(house)[1:] == [("email", 0, "planned")]


@pytest.fixture
def stuck(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Ada's mail and Bob's were planned, and have waited since then; the relay is tried again in a
    moment, which is long enough for all that a test does in it."""
    monkeypatch.setattr(dispatching, "ABOUT_TO_BE_TRIED", timedelta(minutes=10))
    house.accept(
        intent(customer(phone="+12025550101"), key="adas"), intent(customer("bob"), key="bobs")
    )
    house.execute("UPDATE deliveries SET due_at = now() - interval '40 s'")
    breaks(house, "relay")
    tried_again_in(house, 9 * 60)
    return house


def tried_again_in(house: House, seconds: float) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).timestamp()
    health = house.runtime.health
    health._redis.hset("converge:account:relay", "open_until", at)


def test_what_has_waited_goes_by_another_channel_before_the_account_is_tried_again(
    stuck: House,
) -> None:
    stuck.tick()
    [adas] = stuck.rows("SELECT id FROM intents WHERE key = 'adas'")
    assert stuck.hints.decisions == [adas.id], "Bob has no other way"
    stuck.work()
    rows = stuck.rows(
        "SELECT channel, state, reason FROM deliveries WHERE intent_id = :id ORDER BY id",
        id=adas.id,
    )
    assert [tuple(row) for row in rows] == [
        ("email", "cancelled", "unhealthy"),
        ("sms", "planned", None),
    ]
    [shown] = show_intents(stuck.runtime, [adas.id])
    told = [entry["text"] for entry in shown["timeline"]]
    assert any("was taken back before it left (all accounts" in text for text in told), told
    stuck.tick()
    stuck.work()
    assert planned(stuck)[-1] == ("sms", 1, "planned"), "and is not decided again"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes twenty of a lane."""
    monkeypatch.setattr(dispatching, "TAKE", 20)


def waits(house: House, name: str, n: int, **more: Any) -> None:
    """Let so many wait for the relay, each of whom has a phone, too."""
    house.accept(
        *(
            intent(customer(f"{name}{at}", phone=f"+1202555{at:04}"), key=f"{name}{at}", **more)
            for at in range(n)
        )
    )


def staggered(house: House) -> None:
    """All have waited for long, each from a moment of its own, in the order of their ids."""
    house.execute(
        "UPDATE deliveries SET due_at = now() - interval '1 hour' + id * interval '1 s'"
        " WHERE state = 'planned'"
    )


def asked(house: House) -> list[Any]:
    """The intents that were to be decided, in that order."""
    rows = house.rows("SELECT id, key, urgency FROM intents")
    known = {row.id: row for row in rows}
    return [known[one] for one in house.hints.decisions]


def test_what_is_decided_to_stay_keeps_none_of_the_others_waiting(
    house: House, looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those of other lanes, nor those behind it in its flow, nor those of another one."""
    monkeypatch.setattr(dispatching, "ABOUT_TO_BE_TRIED", timedelta(minutes=10))
    waits(house, "stays", 50, urgency="bulk")
    waits(house, "behind", 5, urgency="bulk")
    waits(house, "flow", 5, urgency="bulk", campaign="spring")
    waits(house, "normal", 5)
    waits(house, "urgent", 5, urgency="urgent")
    house.execute("UPDATE deliveries SET state = 'planned' WHERE state = 'queued'")
    staggered(house)
    breaks(house, "relay")
    tried_again_in(house, 9 * 60)
    house.tick()
    first = [row.urgency for row in asked(house)]
    assert first == ["urgent"] * 5 + ["normal"] * 5 + ["bulk"] * 20
    for _ in range(20):
        house.tick()
    keys = {row.key for row in asked(house)}
    for name in ("behind", "flow", "normal", "urgent"):
        assert {f"{name}{at}" for at in range(5)} <= keys


def test_a_look_reads_on_where_the_last_one_ended_and_comes_round_again(
    house: House, looks: None
) -> None:
    waits(house, "one", 50)
    staggered(house)
    [flow] = house.rows("SELECT sender_id, brand_id, campaign, test FROM deliveries LIMIT 1")
    since: dict[Flow, datetime | None] = {Flow(*flow): None}
    [policy] = house.rows("SELECT DISTINCT policy_id AS id FROM intents")
    found: list[list[Any]] = []
    for _ in range(4):
        with house.runtime.engine.begin() as connection:
            ids, further = waiting_long(
                connection,
                "email",
                "normal",
                since,
                able=["sms"],
                policies=[policy.id],
                waited_s=30.0,
                limit=20,
            )
        found.append(ids)
        since = {Flow(*flow): further.get(Flow(*flow))}
    assert [len(ids) for ids in found] == [20, 20, 12, 20], "it begins with the moment it ended at"
    assert len({one for ids in found[:3] for one in ids}) == 50
    assert set(found[3]) == set(found[0])


def test_where_more_has_one_moment_than_a_look_takes_the_next_goes_beyond(
    house: House, looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "ABOUT_TO_BE_TRIED", timedelta(minutes=10))
    waits(house, "same", 30)
    waits(house, "later", 1)
    house.execute("UPDATE deliveries SET due_at = now() - interval '1 hour'")
    house.execute(
        "UPDATE deliveries SET due_at = now() - interval '1 minute'"
        " WHERE intent_id = (SELECT id FROM intents WHERE key = 'later0')"
    )
    breaks(house, "relay")
    tried_again_in(house, 9 * 60)
    for _ in range(3):
        house.tick()
    assert "later0" in {row.key for row in asked(house)}


def test_nothing_more_moves_while_enough_waits_to_be_decided(stuck: House) -> None:
    stuck.hints.in_broker = {"decisions": dispatching.ENOUGH_TO_DECIDE}
    stuck.tick()
    assert stuck.hints.decisions == []
    stuck.hints.in_broker = {}
    stuck.tick()
    assert len(stuck.hints.decisions) == 1


def test_nothing_moves_while_the_account_rests_for_longer(stuck: House) -> None:
    tried_again_in(stuck, 20 * 60)
    stuck.tick()
    assert stuck.hints.decisions == []


def test_what_a_worker_was_told_of_meanwhile_stays(
    stuck: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    [adas] = stuck.rows("SELECT id FROM intents WHERE key = 'adas'")
    lock_open = deciding.lock_open

    def released_meanwhile(connection: Any, ids: Any) -> Any:
        found = lock_open(connection, ids)
        stuck.execute("UPDATE deliveries SET state = 'queued', account = 'relay'")
        return found

    monkeypatch.setattr(deciding, "lock_open", released_meanwhile)
    decide_intents(stuck.runtime, [adas.id])
    [row] = stuck.rows("SELECT channel, state FROM deliveries WHERE intent_id = :id", id=adas.id)
    assert tuple(row) == ("email", "queued")
    assert len(stuck.rows("SELECT FROM decisions WHERE intent_id = :id", id=adas.id)) == 1


def test_what_was_tried_stays_with_its_channel(stuck: House) -> None:
    stuck.execute("UPDATE deliveries SET attempts = 1")
    stuck.tick()
    assert stuck.hints.decisions == []


def test_what_an_operator_has_mended_is_tried_at_once_and_audited(house: House) -> None:
    house.accept(intent(customer()))
    breaks(house, "relay")
    assert house.run() == {}
    mended = Operator("grace", "a new password")
    assert retry_account(house.runtime, "relay", mended) is True
    assert house.run() == {"sent": 1}
    assert retry_account(house.runtime, "relay", mended) is False
    [change] = house.rows("SELECT actor, subject, reason FROM audit WHERE action = 'retry_account'")
    assert tuple(change) == ("grace", {"account": "relay"}, "a new password")
    with pytest.raises(BadTarget, match="there are relay, texts"):
        retry_account(house.runtime, "relai", mended)


def test_without_redis_no_account_is_said_not_to_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.runtime.health, "_redis", connect("redis://127.0.0.1:9/0"))
    with pytest.raises(LimitsUnavailable):
        retry_account(house.runtime, "relay", Operator("grace", "a new password"))
