"""`converge policies try`: what would happen to a real customer's intent; nothing is written."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.cli import trying
from app.cli.failures import Problem
from app.domain.consent import Scope
from app.domain.policy import Policy
from app.domain.vocabulary import Kind
from app.usecases.deciding.trying import Trial, try_policy
from app.usecases.people.customers import put_customers
from app.usecases.telling.pages import BadFilter
from tests.statements import Statement, record
from tests.store.conftest import House, customer

AT = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


def tried(house: House, **more: Any) -> dict[str, Any]:
    brand = house.runtime.catalog().brands["demo"]
    trial = Trial(**{"customer": "ada", "policy": "notify", "at": AT, **more})
    return try_policy(house.runtime, brand, trial)


@pytest.fixture
def ada(house: House) -> House:
    known = customer(phone="+12025550101", timezone="Europe/Berlin")
    put_customers(house.runtime, house.runtime.catalog().brands["demo"].id, [known])
    return house


def tables(house: House) -> list[Any]:
    names = ("intents", "decisions", "deliveries", "cap_counts", "audit", "refusals")
    return [house.rows(f"SELECT count(*) FROM {name}")[0][0] for name in names]


def test_every_step_is_told_with_its_time_and_nothing_is_written(ada: House) -> None:
    before = tables(ada)
    found = tried(ada)
    sends = [one for one in found["steps"] if one["verdict"] == "send"]
    assert [(one["at"], one["channel"], one["address"]) for one in sends] == [
        (AT, "email", "a***@example.com"),
        (AT + timedelta(minutes=30), "sms", "+1•••0101"),
    ]
    assert found["steps"][0]["text"] == "Decided on arrival: step 1, by email."
    assert "not by chat (step 2): no address is known" in found["steps"][2]["text"].lower()
    assert found["steps"][-1]["verdict"] == "stop"
    assert found["refused"] is None
    assert tables(ada) == before
    assert ada.hints.deliveries == []
    assert "ada@example.com" not in str(found)


def test_what_the_customer_said_and_wishes_is_minded(ada: House) -> None:
    [row] = ada.rows("SELECT id, brand_id FROM customers")
    ada.execute("""UPDATE customers SET wishes = '{"quiet": {"from": "13:00", "to": "14:00"}}'""")
    found = tried(ada)
    assert found["zone"] == "Europe/Berlin"
    assert found["steps"][0]["local"] == datetime(2030, 1, 31, 13, 0)  # noqa: DTZ001  # their clock
    assert "quiet hours until 2030-01-31 13:00 UTC" in found["steps"][0]["text"]
    assert found["steps"][1]["at"] == AT + timedelta(hours=1)
    record(ada.runtime, row.brand_id, [Statement(row.id, Scope(), False, "text")])
    assert "said no in a message to us" in tried(ada)["steps"][0]["text"]


def test_what_would_not_be_taken_says_why(ada: House) -> None:
    found = tried(ada, kind=Kind.MARKETING)
    assert "needs the customer's consent" in found["refused"]
    assert [one["verdict"] for one in found["steps"]] == ["stop"]


def test_what_is_not_known_is_named(ada: House) -> None:
    for field in ("customer", "policy", "sender", "topic"):
        with pytest.raises(BadFilter) as bad:
            tried(ada, **{field: "nonsense"})
        assert bad.value.field == field


POLICIES = """
[quick]
expires_after = "1h"
[[quick.steps]]
channels = ["sms"]
"""


def test_a_policy_comes_from_a_file_or_the_ledger(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(POLICIES)
    two.write_text(POLICIES + POLICIES.replace("quick", "slow"))
    assert trying._policy("notify", None) == "notify"
    quick = trying._policy(str(one), None)
    assert isinstance(quick, Policy)
    assert (quick.name, quick.expires_after) == ("quick", 3600)
    slow = trying._policy(str(two), "slow")
    assert isinstance(slow, Policy)
    with pytest.raises(Problem, match="with --policy: quick, slow"):
        trying._policy(str(two), None)
    with pytest.raises(Problem, match="no policy 'x'"):
        trying._policy(str(two), "x")


def test_the_policy_of_a_file_is_the_one_that_an_intent_gets_that_names_none(
    tmp_path: Path,
) -> None:
    shipped = trying._policy("config/policies.toml", None)
    assert isinstance(shipped, Policy)
    assert shipped.name == "notify"
    several = tmp_path / "several.toml"
    several.write_text(POLICIES + POLICIES.replace("quick", "notify"))
    found = trying._policy(str(several), None)
    assert isinstance(found, Policy)
    assert found.name == "notify"


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("2030-01-31T12:00Z", AT),
        ("2030-01-31T13:00+01:00", AT),
        ("2030-01-31T13:00 Europe/Berlin", AT),
        ("2030-01-31T12:00", AT),
        ("2030-01-31 12:00", AT),
        ("now", AT),
    ],
)
def test_a_time_may_name_its_zone(told: str, at: datetime) -> None:
    assert trying._moment(told, AT) == at


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("tomorrow", "write"),
        ("2030-02-30T12:00", "write"),
        ("2030-01-31T12:00 Mars/Olympus", "no time zone"),
        ("2030-01-31T12:00 ../../etc/passwd", "no time zone"),
        ("2030-01-31T12:00Z Europe/Berlin", "not both"),
        ("2026-03-29T02:30 Europe/Berlin", "clocks go forward"),
        ("9999-12-31T23:59Z", "out of reach"),
    ],
)
def test_a_bad_time_says_what_is_wrong(told: str, problem: str) -> None:
    with pytest.raises(Problem, match=problem):
        trying._moment(told, AT)
