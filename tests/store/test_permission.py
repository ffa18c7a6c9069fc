"""Consent, quiet hours, caps, wishes and activity in what is decided and what goes out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.domain.consent import Scope
from app.domain.vocabulary import Channel, Kind
from app.store.persons import note_activity
from app.usecases.operating.apply import apply
from app.usecases.telling.inspect import show_intents
from tests.statements import Statement, record
from tests.store.conftest import DECLARED, House, customer, intent, policy

MARKETING = Scope(kind=Kind.MARKETING)


def declare(house: House, **settings: Any) -> None:
    """Give the brand these settings more; two policies more to climb."""
    brand = DECLARED.brands["demo"]
    brand = replace(
        brand,
        settings={**brand.settings, **settings},
        topics={**brand.topics, "news": "News and offers"},
    )
    days = 30 * 86_400
    more = [
        policy("either", (["email", "sms"], None), expires=days),
        policy("in-turn", (["email"], 1800), (["sms"], None), expires=days),
        policy("email-only", (["email"], None), expires=days),
    ]
    apply(
        house.runtime,
        replace(
            DECLARED,
            brands={"demo": brand},
            policies={**DECLARED.policies, **{one["name"]: one for one in more}},
        ),
    )


def one_id(house: House, query: str, **parameters: Any) -> int:
    [row] = house.rows(query, **parameters)
    return int(row[0])


def person(house: House, ref: str = "ada") -> int:
    return one_id(house, "SELECT id FROM customers WHERE ref = :ref", ref=ref)


def endpoint(house: House, channel: str) -> int:
    return one_id(house, "SELECT id FROM endpoints WHERE channel = :channel", channel=channel)


def sender(house: House, name: str = "store") -> int:
    return one_id(house, "SELECT id FROM senders WHERE name = :name", name=name)


def says(house: House, allow: bool, scope: Scope, ref: str = "ada", **more: Any) -> None:
    brand_id = one_id(house, "SELECT id FROM brands WHERE name = 'demo'")
    statement = Statement(person(house, ref), scope, allow, "preferences", **more)
    record(house.runtime, brand_id, [statement])


def considered(house: House) -> list[tuple[Any, ...]]:
    """What the last decision about the last intent considered."""
    rows = house.rows(
        "SELECT considered FROM decisions WHERE intent_id ="
        " (SELECT id FROM intents ORDER BY accepted_at DESC LIMIT 1) ORDER BY number"
    )
    return [tuple(each[:3]) for each in rows[-1].considered]


@pytest.fixture
def ada(house: House) -> House:
    """A house with a customer who has mail and a phone."""
    declare(house)
    house.accept(intent(customer(phone="+12025550101"), key="first"))
    house.run()
    house.sink.messages.clear()
    house.hints.deliveries.clear()
    return house


def test_marketing_needs_a_yes(ada: House) -> None:
    [refused] = ada.accept(intent(kind="marketing", topic="news"))
    assert (refused.status, refused.field, refused.code) == ("refused", "kind", "consent_required")
    says(ada, True, MARKETING)
    [taken] = ada.accept(intent(kind="marketing", topic="news", key="again"))
    assert taken.status == "accepted"


def test_a_no_after_the_decision_stops_what_is_queued(ada: House) -> None:
    ada.accept(intent(policy="email-only"))
    ada.tick()
    says(ada, False, Scope(channel=Channel.EMAIL))
    ada.run()
    assert ada.sink.messages == []
    [row] = ada.rows("SELECT state, reason, attempts FROM deliveries ORDER BY id DESC LIMIT 1")
    assert (row.state, row.reason, row.attempts) == ("cancelled", "no_consent", 0)


def test_a_step_that_may_not_be_taken_is_passed_on(ada: House) -> None:
    says(ada, False, Scope(endpoint_id=endpoint(ada, "email")))
    [verdict] = ada.accept(intent(policy="in-turn"))
    assert considered(ada) == [(0, "email", "no_consent"), (1, "sms", "chosen")]
    [row] = ada.rows("SELECT channel FROM deliveries WHERE intent_id = :id", id=verdict.id)
    assert row.channel == "sms"


def test_what_is_stopped_at_the_claim_goes_by_the_next_channel(ada: House) -> None:
    [verdict] = ada.accept(intent(policy="in-turn"))
    ada.tick()
    says(ada, False, Scope(endpoint_id=endpoint(ada, "email")))
    ada.run()
    rows = ada.rows(
        "SELECT channel, state FROM deliveries WHERE intent_id = :id ORDER BY id", id=verdict.id
    )
    assert [tuple(row) for row in rows] == [("email", "cancelled"), ("sms", "planned")]
    assert ada.sink.messages == []


def test_a_yes_lets_go_at_once_what_a_no_had_held(ada: House) -> None:
    scope = Scope(endpoint_id=endpoint(ada, "email"))
    ada.accept(intent(policy="email-only"))
    ada.tick()
    says(ada, False, scope)
    ada.work()
    [held] = ada.rows("SELECT state, reason FROM intents ORDER BY accepted_at DESC LIMIT 1")
    assert held.state == "open"
    assert ada.sink.messages == []
    says(ada, True, scope)
    ada.run()
    ada.run()
    assert len(ada.sink.messages) == 1


def test_a_muted_sender_waits_until_the_mute_ends(ada: House) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    says(ada, False, Scope(sender_id=sender(ada)), until=until)
    [verdict] = ada.accept(intent(policy="email-only"))
    assert verdict.status == "accepted"
    ada.run()
    assert ada.sink.messages == []
    assert considered(ada) == [(0, "email", "muted_sender")]
    [row] = ada.rows("SELECT decide_at FROM intents WHERE id = :id", id=verdict.id)
    assert abs((row.decide_at - until).total_seconds()) < 1
    [other] = ada.accept(intent(policy="email-only", sender="billing"))
    ada.run()
    assert other.status == "accepted"
    assert len(ada.sink.messages) == 1


@pytest.mark.parametrize(
    ("when_blocked", "state", "channels"),
    [
        ("hold", "open", []),
        ("next", "open", ["sms"]),
        ("drop", None, []),
    ],
)
def test_the_intent_says_what_becomes_of_a_blocked_step(
    ada: House, when_blocked: str, state: str | None, channels: list[str]
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    says(ada, False, Scope(channel=Channel.EMAIL), until=until)
    [verdict] = ada.accept(intent(policy="in-turn", when_blocked=when_blocked))
    rows = ada.rows("SELECT state FROM intents WHERE id = :id", id=verdict.id)
    assert [row.state for row in rows] == ([state] if state else [])
    if state is None:
        assert (verdict.status, verdict.code) == ("refused", "blocked")
    sent = ada.rows("SELECT channel FROM deliveries WHERE intent_id = :id", id=verdict.id)
    assert [row.channel for row in sent] == channels


def quiet_now(zone: str) -> dict[str, str]:
    """Quiet hours that began an hour ago and end in two, by the clock of a zone that never changes
    its clock: else they would end an hour sooner or later on two days of the year."""
    here = datetime.now(ZoneInfo(zone))
    return {
        "from": f"{here - timedelta(hours=1):%H:%M}",
        "to": f"{here + timedelta(hours=2):%H:%M}",
    }


def wish(house: House, document: str, zone: str | None) -> None:
    house.execute(
        "UPDATE customers SET wishes = CAST(:wishes AS jsonb), timezone = :zone",
        wishes=document,
        zone=zone,
    )


def in_hours(house: House, verdict_id: object) -> float:
    [row] = house.rows(
        "SELECT extract(epoch FROM decide_at - now()) / 3600 AS h FROM intents WHERE id = :id",
        id=verdict_id,
    )
    return float(row.h)


def test_quiet_hours_hold_and_urgent_matters_pass(ada: House) -> None:
    quiet = quiet_now("Asia/Kolkata")
    wish(ada, f'{{"quiet": {{"from": "{quiet["from"]}", "to": "{quiet["to"]}"}}}}', "Asia/Kolkata")
    [held] = ada.accept(intent(policy="email-only"))
    ada.run()
    assert ada.sink.messages == []
    assert considered(ada) == [(0, "email", "quiet_until")]
    assert 1.9 < in_hours(ada, held.id) < 2.02
    ada.accept(intent(policy="email-only", urgency="urgent"))
    ada.run()
    assert len(ada.sink.messages) == 1
    ada.accept(intent(policy="email-only", urgency="urgent", kind="conversational"))
    ada.run()
    assert len(ada.sink.messages) == 1, "urgent, but no transaction"


def test_hours_that_begin_before_the_claim_put_it_off(ada: House) -> None:
    ada.accept(intent(policy="email-only"))
    ada.tick()
    quiet = quiet_now("Asia/Kolkata")
    wish(ada, f'{{"quiet": {{"from": "{quiet["from"]}", "to": "{quiet["to"]}"}}}}', "Asia/Kolkata")
    ada.work()
    assert ada.sink.messages == []
    [row] = ada.rows(
        "SELECT state, reason, extract(epoch FROM due_at - now()) / 3600 AS h FROM deliveries"
        " ORDER BY id DESC LIMIT 1"
    )
    assert (row.state, row.reason) == ("planned", "quiet_until")
    assert 1.9 < row.h < 2.02


def test_marketing_keeps_the_laws_hours_in_the_strictest_zone(ada: House) -> None:
    says(ada, True, MARKETING)
    here = datetime.now(ZoneInfo("Pacific/Honolulu"))
    declare(
        ada,
        marketing_quiet_hours={
            "from": f"{here - timedelta(minutes=30):%H:%M}",
            "to": f"{here + timedelta(minutes=30):%H:%M}",
        },
    )
    [verdict] = ada.accept(intent(kind="marketing", topic="news", policy="email-only"))
    assert verdict.status == "accepted"
    ada.run()
    assert ada.sink.messages == [], "they may be in Hawaii: their phone is American"
    ada.execute("UPDATE customers SET timezone = 'America/New_York'")
    ada.execute("UPDATE intents SET decide_at = now() WHERE state = 'open'")
    ada.run()
    ada.run()
    assert len(ada.sink.messages) == 1


CAPS = {"weekly": {"most": 2, "within": 7 * 86_400.0, "kind": "marketing"}}


@pytest.fixture
def capped(ada: House) -> House:
    declare(ada, caps=CAPS, marketing_quiet_hours=None)
    says(ada, True, MARKETING)
    return ada


def offer(**more: Any) -> dict[str, Any]:
    return intent(kind="marketing", topic="news", policy="email-only", **more)


def test_no_more_than_the_cap_goes_out_in_its_window(capped: House) -> None:
    verdicts = capped.accept(*(offer(key=f"offer-{n}") for n in range(5)))
    assert {one.status for one in verdicts} == {"accepted"}
    capped.run()
    assert len(capped.sink.messages) == 2
    held = capped.rows(
        "SELECT reason, due_at - now() AS waits FROM deliveries WHERE state = 'planned'"
    )
    assert [row.reason for row in held] == ["capped_until"] * 3
    assert all(timedelta(days=6.9) < row.waits < timedelta(days=7.5) for row in held)
    capped.accept(intent(policy="email-only", key="order"))
    capped.run()
    assert len(capped.sink.messages) == 3, "the cap is on marketing alone"
    capped.accept(offer(key="later"))
    assert considered(capped) == [(0, "email", "capped_until")]
    [count] = capped.rows("SELECT cap, n FROM cap_counts")
    assert tuple(count) == ("weekly", 2)


def test_what_was_not_taken_does_not_count(capped: House) -> None:
    capped.sink.faults.refuse = {"ada@example.com": "451 4.3.0 try later"}
    capped.accept(offer(key="one"))
    assert capped.run() == {"retry": 1}
    [count] = capped.rows("SELECT n FROM cap_counts")
    assert count.n == 0


def test_two_workers_at_once_keep_to_the_cap(capped: House) -> None:
    capped.accept(*(offer(key=f"offer-{n}") for n in range(8)))
    capped.tick()
    hints, capped.hints.deliveries = capped.hints.deliveries, []
    ids = [key for _, _, _, keys in hints for key in keys]
    deliver = _deliverer(capped)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(deliver, [[key] for key in ids]))
    assert len(capped.sink.messages) == 2


def _deliverer(house: House) -> Callable[[list[int]], object]:
    from app.usecases.delivering.deliver import Hand, deliver

    return lambda ids: deliver(house.runtime, "relay", ids, Hand())


def test_the_channel_wished_first_is_taken_and_the_one_in_use_before_it(ada: House) -> None:
    ada.accept(intent(policy="either", key="plain"))
    assert considered(ada) == [(0, "email", "chosen"), (0, "sms", "lower_score")]
    wish(ada, '{"channels": ["sms"]}', None)
    ada.accept(intent(policy="either", key="wished"))
    assert considered(ada) == [(0, "sms", "chosen"), (0, "email", "lower_score")]
    with ada.runtime.engine.begin() as connection:
        row = {"customer_id": person(ada), "channel": "email", "at": datetime.now(UTC)}
        note_activity(connection, [row])
    ada.accept(intent(policy="either", key="active"))
    assert considered(ada) == [(0, "email", "chosen"), (0, "sms", "lower_score")]
    ada.execute("UPDATE activity SET at = at - interval '1 hour'")
    ada.accept(intent(policy="either", key="left"))
    assert considered(ada) == [(0, "sms", "chosen"), (0, "email", "lower_score")]


def test_a_verified_address_comes_first(ada: House) -> None:
    from app.usecases.people.customers import put_customers

    brand_id = one_id(ada, "SELECT id FROM brands WHERE name = 'demo'")
    put_customers(
        ada.runtime, brand_id, [{"ref": "ada", "email": ["ada@example.com", "ada@example.org"]}]
    )
    ada.execute("UPDATE endpoints SET verified_at = now() WHERE address = 'ada@example.org'")
    ada.accept(intent(policy="email-only"))
    ada.run()
    assert [one.recipients for one in ada.sink.messages] == [("ada@example.org",)]


def test_the_same_fact_says_nothing_twice_and_what_was_said_stays(ada: House) -> None:
    for _ in range(2):
        says(ada, False, Scope(), fact="sms:SM1")
    assert len(ada.rows("SELECT FROM consents")) == 1
    with pytest.raises(Exception, match="only ever added"):
        ada.execute("UPDATE consents SET allow = true")


def test_what_stood_in_the_way_is_shown(ada: House) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    says(ada, False, Scope(sender_id=sender(ada)), until=until)
    [verdict] = ada.accept(intent(policy="email-only"))
    assert verdict.id is not None
    [shown] = show_intents(ada.runtime, [verdict.id])
    [weighed] = shown["decisions"][0]["considered"]
    assert (weighed["why"], weighed["told"]) == ("muted_sender", "preferences")
    assert weighed["until"] == until
