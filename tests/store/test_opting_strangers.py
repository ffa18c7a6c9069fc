"""Words from numbers that no customer has: each is answered, and nobody is known for it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.channels.contract import Blame, Rejected
from app.domain.consent import Scope
from app.domain.vocabulary import Kind
from app.store.reports import customers_named
from app.usecases.consent.voices import Named, NoSuchCustomer
from app.usecases.operating.apply import Declared, apply
from app.usecases.operating.upkeep import upkeep
from app.usecases.people.customers import get_customer, put_customers
from app.usecases.people.erasing import erase
from app.usecases.people.exporting import export
from tests.statements import Statement, record
from tests.store.conftest import DECLARED, House, customer
from tests.store.test_feedback_reports import PHONE, POLICIES, answer, came, read, report
from tests.store.test_opting import (
    NO,
    OTHER,
    STOPPED,
    Texts,
    consents,
    declare,
    says,
    send,
    texting,
    texts,
)

__all__ = ["texting", "texts"]

HELPED = "Demo: these messages are about"


def to_other(texts: Texts) -> list[str]:
    return [text for to, text in texts.said if to == OTHER]


def later(house: House, by: timedelta) -> None:
    """Let time go by for what strangers were answered."""
    for column in ("created_at", "updated_at"):
        house.execute(
            f"UPDATE endpoints SET {column} = {column} - :by WHERE brand_id = 0",
            by=by,
        )
    house.execute("UPDATE deliveries SET due_at = due_at - :by WHERE state = 'planned'", by=by)


def brand_id(house: House) -> int:
    return int(house.rows("SELECT id FROM brands WHERE name = 'demo'")[0][0])


def refs(house: House) -> list[str]:
    return [row.ref for row in house.rows("SELECT ref FROM customers WHERE ref <> '' ORDER BY ref")]


def test_a_stop_is_confirmed_once_and_nobody_is_known_for_it(texting: House, texts: Texts) -> None:
    says(texting, "STOP", "IN1", OTHER)
    says(texting, "stop it", "IN2", OTHER)
    assert to_other(texts) == [STOPPED]
    assert refs(texting) == ["ada"]
    assert consents(texting) == []
    assert len(texting.rows("SELECT FROM suppressions")) == 1
    with texting.runtime.engine.begin() as connection:
        assert customers_named(connection, [brand_id(texting)], [OTHER], [OTHER]) == []
    with pytest.raises(NoSuchCustomer):
        get_customer(texting.runtime, Named(brand_id(texting), OTHER))
    # The no holds for whoever gets the number.
    assert "sent" not in send(texting, "bob", OTHER, policy="sms-only")
    assert consents(texting) == [("bob", *NO[1:])]
    assert to_other(texts) == [STOPPED]


def test_help_is_answered_at_most_once_a_minute_and_a_few_times_a_day(
    texting: House, texts: Texts
) -> None:
    for number in range(3):
        says(texting, "HELP", f"IN{number}", OTHER)
    [text] = to_other(texts)
    assert text.startswith(HELPED)
    for minute in range(24 * 12):  # every five minutes for a day
        later(texting, timedelta(minutes=5))
        came(texting, answer(f"LATER{minute}", OTHER, "info"))
        if minute % 12 == 0:
            says(texting, "help", f"HOUR{minute}", OTHER)
    assert 2 < len(to_other(texts)) < 10
    assert texting.rows("SELECT FROM suppressions") == []
    assert consents(texting) == []


def test_a_stop_in_answer_to_help_is_confirmed_a_minute_later(texting: House, texts: Texts) -> None:
    says(texting, "HELP", "IN1", OTHER)
    says(texting, "STOP", "IN2", OTHER)
    texting.run()
    assert len(to_other(texts)) == 1
    assert len(texting.rows("SELECT FROM suppressions")) == 1
    later(texting, timedelta(seconds=61))
    texting.run()
    assert to_other(texts)[1:] == [STOPPED]
    says(texting, "MUTE", "IN3", OTHER)
    assert len(to_other(texts)) == 2


def test_mute_is_answered_with_what_can_be_done(texting: House, texts: Texts) -> None:
    says(texting, "MUTE", "IN1", OTHER)
    [text] = to_other(texts)
    assert text.startswith(HELPED)


def test_start_takes_stop_back_and_says_so(texting: House, texts: Texts) -> None:
    says(texting, "START", "IN1", OTHER)
    says(texting, "yes", "IN2", OTHER)
    assert to_other(texts) == []
    says(texting, "STOP", "IN3", OTHER)
    later(texting, timedelta(minutes=1))
    says(texting, "START", "IN4", OTHER)
    assert [text[:50] for text in to_other(texts)] == [
        STOPPED[:50],
        "Demo: you will get our messages here again. To sto",
    ]
    assert send(texting, "bob", OTHER, policy="sms-only") == {"sent": 1}


def test_yes_is_no_word_of_a_stranger(texting: House, texts: Texts) -> None:
    says(texting, "STOP", "IN1", OTHER)
    later(texting, timedelta(minutes=1))
    says(texting, "Yes", "IN2", OTHER)
    assert to_other(texts) == [STOPPED]
    assert "sent" not in send(texting, "bob", OTHER, policy="sms-only")


@pytest.mark.usefixtures("texts")
def test_start_takes_back_no_no_to_marketing_that_an_erased_customer_left(texting: House) -> None:
    send(texting, "bob", OTHER)
    [bob] = texting.rows("SELECT id FROM customers WHERE ref = 'bob'")
    topic = texting.rows("SELECT id FROM topics WHERE name = 'orders'")[0].id
    scopes = [Scope(), Scope(kind=Kind.MARKETING), Scope(topic_id=topic)]
    record(
        texting.runtime,
        brand_id(texting),
        [Statement(bob.id, scope, False, "preferences") for scope in scopes],
    )
    assert erase(texting.runtime, brand_id(texting), "bob", "test")
    says(texting, "START", "IN1", OTHER)
    left = texting.rows("SELECT DISTINCT kind, topic_id FROM suppressions WHERE channel = 'sms'")
    assert {tuple(row) for row in left} == {("marketing", None), (None, topic)}


def test_a_start_in_a_rehearsal_says_nothing_for_live_customers(
    texting: House, texts: Texts
) -> None:
    says(texting, "STOP", "IN1", OTHER)
    put_customers(texting.runtime, brand_id(texting), [customer("eve", phone=OTHER)], test=True)
    says(rehearsing(texting), "START", "IN2", OTHER)
    assert "sent" not in send(texting, "bob", OTHER, policy="sms-only")


def rehearsing(house: House) -> House:
    """The same house, whose texts go by a sandbox."""
    account = replace(house.runtime.accounts["texts"], sandbox=True)
    accounts = {**house.runtime.accounts, "texts": account}
    return replace(house, runtime=replace(house.runtime, accounts=accounts))


def test_what_else_a_stranger_writes_is_nobodys(texting: House, texts: Texts) -> None:
    says(texting, "HELP", "IN1", OTHER)
    sid = f"SM{len(texts.sent)}"
    read(texting, report(sid, "delivered"))
    says(texting, "hello?", "IN2", OTHER)
    says(texting, "STOP", "IN3", OTHER, OriginalRepliedMessageSid=sid)
    read(texting, report(sid, "failed", "21610"))
    rows = texting.rows("SELECT customer_id, delivery_id FROM inbound_messages")
    assert {tuple(row) for row in rows} == {(None, None)}
    assert texting.rows("SELECT FROM consents") == []
    assert len(texting.rows("SELECT FROM suppressions")) == 1


def test_a_network_that_refuses_an_answer_is_no_word_of_anybody(
    texting: House, texts: Texts
) -> None:
    texts.refusal = Rejected("twilio_21610", Blame.OPTED_OUT)
    says(texting, "STOP", "IN1", OTHER)
    assert texting.rows("SELECT FROM consents") == []


def test_who_had_the_number_once_is_answered_there_as_well(texting: House, texts: Texts) -> None:
    put_customers(texting.runtime, brand_id(texting), [customer("ada", phone=None)])
    says(texting, "STOP", "IN1")
    assert consents(texting) == [NO]
    assert texts.said[1:] == [(PHONE, STOPPED)]
    says(texting, "STOP", "IN2")
    assert texts.said[1:] == [(PHONE, STOPPED)]


def test_nobody_answers_for_a_brand_that_was_not_written_to(texting: House, texts: Texts) -> None:
    brands = {**DECLARED.brands, "other": DECLARED.brands["demo"]}
    apply(texting.runtime, Declared(brands, {one["name"]: one for one in POLICIES}))
    texting.runtime.catalog.forget()
    says(texting, "STOP", "IN1", OTHER)
    assert to_other(texts) == []
    assert len(texting.rows("SELECT FROM suppressions")) == 2
    declare(texting)
    texting.runtime.catalog.forget()
    says(texting, "HELP", "IN2", OTHER)
    assert len(to_other(texts)) == 1


def test_a_stop_where_only_a_rehearsal_has_the_number_holds_for_live_customers(
    texting: House, texts: Texts
) -> None:
    put_customers(texting.runtime, brand_id(texting), [customer("eve", phone=OTHER)], test=True)
    says(texting, "STOP", "IN1", OTHER)
    says(texting, "STOP", "IN2", OTHER)
    assert consents(texting) == [("eve", *NO[1:])]
    assert to_other(texts) == [STOPPED]
    assert "sent" not in send(texting, "bob", OTHER, policy="sms-only")
    assert consents(texting)[1:] == [("bob", *NO[1:])]
    says(texting, "START", "IN3", OTHER)
    assert send(texting, "cyd", OTHER, policy="sms-only")["sent"] == 1


def test_a_stop_in_a_rehearsal_says_nothing_for_live_customers(
    texting: House, texts: Texts
) -> None:
    put_customers(texting.runtime, brand_id(texting), [customer("eve", phone=OTHER)], test=True)
    says(rehearsing(texting), "STOP", "IN1", OTHER)
    assert consents(texting) == [("eve", *NO[1:])]
    assert texting.rows("SELECT FROM suppressions") == []


def holding(house: House) -> list[Any]:
    return house.rows("SELECT id FROM endpoints WHERE address = :address", address=OTHER)


def test_the_number_of_a_stranger_is_kept_for_a_day(texting: House) -> None:
    says(texting, "HELP", "IN1", OTHER)
    assert upkeep(texting.runtime)["strangers"] == 0
    later(texting, timedelta(hours=25))
    assert upkeep(texting.runtime)["strangers"] == 1
    assert holding(texting) == []


def test_who_was_a_stranger_is_exported_and_erased_whole(texting: House, texts: Texts) -> None:
    says(texting, "HELP", "IN1", OTHER)
    send(texting, "bob", OTHER, policy="sms-only")
    exported = b"".join(export(texting.runtime, brand_id(texting), "bob", "test") or []).decode()
    assert "(answer)" not in exported
    assert erase(texting.runtime, brand_id(texting), "bob", "test")
    assert holding(texting) == []
    assert texting.rows("SELECT FROM inbound_messages") == []
    says(texting, "HELP", "IN2", OTHER)
    assert len(to_other(texts)) == 3
