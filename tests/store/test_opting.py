"""Words that people text, and what networks say for them: from the webhook to what goes out."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import event

from app.channels.contract import Accepted, Message, Outcome
from app.channels.registry import build_accounts
from app.domain.consent import Scope
from app.domain.tokens import Purpose, Rights
from app.domain.vocabulary import Kind
from app.usecases.consent.preferences import read_preferences
from app.usecases.consent.statements import list_statements
from app.usecases.consent.voices import Named
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.apply import Declared, apply
from app.usecases.people.customers import put_customers
from app.usecases.people.exporting import export
from app.usecases.people.timelines import customer_timeline
from tests.statements import Statement, record
from tests.store.conftest import DECLARED, House, customer, intent
from tests.store.test_feedback_reports import (
    PHONE,
    POLICIES,
    TWILIO,
    answer,
    came,
    read,
)

OTHER = "+12025550102"
STOPPED = "Demo: you will get no more messages from us here. To get them again, reply START."


class Texts:
    """Takes texts, unless told otherwise; the SIDs that it gives are SM1, SM2 …"""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.refusal: Outcome | None = None

    def send(self, batch: Sequence[Message], _deadline: float) -> list[Outcome]:
        if self.refusal is not None:
            return [self.refusal] * len(batch)
        first = len(self.sent) + 1
        self.sent += batch
        return [Accepted(f"SM{number}") for number in range(first, len(self.sent) + 1)]

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(one.recipient, one.body.text) for one in self.sent]  # type: ignore[union-attr]


@pytest.fixture
def texts() -> Texts:
    return Texts()


@pytest.fixture
def texting(house: House, texts: Texts, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house that texts through Twilio, and whose Ada (and Bob) were sent a text: SM1 (SM2)."""
    accounts = build_accounts({"texts": TWILIO}, {})
    provider = accounts["texts"].provider
    monkeypatch.setattr(provider, "send", texts.send)
    declare(house)
    texting = replace(
        house, runtime=replace(house.runtime, accounts=house.runtime.accounts | accounts)
    )
    send(texting, "ada", PHONE)
    yield texting
    provider.close()


def declare(house: House, **settings: Any) -> None:
    brand = DECLARED.brands["demo"]
    brand = replace(
        brand,
        settings={**brand.settings, **settings},
        senders={
            name: {**one, "phone": f"+1555010{n}"}
            for n, (name, one) in enumerate(brand.senders.items())
        },
    )
    apply(house.runtime, Declared({"demo": brand}, {one["name"]: one for one in POLICIES}))


def send(house: House, ref: str = "ada", phone: str = PHONE, **more: Any) -> dict[str, int]:
    house.accept(intent(customer(ref, phone=phone), **{"policy": "sms-then-email", **more}))
    return house.run()


def says(house: House, words: str, sid: str, sender: str = PHONE, **more: str) -> dict[str, int]:
    counts = read(house, {**answer(sid, sender, words), **more})
    house.work()
    return counts


def consents(house: House) -> list[tuple[Any, ...]]:
    """Who said what of which sender, by which way; the address by its channel."""
    rows = house.rows(
        "SELECT c.ref, e.channel, s.name, o.kind, o.allow, o.source FROM consents o"
        " JOIN customers c ON c.id = o.customer_id LEFT JOIN endpoints e ON e.id = o.endpoint_id"
        " LEFT JOIN senders s ON s.id = o.sender_id WHERE o.source <> 'answer' ORDER BY o.id"
    )
    return [tuple(row) for row in rows]


def events(house: House) -> list[str]:
    return [row.type for row in house.rows("SELECT type FROM events ORDER BY id")]


NO = ("ada", "sms", None, None, False, "text")
YES = ("ada", "sms", None, None, True, "text")


def test_stop_is_a_no_at_once_and_is_confirmed_once(texting: House, texts: Texts) -> None:
    texting.accept(intent("ada", policy="sms-only", key="queued"))
    texting.tick()  # hinted, and not claimed yet
    hints, texting.hints.deliveries = texting.hints.deliveries, []
    says(texting, "Please stop texting me!", "IN1")
    texting.hints.deliveries += hints
    texting.work()
    assert consents(texting) == [NO]
    assert events(texting) == ["unsubscribed"]
    assert texts.said[1:] == [(PHONE, STOPPED)]
    send(texting, policy="sms-only", key="later")
    assert len(texts.sent) == 2
    [row] = texting.rows(
        "SELECT d.state, d.account, i.kind, count(a.*) AS attempts, t.retired,"
        " i.expires_at - i.accepted_at <= interval '5 minutes' AS soon"
        " FROM deliveries d JOIN intents i ON i.id = d.intent_id JOIN topics t ON t.id = i.topic_id"
        " JOIN attempts a ON a.delivery_id = d.id WHERE t.name = '(answers)' GROUP BY 1, 2, 3, 5, 6"
    )
    assert tuple(row) == ("sent", "texts", "transactional", 1, True, True)


def test_the_one_answer_is_told_as_the_laws_and_not_as_the_customers(
    texting: House, texts: Texts
) -> None:
    says(texting, "STOP", "IN1")
    [brand] = texting.runtime.catalog().brands.values()
    statements, _ = list_statements(texting.runtime, Named(brand.id, "ada"), limit=9)
    assert [(one["source"], one["by"]) for one in statements] == [
        ("answer", "law"),
        ("text", "customer"),
    ]
    items, _ = customer_timeline(texting.runtime, Named(brand.id, "ada"))
    told = [one["text"] for one in items if one["what"] == "consent"]
    assert told[0].startswith("The law allows one answer: transactional messages about (answers)")
    assert told[1].startswith("The customer forbade messages to")
    exported = orjson.loads(b"".join(export(texting.runtime, brand.id, "ada", "test") or []))
    assert [one["own"] for one in exported["consents"]] == [True, False]


def test_stop_is_an_answer_as_well_and_escalates_no_further(texting: House, texts: Texts) -> None:
    sure = [{**one, "seen_at": "replied"} for one in POLICIES]
    apply(
        texting.runtime,
        Declared(DECLARED.brands, {one["name"]: one for one in sure}),
    )
    texting.runtime.catalog.forget()
    send(texting, "bob", OTHER)
    says(texting, "Please stop texting me!", "IN1", OTHER)
    [row] = texting.rows(
        "SELECT i.state, i.seen_as FROM intents i JOIN customers c ON c.id = i.customer_id"
        " WHERE c.ref = 'bob' AND i.key NOT LIKE '(answer)%'"
    )
    assert tuple(row) == ("seen", "unsubscribed")


def test_a_second_stop_is_kept_and_neither_said_nor_confirmed_again(
    texting: House, texts: Texts
) -> None:
    # Both before anything was confirmed, the first one twice, one more afterwards.
    read(texting, answer("IN1", words="stop"), answer("IN2", words="Stop all"))
    says(texting, "STOP", "IN1", More="1")
    says(texting, "stop it", "IN3")
    texting.run()
    assert consents(texting) == [NO]
    assert texts.said[1:] == [(PHONE, STOPPED)]
    assert len(texting.rows("SELECT FROM inbound_messages")) == 3


def test_an_answer_that_comes_too_late_stays_away(texting: House, texts: Texts) -> None:
    read(texting, answer("IN1", words="stop"))
    texting.execute("UPDATE intents SET expires_at = now() WHERE key LIKE '(answer)%'")
    texting.work()
    texting.run()
    assert len(texts.sent) == 1


def test_a_word_that_waited_too_long_holds_and_is_not_answered(
    texting: House, texts: Texts
) -> None:
    came(texting, answer("IN1", words="stop"))
    texting.execute("UPDATE inbox SET received_at = now() - interval '301 seconds'")
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 hour'")
    says(texting, "hello", "IN2")
    assert consents(texting) == [NO]
    assert len(texts.sent) == 1


def test_the_yes_of_an_answer_lets_nothing_else_pass(texting: House, texts: Texts) -> None:
    says(texting, "STOP", "IN1")
    send(texting, policy="sms-only", key="at-once", urgency="urgent")
    assert len(texts.sent) == 2


@pytest.mark.parametrize("word", ["START", "yes", "unstop"])
def test_start_takes_stop_back(texting: House, texts: Texts, word: str) -> None:
    says(texting, "STOP", "IN1")
    says(texting, word, "IN2")
    assert consents(texting) == [NO, YES]
    assert texts.said[-1][1].startswith("Demo: you will get our messages here again.")
    assert send(texting, policy="sms-only", key="again") == {"sent": 1}
    says(texting, "STOP", "IN3")
    assert consents(texting) == [NO, YES, NO]
    assert texts.said[-1] == (PHONE, STOPPED)


def test_yes_says_nothing_where_there_was_no_no(texting: House, texts: Texts) -> None:
    says(texting, "Yes", "IN1")
    assert consents(texting) == []
    says(texting, "START", "IN2")
    assert consents(texting) == [YES]
    assert texts.said[1:] == [(PHONE, "Demo: you get our messages here. To stop them, reply STOP.")]
    for number in range(3):
        says(texting, "START", f"AGAIN{number}")
    assert len(texts.sent) <= 3, "and not for ever: a minute may have passed"
    [row] = texting.rows("SELECT state FROM intents WHERE key NOT LIKE '(answer)%'")
    assert row.state == "seen"


def test_stop_and_start_in_one_batch_hold_in_their_order(texting: House, texts: Texts) -> None:
    read(texting, answer("IN1", words="STOP"), answer("IN2", words="START"))
    texting.work()
    assert consents(texting) == [NO, YES]
    assert send(texting, policy="sms-only", key="again")["sent"] == 1


@pytest.mark.parametrize(("kind", "words"), [("STOP", "Adieu"), ("STOP", "STOP")])
def test_what_twilio_answered_is_not_answered_again(
    texting: House, texts: Texts, kind: str, words: str
) -> None:
    says(texting, words, "IN1", OptOutType=kind)
    assert consents(texting) == [NO]
    says(texting, "?", "IN2", OptOutType="HELP")
    says(texting, "encore", "IN3", OptOutType="START")
    assert consents(texting) == [NO, YES]
    assert len(texts.sent) == 1


def test_help_is_answered_also_to_who_said_no_and_not_for_ever(
    texting: House, texts: Texts
) -> None:
    says(texting, "STOP", "IN1")
    for number in range(5):
        says(texting, "HELP", f"IN{number + 2}")
    helped = [text for _, text in texts.said if "They are stopped here" in text]
    assert 1 <= len(helped) <= 2  # a minute may have passed
    assert "To get them again, reply START." in helped[0]
    assert "STOP" not in helped[0]
    found = re.search(r"All your choices: https://converge\.example/p/([\w-]{36})$", helped[0])
    assert found
    claims = texting.runtime.words.signer.read(found[1], Purpose.PREFERENCES, datetime.now(UTC))
    assert claims.index == Rights.CHOOSE
    declare(texting, help_text="Demo Store, {help} *here*: +15550100. STOP ends it.")
    texting.execute("DELETE FROM intents WHERE kind = 'transactional' AND data ? 'text'")
    says(texting, "info", "IN9")
    assert texts.said[-1][1] == "Demo Store, {help} *here*: +15550100. STOP ends it."


def test_stop_from_a_shared_number_is_everybodys_and_confirmed_once(
    texting: House, texts: Texts
) -> None:
    send(texting, "bob", PHONE)
    says(texting, "STOP", "IN1")
    assert sorted(consents(texting)) == [NO, ("bob", *NO[1:])]
    assert len(texts.sent) == 3


def test_stop_can_be_said_to_one_sender_alone(texting: House, texts: Texts) -> None:
    declare(texting, opt_out="sender")
    says(texting, "STOP", "IN1")
    assert consents(texting) == [("ada", "sms", "store", None, False, "text")]
    assert texts.said[-1][1].startswith("Demo: you will get no more messages from Demo Store here")
    assert send(texting, policy="sms-only", key="2", sender="billing") == {"sent": 1}
    assert "sent" not in send(texting, policy="sms-only", key="3")
    says(texting, "START", "IN2")
    assert send(texting, policy="sms-only", key="4")["sent"] == 1


def test_yes_to_one_sender_takes_back_no_no_to_another(texting: House, texts: Texts) -> None:
    declare(texting, opt_out="sender")
    says(texting, "STOP", "IN1")
    assert send(texting, policy="sms-only", key="2", sender="billing") == {"sent": 1}
    says(texting, "Yes", "IN2", OriginalRepliedMessageSid="SM3")
    assert consents(texting) == [("ada", "sms", "store", None, False, "text")]
    assert len(texts.sent) == 3, "it answers what billing asked, and no word of ours"
    says(texting, "STOP", "IN3", OriginalRepliedMessageSid="SM3")
    says(texting, "Yes", "IN4", OriginalRepliedMessageSid="SM4")
    assert consents(texting)[1:] == [
        ("ada", "sms", "billing", None, False, "text"),
        ("ada", "sms", "billing", None, True, "text"),
    ]


def number_of(house: House, ref: str = "ada") -> Any:
    """The endpoint of a customer's number, its brand and its customer."""
    [row] = house.rows(
        "SELECT e.id, e.brand_id, e.customer_id FROM endpoints e JOIN customers c"
        " ON c.id = e.customer_id WHERE c.ref = :ref AND e.channel = 'sms'",
        ref=ref,
    )
    return row


@pytest.mark.usefixtures("texts")
def test_start_is_no_yes_to_a_topic_and_so_none_to_its_marketing(texting: House) -> None:
    ada = number_of(texting)
    [topic] = texting.rows("SELECT id FROM topics WHERE name = 'orders'")
    scope = Scope(endpoint_id=ada.id, topic_id=topic.id)
    record(texting.runtime, ada.brand_id, [Statement(ada.customer_id, scope, False, "api")])
    says(texting, "START", "IN1")
    assert consents(texting)[1:] == [YES]
    named = texting.rows("SELECT FROM consents WHERE allow AND topic_id = :id", id=topic.id)
    assert named == []
    assert "sent" not in send(texting, policy="sms-only", key="2", kind="marketing")


@pytest.mark.parametrize("narrow", [{"kind": Kind.TRANSACTIONAL}, {"topic_id": 1}])
def test_a_stop_after_a_narrower_yes_counts_and_is_confirmed(
    texting: House, texts: Texts, narrow: dict[str, Any]
) -> None:
    says(texting, "STOP", "IN1")
    ada = number_of(texting)
    scope = Scope(endpoint_id=ada.id, **narrow)
    record(texting.runtime, ada.brand_id, [Statement(ada.customer_id, scope, True, "preferences")])
    says(texting, "STOP", "IN2")
    said = [row for row in consents(texting) if row[-1] == "text"]
    assert said == [NO, NO]
    assert texts.said[1:] == [(PHONE, STOPPED)] * 2
    assert "sent" not in send(texting, policy="sms-only", key="2")
    says(texting, "STOP", "IN3")
    assert len(texts.sent) == 3


def test_mute_speaks_for_whoever_has_the_number_now(texting: House, texts: Texts) -> None:
    [brand] = texting.runtime.catalog().brands.values()
    put_customers(texting.runtime, brand.id, [{"ref": "ada", "phone": None}])
    send(texting, "bob", PHONE)
    says(texting, "MUTE", "IN1")
    assert consents(texting) == [("bob", None, "store", None, False, "text")]
    ada = texting.rows("SELECT id FROM customers WHERE ref = 'ada'")[0].id
    store = texting.rows("SELECT id FROM senders WHERE name = 'store'")[0].id
    mute = Statement(ada, Scope(sender_id=store), False, "preferences")
    record(texting.runtime, brand.id, [mute])
    says(texting, "UNMUTE", "IN2")
    assert consents(texting)[2:] == [("bob", None, "store", None, True, "text")]
    assert texts.said[-1][1].startswith("Demo: Demo Store is no longer muted.")


def test_mute_silences_a_sender_on_every_channel_until_it_ends(
    texting: House, texts: Texts
) -> None:
    says(texting, "MUTE 1 WEEK", "IN1")
    assert consents(texting) == [("ada", None, "store", None, False, "text")]
    [row] = texting.rows(
        "SELECT until - at BETWEEN interval '6 days 23 hours' AND"
        " interval '7 days' AS week FROM consents WHERE NOT allow"
    )
    assert row.week
    assert texts.said[-1][1].startswith("Demo: Demo Store is muted for 1 week.")
    assert "sent" not in send(texting, key="2")
    assert texting.sink.messages == []
    assert send(texting, key="3", sender="billing") == {"sent": 1}
    says(texting, "unmute", "IN2")
    assert consents(texting)[1:] == [("ada", None, "billing", None, True, "text")]


@pytest.mark.parametrize("words", ["MUTE", "mute 1 week"])
def test_mute_means_who_spoke_last_however_long_ago(
    texting: House, texts: Texts, words: str
) -> None:
    send(texting, policy="sms-only", key="2", sender="billing")
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '8 days'")
    says(texting, words, "IN1", To="+19995550100")
    assert consents(texting) == [("ada", None, "billing", None, False, "text")]
    assert texts.said[-1][1].startswith("Demo: Billing is muted for ")
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '8 days'")
    says(texting, "UNMUTE", "IN2", To="+19995550100")
    assert consents(texting)[1:] == [("ada", None, "billing", None, True, "text")]
    assert texts.said[-1][1].startswith("Demo: Billing is no longer muted.")


def test_mute_where_nobody_spoke_yet_means_the_default_sender(texting: House, texts: Texts) -> None:
    [brand] = texting.runtime.catalog().brands.values()
    put_customers(texting.runtime, brand.id, [customer("bob", phone=OTHER)])
    says(texting, "MUTE", "IN1", OTHER, To="+19995550100")
    assert consents(texting) == [("bob", None, "store", None, False, "text")]
    assert texts.said[-1][1].startswith("Demo: Demo Store is muted for good.")


def test_a_mute_that_is_said_again_lasts_as_was_said_last(texting: House) -> None:
    says(texting, "MUTE", "IN1")
    says(texting, "MUTE 1 HOUR", "IN2")
    says(texting, "MUTE", "IN1")  # what came twice is not said again
    [brand] = texting.runtime.catalog().brands.values()
    mute = read_preferences(texting.runtime, Named(brand.id, "ada"))["senders"]["store"]
    assert mute["muted"]
    assert mute["until"] < datetime.now(UTC) + timedelta(hours=1)


def test_stop_from_an_unknown_number_holds_for_whoever_gets_it(
    texting: House, texts: Texts
) -> None:
    assert says(texting, "STOP", "IN1", OTHER) == {"messages": 1}
    assert consents(texting) == []
    [kept] = texting.rows("SELECT channel, source, hash FROM suppressions")
    assert (kept.channel, kept.source) == ("sms", "text")
    assert OTHER.encode() not in bytes(kept.hash)
    assert "sent" not in send(texting, "bob", OTHER, policy="sms-only")
    [brand] = texting.runtime.catalog().brands.values()
    put_customers(texting.runtime, brand.id, [customer("cyd", phone=OTHER)])
    assert consents(texting) == [("bob", *NO[1:]), ("cyd", *NO[1:])]
    says(texting, "START", "IN2", OTHER)
    assert texting.rows("SELECT FROM suppressions") == []
    assert "sent" in send(texting, "bob", OTHER, policy="sms-only", key="2")
    send(texting, "dan", OTHER, policy="sms-only", key="3")
    assert {ref for ref, *_ in consents(texting)} == {"bob", "cyd"}


def test_stop_outlasts_a_no_that_ends_by_itself(texting: House, texts: Texts) -> None:
    ada = number_of(texting)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    scope = Scope(endpoint_id=ada.id)
    pause = Statement(ada.customer_id, scope, False, "preferences", until=tomorrow)
    record(texting.runtime, ada.brand_id, [pause])
    says(texting, "stop", "IN1")
    assert consents(texting)[1:] == [NO]
    assert texts.said[1:] == [(PHONE, STOPPED)]
    says(texting, "yes", "IN2")
    assert consents(texting)[2:] == [YES]


def test_a_number_that_was_taken_away_keeps_its_no(texting: House, texts: Texts) -> None:
    put = [{"ref": "ada", "phone": None}]
    [brand] = texting.runtime.catalog().brands.values()
    put_customers(texting.runtime, brand.id, put)
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '8 days'")
    says(texting, "STOP", "IN1")
    assert consents(texting) == [NO]
    assert "sent" not in send(texting, policy="sms-only", key="2")
    assert texts.said[1:] == [(PHONE, STOPPED)]


def test_a_number_that_said_no_keeps_it_where_another_customer_gets_it(
    texting: House, texts: Texts
) -> None:
    says(texting, "STOP", "IN1")
    assert "sent" not in send(texting, "bob", PHONE, policy="sms-only")
    assert consents(texting) == [NO, ("bob", *NO[1:])]
    says(texting, "START", "IN2")
    send(texting, "cyd", PHONE, policy="sms-only")
    assert {ref for ref, *_ in consents(texting)} == {"ada", "bob"}


def test_answers_use_up_nothing_of_what_caps_allow(texting: House, texts: Texts) -> None:
    declare(texting, caps={"daily": {"most": 2, "within": 86_400.0}})
    send(texting, key="2", policy="sms-only")
    counted = texting.rows("SELECT sum(n) FROM cap_counts")[0][0]
    says(texting, "HELP", "IN1")
    says(texting, "STOP", "IN2")
    says(texting, "START", "IN3")
    assert len(texts.sent) == 5
    assert texting.rows("SELECT sum(n) FROM cap_counts")[0][0] == counted


def test_many_words_cost_few_statements_and_no_numbers_of_what_is_declared(
    texting: House, texts: Texts
) -> None:
    people = {f"p{n}": f"+1202555020{n}" for n in range(3)}
    for ref, phone in people.items():
        send(texting, ref, phone)
    numbers = "SELECT t.last_value, p.last_value FROM topics_id_seq t, policies_id_seq p"
    says(texting, "STOP", "IN0", people["p0"])
    before = texting.rows(numbers)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(" ".join(statement.split()))

    for n in (1, 2):
        came(texting, answer(f"IN{n}", people[f"p{n}"], "STOP"))
    event.listen(texting.runtime.engine, "before_cursor_execute", note)
    read_feedback(texting.runtime)
    event.remove(texting.runtime.engine, "before_cursor_execute", note)
    texting.work()
    assert [to for to, text in texts.said if text == STOPPED] == list(people.values())
    assert texting.rows(numbers) == before
    assert not [one for one in asked if one.startswith(("INSERT INTO topics", "INSERT INTO pol"))]
    # Those that come before any answer are looked up at once.
    first = next(n for n, one in enumerate(asked) if one.startswith("INSERT INTO consents"))
    assert sum("FROM consents c" in one for one in asked[:first]) == 1
    assert sum("FROM consents c" in one for one in asked) == 3, "and once for each answer"
