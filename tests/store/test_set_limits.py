"""Limits that operators set: in force at once, for a time, audited, and ended by mere time."""

import time
from datetime import timedelta
from itertools import pairwise

import pytest
from redis import Redis

from app.limits import Grant, Limit, RateLimits, connect
from app.usecases.operating.control import BadTarget, Operator
from app.usecases.operating.limits import lift_limit, set_limit, show_limits
from app.usecases.rates import RATES_FRESH_S
from tests.store.conftest import House

OPERATOR = Operator("grace", "the relay asked for it")


def in_force(house: House, account: str = "relay") -> float | None:
    house.runtime.rates.forget()
    return house.runtime.rate_of(account)


def actions(house: House) -> list[str]:
    rows = house.rows("SELECT action FROM audit WHERE action <> 'apply' ORDER BY id")
    return [row.action for row in rows]


def test_a_limit_is_set_shown_lifted_and_audited(house: House) -> None:
    assert in_force(house) is None
    assert set_limit(house.runtime, "relay", 25, OPERATOR) is True
    assert set_limit(house.runtime, "relay", 25, OPERATOR) is False
    assert in_force(house) == 25
    [row] = [one for one in show_limits(house.runtime) if one["account"] == "relay"]
    assert (row["declared_per_s"], row["limit_per_s"]) == (None, 25)
    assert (row["set"]["actor"], row["set"]["reason"]) == ("grace", OPERATOR.reason)
    assert row["set"]["until"] is None
    assert set_limit(house.runtime, "relay", 40.5, OPERATOR) is True
    assert in_force(house) == 40.5
    assert in_force(house, "texts") is None
    assert lift_limit(house.runtime, "relay", OPERATOR) is True
    assert lift_limit(house.runtime, "relay", OPERATOR) is False
    assert in_force(house) is None
    assert actions(house) == ["limit", "limit", "lift_limit"]


def test_a_limit_for_a_time_ends_by_itself(house: House) -> None:
    assert set_limit(house.runtime, "relay", 5, OPERATOR, for_s=7200) is True
    [row] = [one for one in show_limits(house.runtime) if one["account"] == "relay"]
    assert row["set"]["until"] - row["set"]["set_at"] == timedelta(hours=2)
    house.execute("UPDATE limits SET until = now()")
    assert in_force(house) is None
    assert all(one["set"] is None for one in show_limits(house.runtime))
    assert lift_limit(house.runtime, "relay", OPERATOR) is False, "it has ended already"
    assert set_limit(house.runtime, "relay", 5, OPERATOR) is True
    assert in_force(house) == 5


def test_a_process_knows_a_limit_within_a_second(house: House) -> None:
    assert house.runtime.rate_of("relay") is None
    house.execute(
        "INSERT INTO limits (account, per_second, reason, actor) VALUES ('relay', 3, 'x', 'ada')"
    )
    assert RATES_FRESH_S <= 1
    time.sleep(RATES_FRESH_S + 0.1)
    assert house.runtime.rate_of("relay") == 3


def test_a_limit_outlasts_a_ledger_that_is_away(house: House) -> None:
    set_limit(house.runtime, "relay", 3, OPERATOR)
    assert house.runtime.rate_of("relay") == 3
    house.execute("ALTER TABLE limits RENAME TO away")
    house.runtime.rates.forget()
    assert house.runtime.rate_of("relay") == 3


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_what_is_no_limit_is_refused(house: House, rate: float) -> None:
    with pytest.raises(BadTarget, match="pause"):
        set_limit(house.runtime, "relay", rate, OPERATOR)
    assert actions(house) == []


def test_an_unknown_account_is_told_which_there_are(house: House) -> None:
    with pytest.raises(BadTarget, match="relay, texts"):
        set_limit(house.runtime, "rely", 5, OPERATOR)
    with pytest.raises(BadTarget, match="say why"):
        set_limit(house.runtime, "relay", 5, Operator("grace", " "))


def until_granted(rates: RateLimits, limit: Limit, n: int, within_s: float) -> Grant:
    deadline = time.monotonic() + within_s
    while True:
        grant = rates.reserve([limit], n, 1.0)
        if grant.granted:
            return grant
        assert time.monotonic() < deadline, grant
        time.sleep(0.02)


@pytest.fixture
def rates(redis_url: str, servers: object) -> RateLimits:
    with Redis.from_url(redis_url) as connection:
        connection.flushall()
    return RateLimits(connect(redis_url))


def test_a_raised_limit_waits_for_no_slot_of_the_slow_time(rates: RateLimits) -> None:
    slow, fast = Limit("account:relay", 0.01), Limit("account:relay", 100)
    assert rates.reserve([slow], 5, 1.0).granted == 1
    refused = rates.reserve([slow], 5, 1.0)
    assert refused.granted == 0
    assert refused.retry_after_s < 2, "the limit may be raised before its slot 100 s ahead"
    granted = until_granted(rates, fast, 50, within_s=20)
    slots = granted.slots
    assert all(later - one >= 0.01 - 3e-6 for one, later in pairwise(slots))


def test_a_lowered_limit_holds_from_the_next_slot(rates: RateLimits) -> None:
    before = rates.reserve([Limit("account:relay", 100)], 50, 1.0)
    after = rates.reserve([Limit("account:relay", 2)], 50, 1.0)
    times = [before.reserved_at + slot for slot in before.slots]
    later = [after.reserved_at + slot for slot in after.slots]
    assert later[0] > times[-1]
    assert 1 <= len(later) <= 3, "three where the slots of before are over by now"
    assert all(two - one >= 0.5 - 3e-6 for one, two in pairwise(later))
