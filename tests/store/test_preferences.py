"""What customers allow and wish, changed in one place: by themselves, and by the brand for them."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.consent import Subject, standing
from app.domain.reach import Reach
from app.domain.vocabulary import Channel, Kind
from app.store.consents import consents_of
from app.store.intents import ledger_now
from app.usecases.consent.preferences import (
    change_preferences,
    correct_address,
    look,
    mean_address,
    read_preferences,
    take_back,
)
from app.usecases.consent.statements import list_statements, say_by_names
from app.usecases.consent.voices import (
    BadPreference,
    Named,
    NoSuchCustomer,
    Overruled,
    UsedKey,
    Voice,
)
from app.usecases.people.correcting import AddressChange
from app.usecases.people.customers import put_customers
from tests.store.conftest import House, customer, intent

ADA = Voice("preferences", own=True, actor="customer")
BRAND = Voice("api", own=False, actor="key abc")


@pytest.fixture
def ada(house: House) -> Named:
    """A customer with a mail address and a number."""
    brand = house.runtime.catalog().brands["demo"]
    put_customers(house.runtime, brand.id, [customer(phone="+12025550101")])
    return Named(brand.id, "ada")


def moments(house: House) -> Any:
    with house.runtime.engine.begin() as connection:
        return ledger_now(connection)


def allowed(
    house: House, address: str, kind: Kind = Kind.MARKETING, ref: str = "ada", sender: str = "store"
) -> bool:
    """Whether a message of topic orders may go to an address of a customer now."""
    (row,) = house.rows(
        """SELECT e.id, e.channel, e.customer_id FROM endpoints e JOIN customers c
             ON c.id = e.customer_id WHERE c.ref = :ref AND e.address = :address""",
        ref=ref,
        address=address,
    )
    brand = house.runtime.catalog().brands["demo"]
    subject = Subject(
        Channel(row.channel), row.id, brand.senders[sender].id, brand.topics["orders"], kind
    )
    with house.runtime.engine.begin() as connection:
        consents = consents_of(connection, [row.customer_id]).get(row.customer_id, [])
        return standing(consents, subject, ledger_now(connection)).allowed


MAIL, NUMBER = "ada@example.com", "+12025550101"


def test_what_is_read_can_be_written_back_and_changes_nothing(house: House, ada: Named) -> None:
    later = moments(house) + timedelta(hours=1)
    wanted = {
        "topics": {"orders": True},
        "marketing": False,
        "senders": {"billing": {"muted": True, "until": later.isoformat()}},
        "everything": {"muted": True, "until": None},
        "channels": ["sms", "email"],
        "quiet_hours": {"from": "21:00", "to": "08:00"},
        "timezone": "Europe/Berlin",
    }
    told = change_preferences(house.runtime, ada, wanted, ADA)
    assert {name: told[name] for name in ("channels", "quiet_hours", "timezone", "marketing")} == {
        name: wanted[name] for name in ("channels", "quiet_hours", "timezone", "marketing")
    }
    assert told["senders"]["store"] == {"muted": False, "until": None}
    assert told["senders"]["billing"] == {"muted": True, "until": later}
    assert [one["address"] for one in told["addresses"]] == [MAIL, NUMBER]
    said = house.rows("SELECT count(*) FROM consents")[0][0]
    back = {**told, "senders": {"billing": {"muted": True, "until": later.isoformat()}}}
    assert change_preferences(house.runtime, ada, back, BRAND) == told
    assert house.rows("SELECT count(*) FROM consents")[0][0] == said == 4
    audits = house.rows("SELECT actor, subject FROM audit WHERE action = 'preferences.change'")
    assert [row.actor for row in audits] == ["customer"]
    assert MAIL not in str(audits)


def test_a_field_left_out_stays(house: House, ada: Named) -> None:
    change_preferences(house.runtime, ada, {"channels": ["sms"]}, ADA)
    quiet = {"from": "22:00", "to": "07:00"}
    told = change_preferences(house.runtime, ada, {"quiet_hours": quiet}, ADA)
    assert (told["channels"], told["quiet_hours"]) == (["sms"], quiet)
    told = change_preferences(house.runtime, ada, {"quiet_hours": None}, ADA)
    assert (told["channels"], told["quiet_hours"]) == (["sms"], None)


BAD_PREFERENCES: list[tuple[Any, str, str]] = [
    ([], "body", "object"),
    ({"topic": {}}, "topic", "is no preference"),
    ({"topics": {"weather": True}}, "topics.weather", "known: orders"),
    ({"topics": {"orders": 1}}, "topics.orders", "true, false or null"),
    ({"senders": {"nobody": {"muted": True}}}, "senders.nobody", "known: billing, store"),
    ({"senders": {"x" * 999: {"muted": True}}}, "senders." + "x" * 63, "known: billing, store"),
    ({"quiet_hours": {"from": "21:00"}}, "quiet_hours.to", "is required"),
    ({"quiet_hours": {"from": None, "to": "08:00"}}, "quiet_hours.from", "is required"),
    ({"senders": {"store": {"muted": "yes"}}}, "senders.store", "muted"),
    ({"everything": {"muted": True, "until": "soon"}}, "everything.until", "ISO 8601"),
    (
        {"everything": {"muted": True, "until": "2020-01-01T00:00:00Z"}},
        "everything.until",
        "is over",
    ),
    ({"channels": ["pigeon"]}, "channels[0]", "one of email"),
    ({"channels": ["sms", "sms"]}, "channels", "twice"),
    ({"timezone": "Mars/Olympus"}, "timezone", "Europe/Berlin"),
    ({"timezone": "../etc/passwd"}, "timezone", "Europe/Berlin"),
    ({"quiet_hours": {"from": "9", "to": "10:00"}}, "quiet_hours.from", "21:00"),
    ({"quiet_hours": {"from": "21:00", "to": 8}}, "quiet_hours.to", "string"),
    ({"quiet_hours": {"from": "21:00", "to": "21:00"}}, "quiet_hours", "pause everything"),
    ({"addresses": [{"id": 10**9, "address": "a@example.org"}]}, "addresses[0].id", "none of"),
    ({"addresses": [{"address": "a@example.org"}]}, "addresses[0].channel", "required"),
    (
        {"addresses": [{"channel": "email", "address": "nobody"}]},
        "addresses[0].address",
        "e-mail address",
    ),
]


def test_what_cannot_be_taken_names_the_field_and_the_way_out(house: House, ada: Named) -> None:
    before = read_preferences(house.runtime, ada)
    for document, field, words in BAD_PREFERENCES:
        whole = {"marketing": True, **document} if isinstance(document, dict) else document
        with pytest.raises(BadPreference) as refused:
            change_preferences(house.runtime, ada, whole, ADA)
        assert refused.value.field == field, document
        assert words in refused.value.reason
    assert read_preferences(house.runtime, ada) == before


def test_a_mute_can_be_made_longer_shorter_and_ended(house: House, ada: Named) -> None:
    now = moments(house)

    def mute(voice: Voice, muted: bool, hours: float | None = None) -> Any:
        until = (now + timedelta(hours=hours)).isoformat() if hours else None
        wanted = {"senders": {"store": {"muted": muted, "until": until}}}
        return change_preferences(house.runtime, ada, wanted, voice)["senders"]["store"]

    assert mute(ADA, True) == {"muted": True, "until": None}
    assert mute(ADA, True, 1) == {"muted": True, "until": now + timedelta(hours=1)}
    assert mute(ADA, True, 2) == {"muted": True, "until": now + timedelta(hours=2)}
    assert not allowed(house, MAIL, Kind.TRANSACTIONAL)
    assert allowed(house, MAIL, Kind.TRANSACTIONAL, sender="billing")
    with pytest.raises(Overruled):
        mute(BRAND, True, 1)
    with pytest.raises(Overruled):
        mute(BRAND, False)
    assert mute(ADA, False) == {"muted": False, "until": None}
    assert allowed(house, MAIL, Kind.TRANSACTIONAL)
    assert mute(BRAND, True, 3) == {"muted": True, "until": now + timedelta(hours=3)}
    assert mute(BRAND, False) == {"muted": False, "until": None}


def test_a_no_said_in_person_stands_against_the_brand(house: House, ada: Named) -> None:
    change_preferences(house.runtime, ada, {"topics": {"orders": False}}, ADA)
    with pytest.raises(Overruled) as refused:
        change_preferences(
            house.runtime, ada, {"channels": ["sms"], "topics": {"orders": True}}, BRAND
        )
    assert refused.value.field == "topics.orders"
    told = read_preferences(house.runtime, ada)
    assert (told["topics"]["orders"], told["channels"]) == (False, [])
    said = replace(BRAND, own=True, evidence="call 4711")
    told = change_preferences(house.runtime, ada, {"topics": {"orders": True}}, said)
    assert told["topics"]["orders"] is True
    assert allowed(house, MAIL)


def test_a_yes_to_a_topic_in_person_means_its_advertising_too(house: House, ada: Named) -> None:
    def say(voice: Voice = ADA, **wanted: Any) -> bool:
        change_preferences(house.runtime, ada, wanted, voice)
        return allowed(house, MAIL)

    unsubscribed = {"scope": {"kind": "marketing"}, "allow": False}
    say_by_names(house.runtime, ada, unsubscribed, ADA)
    assert not say(BRAND, topics={"orders": True})
    assert not say(topics={"orders": True}, marketing=False)
    assert say(topics={"orders": True})
    told = read_preferences(house.runtime, ada)
    assert (told["topics"]["orders"], told["marketing"]) == (True, None)
    said = house.rows("SELECT count(*) FROM consents")[0][0]
    assert say(topics={"orders": True})
    assert house.rows("SELECT count(*) FROM consents")[0][0] == said
    say_by_names(house.runtime, ada, unsubscribed, ADA)
    assert not say(topics={"orders": None})
    assert say(topics={"orders": True})
    assert not say(topics={"orders": False})
    assert not say(marketing=None)


@pytest.mark.parametrize("voice", [ADA, BRAND])
def test_a_no_said_again_is_one_to_what_was_allowed_since_too(
    house: House, ada: Named, voice: Voice
) -> None:
    def change(by: Voice = voice, **wanted: Any) -> dict[str, Any]:
        return change_preferences(house.runtime, ada, wanted, by)

    def said() -> int:
        return int(house.rows("SELECT count(*) FROM consents")[0][0])

    unsubscribed = {"scope": {"kind": "marketing"}, "allow": False}
    say_by_names(house.runtime, ada, unsubscribed, ADA)
    told = change(ADA, topics={"orders": True})
    before = said()
    assert change(**told) == told, "what is read can be written back"
    assert said() == before
    assert allowed(house, MAIL)
    assert change(marketing=False)["marketing"] is False
    assert not allowed(house, MAIL)
    assert allowed(house, MAIL, Kind.TRANSACTIONAL)
    paused = {"muted": True, "until": None}
    change(everything=paused)
    change(ADA, topics={"orders": False})
    change(ADA, topics={"orders": True})
    assert allowed(house, MAIL, Kind.TRANSACTIONAL)
    told = read_preferences(house.runtime, ada)
    assert told["everything"]["muted"] is None
    before = said()
    assert change(**told) == told
    assert said() == before
    assert change(everything=paused)["everything"] == paused
    assert not allowed(house, MAIL, Kind.TRANSACTIONAL)
    before = said()
    change(everything=paused)
    assert said() == before, "there is nothing to be said again"


def test_what_holds_now_is_told_by_topic_and_channel(house: House, ada: Named) -> None:
    def now() -> dict[str, tuple[bool, bool]]:
        rows = read_preferences(house.runtime, ada)["now"]
        return {row["channel"]: (row["allowed"], row["marketing"]) for row in rows}

    assert now() == {"email": (True, False), "sms": (True, False)}
    change_preferences(house.runtime, ada, {"topics": {"orders": True}}, ADA)
    assert now() == {"email": (True, True), "sms": (True, True)}
    say_by_names(house.runtime, ada, {"scope": {"channel": "sms"}, "allow": False}, ADA)
    assert now() == {"email": (True, True), "sms": (False, False)}
    mutes = {name: {"muted": True} for name in ("store", "billing")}
    change_preferences(house.runtime, ada, {"senders": mutes}, ADA)
    assert now() == {"email": (False, False), "sms": (False, False)}


def test_noes_that_no_switch_shows_are_listed_and_can_be_taken_back(
    house: House, ada: Named
) -> None:
    said = say_by_names(
        house.runtime,
        ada,
        [
            {"scope": {"address": "(202) 555-0101".replace("(", "+1 (")}, "allow": False},
            {"scope": {"sender": "store", "kind": "marketing"}, "allow": False},
            {"scope": {"topic": "orders"}, "allow": False},
        ],
        ADA,
    )
    assert len(said.kept) == 3
    off = read_preferences(house.runtime, ada)["off"]
    assert [one["scope"] for one in off] == [
        {"channel": None, "sender": None, "topic": None, "kind": None, "address": NUMBER},
        {"channel": None, "sender": "store", "topic": None, "kind": "marketing", "address": None},
    ]
    with pytest.raises(Overruled):
        take_back(house.runtime, ada, off[0]["id"], BRAND)
    left = take_back(house.runtime, ada, off[0]["id"], ADA)["off"]
    assert [one["id"] for one in left] == [off[1]["id"]]
    assert take_back(house.runtime, ada, off[0]["id"], ADA)["off"] == left


def test_an_address_that_was_corrected_is_new(house: House, ada: Named) -> None:
    stop = {"scope": {"address": NUMBER}, "allow": False}
    say_by_names(house.runtime, ada, [stop, {"scope": {"topic": "orders"}, "allow": True}], ADA)
    told = read_preferences(house.runtime, ada)["addresses"]
    change_preferences(
        house.runtime, ada, {"addresses": [{**told[0], "verified": True}, told[1]]}, BRAND
    )
    new = "+12025550199"
    told = correct_address(
        house.runtime, ada, AddressChange(told[1]["id"], "+1 202-555-0199"), ADA
    )["addresses"]
    assert [(one["address"], one["verified"]) for one in told] == [(MAIL, True), (new, False)]
    # The no was about the old number; the yes was, too.
    assert allowed(house, new, Kind.TRANSACTIONAL)
    assert allowed(house, MAIL)
    assert not allowed(house, new)
    mean_address(house.runtime, ada, told[1]["id"], ADA)
    assert allowed(house, new)
    # Back to the old one: its no still stands, and the yes does not mean it.
    correct_address(house.runtime, ada, AddressChange(told[1]["id"], NUMBER), ADA)
    assert not allowed(house, NUMBER, Kind.TRANSACTIONAL)


def test_a_new_address_has_what_was_agreed_once_it_is_verified_or_agreed_again(
    house: House, ada: Named
) -> None:
    change_preferences(house.runtime, ada, {"marketing": True}, ADA)
    put_customers(house.runtime, ada.brand_id, [{"ref": "ada", "email": "new@example.com"}])
    assert not allowed(house, "new@example.com")
    assert allowed(house, NUMBER)
    told = read_preferences(house.runtime, ada)["addresses"]
    assert [one["address"] for one in told] == [NUMBER, "new@example.com"]
    told[1]["verified"] = True
    change_preferences(house.runtime, ada, {"addresses": told}, BRAND)
    assert allowed(house, "new@example.com")
    told[1]["verified"] = False
    change_preferences(house.runtime, ada, {"addresses": told}, BRAND)
    assert not allowed(house, "new@example.com")
    change_preferences(house.runtime, ada, {"topics": {"orders": True}}, ADA)
    assert allowed(house, "new@example.com")


@pytest.mark.parametrize("test", [False, True])
def test_a_number_that_changes_hands_loses_its_consent(
    house: House, ada: Named, test: bool
) -> None:
    says = [
        {"scope": {"kind": "marketing"}, "allow": True},
        {"scope": {"address": NUMBER, "kind": "marketing"}, "allow": True},
        {"scope": {"sender": "billing"}, "allow": False},
    ]
    say_by_names(house.runtime, ada, says, ADA)
    told = read_preferences(house.runtime, ada)["addresses"]
    verified = [{**one, "verified": True} for one in told]
    change_preferences(house.runtime, ada, {"addresses": verified}, BRAND)
    assert allowed(house, NUMBER)
    bob = {"ref": "bob", "phone": NUMBER}
    put_customers(house.runtime, ada.brand_id, [bob, {"ref": "ada", "name": "Ada"}], test=test)
    assert allowed(house, NUMBER) is test  # a test intent takes nothing from anybody
    assert allowed(house, MAIL)
    assert not allowed(house, NUMBER, ref="bob")
    assert allowed(house, NUMBER, Kind.TRANSACTIONAL)
    assert not allowed(house, NUMBER, Kind.TRANSACTIONAL, sender="billing")
    put_customers(house.runtime, ada.brand_id, [bob])
    say_by_names(house.runtime, ada, says[1], ADA)
    put_customers(house.runtime, ada.brand_id, [bob])  # told again, it is no news
    assert allowed(house, NUMBER)


def test_the_brands_older_facts_do_not_undo_a_correction(house: House, ada: Named) -> None:
    before = (moments(house) - timedelta(minutes=1)).isoformat()
    told = read_preferences(house.runtime, ada)["addresses"]
    correct_address(house.runtime, ada, AddressChange(told[0]["id"], "right@example.com"), ADA)
    correct_address(house.runtime, ada, AddressChange(told[1]["id"]), ADA)
    stale = {"ref": "ada", "email": MAIL, "phone": NUMBER, "as_of": before}
    (verdict,) = put_customers(house.runtime, ada.brand_id, [stale])
    assert verdict.status == "stale"
    told = read_preferences(house.runtime, ada)["addresses"]
    assert [one["address"] for one in told] == ["right@example.com"]


def test_marketing_goes_to_a_new_address_only_once_it_was_meant(house: House, ada: Named) -> None:
    change_preferences(house.runtime, ada, {"marketing": True}, ADA)
    (mail, _) = read_preferences(house.runtime, ada)["addresses"]
    told = correct_address(house.runtime, ada, AddressChange(mail["id"], "new@example.com"), ADA)
    offer = intent(kind="marketing", policy="email-only")
    (verdict,) = house.accept(offer)
    assert (verdict.status, verdict.code) == ("refused", "consent_required")
    (key,) = [one["id"] for one in told["addresses"] if one["channel"] == "email"]
    mean_address(house.runtime, ada, key, ADA)
    house.accept(offer)
    house.run()
    assert [list(one.recipients) for one in house.sink.messages] == [["new@example.com"]]


@pytest.mark.parametrize("scope", [{}, {"channel": "email"}, {"sender": "store"}])
def test_a_yes_that_does_not_name_marketing_opens_none_and_the_refusal_says_so(
    house: House, ada: Named, scope: dict[str, str]
) -> None:
    say_by_names(house.runtime, ada, {"scope": scope, "allow": True}, ADA)
    (verdict,) = house.accept(intent(kind="marketing", policy="email-only"))
    assert verdict.code == "consent_required"
    assert verdict.reason is not None
    assert "needs the customer's consent" in verdict.reason
    assert "a yes to everything, to a sender or to a channel does not count" in verdict.reason
    named = {"scope": {**scope, "kind": "marketing"}, "allow": True}
    say_by_names(house.runtime, ada, named, ADA)
    (verdict,) = house.accept(intent(kind="marketing", policy="email-only"))
    assert verdict.status == "accepted"


def test_a_new_address_is_sent_no_more_than_was_agreed_to(house: House, ada: Named) -> None:
    """What was said no to since, or of the address itself, is not lifted by the way."""

    def corrected(say: list[Any], to: str) -> int:
        say_by_names(house.runtime, ada, say, ADA)
        (old,) = [
            one
            for one in read_preferences(house.runtime, ada)["addresses"]
            if one["channel"] == "email"
        ]
        told = correct_address(house.runtime, ada, AddressChange(old["id"], to), ADA)
        (key,) = [one["id"] for one in told["addresses"] if one["address"] == to]
        return int(key)

    yes, no = ({"scope": {"kind": "marketing"}, "allow": allow} for allow in (True, False))
    key = corrected([yes], "first@example.com")
    assert look(house.runtime, ada).not_meant(key)
    told = read_preferences(house.runtime, ada)
    assert told["marketing"] is True
    assert [one["meant"] for one in told["addresses"] if one["id"] == key] == [False]
    put = {"addresses": told["addresses"]}
    assert change_preferences(house.runtime, ada, put, ADA)["addresses"] == told["addresses"]
    key = corrected([no], "second@example.com")
    assert not look(house.runtime, ada).not_meant(key)
    with pytest.raises(BadPreference):
        mean_address(house.runtime, ada, key, ADA)
    topic = {"scope": {"topic": "orders", "kind": "marketing"}, "allow": True}
    key = corrected([topic], "third@example.com")
    mean_address(house.runtime, ada, key, ADA)
    assert allowed(house, "third@example.com")
    assert read_preferences(house.runtime, ada)["marketing"] is None, "the no is one to the rest"
    scopes = house.rows("SELECT topic_id, kind FROM consents WHERE endpoint_id IS NOT NULL")
    assert [(row.topic_id is not None, row.kind) for row in scopes] == [(True, "marketing")]
    assert not look(house.runtime, ada).not_meant(key)
    assert all(one["meant"] for one in read_preferences(house.runtime, ada)["addresses"])


def test_addresses_listed_are_all_that_there_are(house: House, ada: Named) -> None:
    told = read_preferences(house.runtime, ada)["addresses"]
    new = {"channel": "chat", "service": "matrix", "address": "@ada:example.org"}
    after = change_preferences(house.runtime, ada, {"addresses": [told[0], new]}, ADA)["addresses"]
    assert [one["address"] for one in after] == [MAIL, "@ada:example.org"]
    assert after[0]["id"] == told[0]["id"]
    with pytest.raises(BadPreference):
        correct_address(house.runtime, ada, AddressChange(told[1]["id"], "+12025550155"), ADA)


def test_two_changes_at_one_instant_follow_each_other_and_a_form_twice_is_one(
    house: House, ada: Named
) -> None:
    barrier = threading.Barrier(8)

    def change(allow: bool) -> None:
        barrier.wait(10)
        change_preferences(house.runtime, ada, {"topics": {"orders": allow}}, ADA)

    threads = [threading.Thread(target=change, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    rows = house.rows("SELECT allow, at FROM consents ORDER BY at")
    # Each was written down only where it changed something, so they alternate.
    assert all(rows[n].allow is not rows[n + 1].allow for n in range(len(rows) - 1))
    assert read_preferences(house.runtime, ada)["topics"]["orders"] is rows[-1].allow


def test_at_the_same_instant_the_no_wins(house: House, ada: Named) -> None:
    house.execute(
        """INSERT INTO consents (brand_id, customer_id, topic_id, allow, own, source, at)
           SELECT c.brand_id, c.id, t.id, v.allow, true, 'preferences', now()
             FROM customers c, topics t, (VALUES (true), (false)) AS v(allow)"""
    )
    assert read_preferences(house.runtime, ada)["topics"]["orders"] is False
    assert not allowed(house, MAIL)


def test_statements_are_kept_and_told_by_name(house: House, ada: Named) -> None:
    document = {
        "scope": {"topic": "orders", "channel": "email", "address": None},
        "allow": True,
        "by": "customer",
        "evidence": "form 12",
        "key": "form-12",
    }
    (first,) = say_by_names(house.runtime, ada, document, BRAND).kept
    assert first["in_force"]
    assert first["by"] == "customer"
    assert first["scope"]["topic"] == "orders"
    again = say_by_names(house.runtime, ada, document, BRAND)
    assert (again.kept, again.new) == ([first], False)
    say_by_names(house.runtime, ada, {"scope": {}, "allow": False}, ADA)
    (brands,) = say_by_names(
        house.runtime, ada, {"scope": {"topic": "orders"}, "allow": True}, BRAND
    ).kept
    assert (brands["by"], brands["in_force"]) == ("brand", False)
    shown, after = list_statements(house.runtime, ada, limit=2)
    assert [one["in_force"] for one in shown] == [False, True]
    assert after is not None
    rest, end = list_statements(house.runtime, ada, limit=2, cursor=after)
    assert [one["id"] for one in rest] == [first["id"]]
    assert not rest[0]["in_force"]
    assert end is None


def test_a_key_is_of_one_statement(house: House, ada: Named) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    no = {"scope": {"topic": "orders"}, "allow": False, "until": soon, "key": "form-1"}
    other = {"scope": {"topic": "orders"}, "allow": True, "key": "form-2"}
    (first,) = say_by_names(house.runtime, ada, no, BRAND).kept
    changes = (
        {"allow": True},
        {"until": None},
        {"by": "customer"},
        {"evidence": "form 12"},
        {"scope": {}},
    )
    for change in changes:
        with pytest.raises(UsedKey) as refused:
            say_by_names(house.runtime, ada, [other, {**no, **change}], BRAND)
        assert refused.value.field == "[1].key", change
    with pytest.raises(UsedKey):
        say_by_names(house.runtime, ada, [other, {**other, "allow": False}], BRAND)
    assert house.rows("SELECT count(*) FROM consents")[0][0] == 1
    both = say_by_names(house.runtime, ada, [no, other, other], BRAND)
    assert both.new
    assert [one["allow"] for one in both.kept] == [True, False]
    assert both.kept[1]["id"] == first["id"]


def test_a_repeat_is_taken_once_what_it_says_has_ended(house: House, ada: Named) -> None:
    ended = "2020-01-01T00:00:00+00:00"
    house.execute(
        """INSERT INTO consents (brand_id, customer_id, allow, own, source, fact, until)
           SELECT brand_id, id, false, false, 'api', 'api:form-1', :ended FROM customers""",
        ended=ended,
    )
    no = {"scope": {}, "allow": False, "until": ended, "key": "form-1"}
    again = say_by_names(house.runtime, ada, no, BRAND)
    assert (len(again.kept), again.new) == (1, False)


BAD_STATEMENTS: list[tuple[Any, str]] = [
    ({"allow": True}, "scope"),
    ({"scope": {}}, "allow"),
    ({"scope": {"topics": "orders"}, "allow": True}, "scope.topics"),
    ({"scope": {"topic": "weather"}, "allow": True}, "scope.topic"),
    ({"scope": {"address": "nobody@example.com"}, "allow": True}, "scope.address"),
    ({"scope": {"channel": "pigeon"}, "allow": True}, "scope.channel"),
    ({"scope": {}, "allow": "no"}, "allow"),
    ({"scope": {}, "allow": False, "until": "2020-01-01T00:00:00Z"}, "until"),
    ([], "body"),
    ([{"scope": {}, "allow": False}, {"scope": {}}], "[1].allow"),
]


def test_a_bad_statement_is_refused_and_none_of_them_is_kept(house: House, ada: Named) -> None:
    for document, field in BAD_STATEMENTS:
        with pytest.raises(BadPreference) as refused:
            say_by_names(house.runtime, ada, document, BRAND)
        assert refused.value.field == field, document
    assert house.rows("SELECT count(*) FROM consents")[0][0] == 0


def test_a_key_for_some_senders_speaks_for_these_alone(house: House, ada: Named) -> None:
    billing = replace(ada, reach=Reach(frozenset({"billing"})))
    yes = {"scope": {"sender": "billing", "kind": "marketing"}, "allow": True}
    assert say_by_names(house.runtime, billing, yes, BRAND).new
    for scope in ({}, {"sender": "store"}, {"kind": "marketing"}):
        with pytest.raises(BadPreference):
            say_by_names(house.runtime, billing, {"scope": scope, "allow": True}, BRAND)


def test_test_customers_live_ones_and_strangers(house: House, ada: Named) -> None:
    tests, live = Reach(test=True), Reach(test=False)
    put_customers(house.runtime, ada.brand_id, [customer("tess")], test=True)
    tess = Named(ada.brand_id, "tess")
    for whom in (replace(ada, reach=tests), replace(tess, reach=live)):
        with pytest.raises(NoSuchCustomer):
            change_preferences(house.runtime, whom, {"marketing": True}, BRAND)
    for whom in (replace(ada, reach=live), replace(tess, reach=tests), tess):
        assert change_preferences(house.runtime, whom, {"marketing": True}, BRAND)["marketing"]
    for nobody in (Named(ada.brand_id, "nobody"), Named(ada.brand_id + 1, "ada"), 10**12):
        with pytest.raises(NoSuchCustomer):
            read_preferences(house.runtime, nobody)
