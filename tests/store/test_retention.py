"""What was said is kept for its time, and no longer; that it was said stays."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.tokens import Purpose
from app.usecases.hearing.links import MessageGone, hosted
from app.usecases.operating.apply import Declared, apply
from app.usecases.operating.control import Operator, replay
from app.usecases.operating.upkeep import upkeep
from app.usecases.telling.inspect import failed
from tests.store.conftest import DECLARED, House, customer, intent

TEXT = {"subject": "Order 991", "text": "Hello {{ name }}"}
DATA = {"name": "Ada"}


def ended(house: House, days: float, **more: Any) -> Any:
    """An intent that ended so many days ago."""
    document = intent(customer(), **{"content": TEXT, "data": DATA, **more})
    [verdict] = house.accept(document)
    house.run()
    house.execute(
        "UPDATE intents SET state = 'exhausted', decide_at = NULL,"
        " ended_at = now() - make_interval(secs => :ago) WHERE id = :id",
        ago=days * 86_400,
        id=verdict.id,
    )
    return verdict.id


def kept(house: House) -> dict[str, bool]:
    """Which intents still know what they said, by key."""
    rows = house.rows("SELECT key, content_id <> 0 AND data <> '{}' FROM intents")
    return {row[0]: row[1] for row in rows}


def contents(house: House) -> list[str | None]:
    rows = house.rows("SELECT document->>'text' FROM contents ORDER BY id")
    return [row[0] for row in rows]


def test_bodies_go_after_their_days_and_all_else_stays(house: House) -> None:
    ended(house, 31, key="old")
    ended(house, 29, key="new")
    house.accept(intent("ada", key="open", content=TEXT, data=DATA))
    assert upkeep(house.runtime)["bodies"] == 1
    assert kept(house) == {"old": False, "new": True, "open": True}
    assert contents(house) == ["Hello {{ name }}"], "others still need it"
    assert upkeep(house.runtime)["bodies"] == 0
    house.execute("UPDATE intents SET ended_at = now() - interval '1 year' WHERE key = 'new'")
    assert upkeep(house.runtime)["bodies"] == 1
    assert contents(house) == ["Hello {{ name }}"]
    house.execute(
        "UPDATE intents SET state = 'cancelled', decide_at = NULL,"
        " ended_at = now() - interval '1 year' WHERE key = 'open'"
    )
    assert upkeep(house.runtime)["bodies"] == 1
    assert contents(house) == [None]
    [told] = house.rows("SELECT count(*) AS n FROM decisions d JOIN intents i ON i.id = intent_id")
    assert told.n >= 3


def test_each_brand_says_how_many_days(house: House) -> None:
    brand = DECLARED.brands["demo"]
    short = type(brand)({**brand.settings, "keep_content_days": 2}, brand.senders, brand.topics)
    apply(house.runtime, Declared({"demo": short}, DECLARED.policies))
    ended(house, 3, key="old")
    ended(house, 1, key="new")
    assert upkeep(house.runtime)["bodies"] == 1
    assert kept(house) == {"old": False, "new": True}


def test_a_run_takes_a_part_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.usecases.operating.upkeep.AT_ONCE", 2)
    for n in range(5):
        ended(house, 40, key=f"k{n}", content={"text": f"Number {n}"})
    monkeypatch.setattr("app.usecases.operating.upkeep.MOST", 2)
    assert upkeep(house.runtime)["bodies"] == 4
    assert upkeep(house.runtime)["bodies"] == 1
    assert contents(house) == [None] * 5


def test_a_hosted_message_says_that_its_time_is_over(house: House) -> None:
    ended(house, 40, expires_at="2100-01-01T00:00:00Z")
    [delivery] = house.rows("SELECT id FROM deliveries")
    token = house.runtime.words.signer.sign(Purpose.MESSAGE, delivery.id)
    now = datetime.now(UTC)
    assert "Hello Ada" in hosted(house.runtime, token, now).shown
    upkeep(house.runtime)
    with pytest.raises(MessageGone):
        hosted(house.runtime, token, now)


def test_what_is_forgotten_is_not_sent_again(house: House) -> None:
    ended(house, 40, expires_at="2100-01-01T00:00:00Z")
    house.execute("UPDATE deliveries SET state = 'failed', due_at = NULL")
    [delivery] = house.rows("SELECT id FROM deliveries")
    assert failed(house.runtime)[0][0]["replayable"]
    upkeep(house.runtime)
    assert not failed(house.runtime)[0][0]["replayable"]
    assert replay(house.runtime, [delivery.id], Operator("tests", "why not")) == []


def test_what_people_wrote_goes_too_and_strangers_altogether(house: House) -> None:
    house.accept(intent(customer()))
    house.execute(
        "INSERT INTO inbound_messages (account, external_id, channel, from_address, text, brand_id,"
        " customer_id, at, received_at) SELECT 'texts', 'm' || n, 'sms', '+12025550101', 'Hello',"
        " CASE WHEN n < 3 THEN c.brand_id END, CASE WHEN n < 3 THEN c.id END, now(),"
        " now() - make_interval(days => (ARRAY[40, 1, 40, 1])[n])"
        " FROM customers c, generate_series(1, 4) n"
    )
    assert upkeep(house.runtime)["texts"] == 2
    rows = house.rows("SELECT external_id, text FROM inbound_messages ORDER BY 1")
    assert [tuple(row) for row in rows] == [("m1", ""), ("m2", "Hello"), ("m4", "Hello")]


def test_a_content_that_nobody_came_to_need_is_not_kept(house: House) -> None:
    content = {"text": "Only to nobody"}
    [verdict] = house.accept(intent(customer(email=None), content=content))
    assert verdict.status == "refused"
    assert contents(house) == [None]
    house.accept(intent(customer("bob"), content=content))
    assert contents(house) == ["Only to nobody"], "this process knew its id"


def test_old_counts_of_caps_go(house: House) -> None:
    house.accept(intent(customer()))
    house.execute(
        "INSERT INTO cap_counts SELECT id, 'daily', now() - make_interval(days => days), 1"
        " FROM customers, unnest(ARRAY[0, 1, 3]) days"
    )
    assert upkeep(house.runtime)["cap_counts"] == 1
