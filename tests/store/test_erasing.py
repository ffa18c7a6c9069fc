"""Erasing a customer: nothing of the person is left anywhere, and their no is."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import orjson
import pytest
from sqlalchemy import Connection, event

from app.channels.contract import Accepted
from app.channels.registry import build_accounts
from app.domain.consent import Scope
from app.domain.vocabulary import Kind
from app.store import audit, erasing, optouts
from app.store.inbox import Arrival, keep_arrivals
from app.store.persons import note_activity
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.upkeep import upkeep
from app.usecases.people import erasing as erasing_usecase
from app.usecases.people.customers import put_customers
from app.usecases.people.erasing import erase
from app.usecases.people.exporting import export
from tests.statements import Statement, record
from tests.store.conftest import House, customer, intent
from tests.store.interleaving import side_by_side
from tests.store.test_feedback_reports import TWILIO, answer
from tests.store.test_plans import plans

EMAIL, PHONE, OLD = "ada.lovelace@mail.example", "+12025550143", "ada.byron@mail.example"
REF, NAME, WORDS = "cust-lovelace-42", "Ada Lovelace", "the analytical engine has arrived"
TRACES = (EMAIL, OLD, PHONE, PHONE.lstrip("+"), REF, NAME, WORDS, "I shall come tomorrow")
BRAND = "SELECT id FROM brands WHERE name = 'demo'"


def brand_id(house: House) -> int:
    return int(house.rows(BRAND)[0][0])


def ada_of(house: House) -> int:
    return int(house.rows("SELECT id FROM customers WHERE ref = :ref", ref=REF)[0][0])


def dumped(house: House) -> str:
    """Every row of every table, as text."""
    tables = house.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [
        f"{table}: {row[0]}"
        for (table,) in tables
        for row in house.rows(f"SELECT to_jsonb(t)::text FROM {table} t")
    ]
    bodies = house.rows("SELECT id, encode(body, 'escape') FROM inbox")
    return "\n".join([*rows, *(f"inbox: {row[0]} {row[1]}" for row in bodies)])


def left(house: House) -> list[str]:
    """The lines in which something of the person is left."""
    lines = dumped(house).splitlines()
    return [line for line in lines if any(one.lower() in line.lower() for one in TRACES)]


def arrive(house: House, parameters: Mapping[str, str]) -> None:
    body = urlencode(parameters).encode()
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival("texts", str(hash(body)), body)])


def ada_known(house: House) -> None:
    document = {"ref": REF, "name": NAME, "email": OLD, "phone": PHONE, "locale": "en"}
    put_customers(house.runtime, brand_id(house), [document])
    put_customers(house.runtime, brand_id(house), [{"ref": REF, "email": EMAIL}])


@pytest.fixture
def full(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house that holds something of Ada in every place where it may."""
    accounts = build_accounts({"texts": TWILIO}, {})
    texts = accounts["texts"].provider
    monkeypatch.setattr(texts, "send", lambda batch, _deadline: [Accepted("SM1") for _ in batch])
    runtime = replace(house.runtime, accounts={**house.runtime.accounts, **accounts})
    house = replace(house, runtime=runtime)
    ada_known(house)
    content = {"subject": "It is here", "text": WORDS + ", {{ name }}"}
    house.accept(intent(REF, key=f"hello-{REF}", content=content, data={"name": NAME}))
    house.run()
    house.accept(
        intent(
            REF,
            content={"text": WORDS},
            key="open",
            send_after="2100-01-01T00:00:00Z",
            expires_at="2100-01-02T00:00:00Z",
        )
    )
    refused = intent({"ref": REF, "email": EMAIL, "name": NAME}, topic="nothing", key=f"x-{EMAIL}")
    house.accept(refused, keep_refusals=True)
    arrive(house, answer("IN1", PHONE, "I shall come tomorrow"))
    read_feedback(house.runtime)
    house.execute(
        "INSERT INTO inbound_messages (account, external_id, channel, from_address, text, at)"
        " VALUES ('texts', 'stray', 'sms', :phone, 'I shall come tomorrow', now())",
        phone=PHONE,
    )
    arrive(house, {"From": PHONE, "Body": "no"})
    house.execute("UPDATE inbox SET due_at = NULL, problem = 'x' WHERE due_at IS NOT NULL")
    ada = ada_of(house)
    with house.runtime.engine.begin() as connection:
        audit.note(connection, actor="me", action="x", subject={"who": EMAIL}, reason=f"for {REF}")
        audit.note(connection, actor="me", action="y", subject={}, reason="Ada  LOVELACE called")
        note_activity(
            connection, [{"customer_id": ada, "channel": "email", "at": "2026-01-01T00:00:00Z"}]
        )
    house.execute(
        "INSERT INTO events (source, external_id, intent_id, delivery_id, type, reason, at, detail)"
        " SELECT 'relay', 'dsn-' || :email, intent_id, id, 'bounced', 'no ' || :email, now(),"
        " jsonb_build_object('to', CAST(:email AS text)) FROM deliveries",
        email=EMAIL,
    )
    reasons = {"reason": f"{EMAIL} complained: {NAME}, {REF}"}
    house.execute(
        "INSERT INTO pauses (channel, reason, actor) VALUES ('social', :reason, 'me')", **reasons
    )
    house.execute(
        "INSERT INTO limits (account, per_second, reason, actor) VALUES ('x', 1, :reason, 'me')",
        **reasons,
    )
    house.execute(
        "INSERT INTO api_keys (brand_id, prefix, hash, label)"
        " SELECT id, 'x', sha256('x'), :label FROM brands",
        label=f"for {NAME.upper()}",
    )
    house.execute("UPDATE attempts SET reason = 'no such user ' || :email", email=EMAIL.upper())
    record(
        house.runtime,
        brand_id(house),
        [Statement(ada, Scope(kind=Kind.MARKETING), False, "api", evidence=f"mail of {EMAIL}")],
    )
    return house


def test_nothing_of_a_person_is_left(full: House) -> None:
    assert {line.split(":")[0] for line in left(full)} >= {
        "customers", "endpoints", "contents", "intents", "refusals", "inbound_messages", "inbox",
        "audit", "events", "attempts", "consents", "pauses", "limits", "api_keys",
    }  # fmt: skip
    counted = full.rows("SELECT (SELECT count(*) FROM intents), (SELECT count(*) FROM events)")
    assert erase(full.runtime, brand_id(full), REF, "tests")
    assert left(full) == []
    assert full.rows("SELECT DISTINCT state, reason FROM intents") == [
        ("cancelled", "customer_removed")
    ]
    now = full.rows("SELECT (SELECT count(*) FROM intents), (SELECT count(*) FROM events)")
    assert now == counted, "what happened stays counted"
    assert full.rows("SELECT DISTINCT document FROM contents") == [({},)]
    rest = "(erased) complained: (erased), (erased)"
    assert full.rows("SELECT p.reason, l.reason FROM pauses p, limits l") == [(rest, rest)]
    assert full.rows("SELECT label FROM api_keys") == [("for (erased)",)]
    assert not erase(full.runtime, brand_id(full), REF, "tests"), "nobody is left"
    noted = full.rows("SELECT actor, subject FROM audit WHERE action = 'customer.erase'")
    assert [(one.actor, list(one.subject)) for one in noted] == [("tests", ["customer"])]


def test_a_word_that_waits_to_be_read_counts_before_its_speaker_goes(full: House) -> None:
    arrive(full, answer("IN2", PHONE, "STOP"))
    assert erase(full.runtime, brand_id(full), REF, "tests")
    assert left(full) == []
    # Whoever has the number next is left in peace until they say otherwise.
    full.accept(intent({"ref": "new", "phone": PHONE}))
    full.accept(intent({"ref": "other", "phone": "+12025550144"}))
    full.run()
    reached = full.rows(
        "SELECT c.ref FROM deliveries d JOIN intents i ON i.id = d.intent_id"
        " JOIN customers c ON c.id = i.customer_id WHERE d.channel = 'sms'"
        " AND c.ref !~ 'removed'"
    )
    assert [row.ref for row in reached] == ["other"], "not even decided"


def test_a_no_comes_back_with_each_address_as_wide_as_it_was_said(full: House) -> None:
    runtime, brand = full.runtime, brand_id(full)
    ada = ada_of(full)
    sender = full.rows("SELECT id FROM senders WHERE name = 'billing'")[0][0]
    record(runtime, brand, [Statement(ada, Scope(sender_id=sender), False, "preferences")])
    erase(runtime, brand, REF, "tests")
    put_customers(runtime, brand, [{"ref": "back", "email": EMAIL.upper(), "phone": PHONE}])
    said = full.rows(
        """SELECT e.channel, c.kind, c.sender_id, c.own, c.allow, c.source FROM consents c
             JOIN endpoints e ON e.id = c.endpoint_id ORDER BY 1, 2, 3"""
    )
    assert [tuple(one) for one in said] == [
        ("email", "marketing", None, True, False, "api"),
        ("email", None, sender, True, False, "preferences"),
        ("sms", "marketing", None, True, False, "api"),
        ("sms", None, sender, True, False, "preferences"),
    ]
    put_customers(runtime, brand, [{"ref": "back", "email": None}])
    put_customers(runtime, brand, [{"ref": "back", "email": EMAIL.upper()}])
    assert full.rows("SELECT count(*) FROM consents")[0][0] == len(said), "said once"


def test_a_no_comes_back_with_a_customer_who_had_the_address_before(house: House) -> None:
    runtime, brand = house.runtime, brand_id(house)

    def put(ref: str, phone: str | None) -> None:
        put_customers(runtime, brand, [{"ref": ref, "phone": phone}])

    def noes() -> int:
        said = "SELECT count(*) FROM consents WHERE NOT allow"
        return int(house.rows(f"{said} AND customer_id = :ada", ada=ada)[0][0])

    def bob_pauses_and_is_erased() -> None:
        put("ada", None)
        put("bob", PHONE)
        bob = house.rows("SELECT id FROM customers WHERE ref = 'bob'")[0][0]
        record(runtime, brand, [Statement(bob, Scope(), False, "preferences")])
        erase(runtime, brand, "bob", "tests")

    put("ada", PHONE)
    ada, key = house.rows("SELECT customer_id, id FROM endpoints WHERE address = :to", to=PHONE)[0]
    bob_pauses_and_is_erased()
    put("ada", PHONE)
    assert noes() == 1
    for phone in (PHONE, None, PHONE):
        put("ada", phone)
    assert noes() == 1, "it stands: said once"
    # Taken back by START (which forgets the hash as well), it is said anew by whoever says it next.
    record(runtime, brand, [Statement(ada, Scope(endpoint_id=key), True, "text")])
    house.execute("DELETE FROM suppressions")
    for phone in (None, PHONE):
        put("ada", phone)
    assert noes() == 1
    bob_pauses_and_is_erased()
    put("ada", PHONE)
    assert noes() == 2
    house.accept(intent("ada", policy="sms-only"))
    house.run()
    assert house.rows("SELECT FROM deliveries WHERE handed_over_at IS NOT NULL") == []


def test_a_no_that_only_the_brand_said_comes_back_as_the_brands(full: House) -> None:
    runtime, brand, ada = full.runtime, brand_id(full), ada_of(full)
    record(runtime, brand, [Statement(ada, Scope(kind=Kind.MARKETING), True, "preferences")])
    record(runtime, brand, [Statement(ada, Scope(), False, "api", own=False)])
    erase(runtime, brand, REF, "tests")
    # Another of the same address said it in person meanwhile: the mail's no is the person's.
    put_customers(runtime, brand, [{"ref": "bob", "email": EMAIL}])
    bob = full.rows("SELECT id FROM customers WHERE ref = 'bob'")[0][0]
    lifts = Scope(endpoint_id=full.rows("SELECT max(id) FROM endpoints")[0][0])
    record(runtime, brand, [Statement(bob, lifts, True, "api", own=False)])
    record(runtime, brand, [Statement(bob, Scope(), False, "preferences")])
    erase(runtime, brand, "bob", "tests")
    put_customers(runtime, brand, [{"ref": "back", "email": EMAIL, "phone": PHONE}])
    said = full.rows(
        """SELECT e.channel, c.own FROM consents c JOIN endpoints e ON e.id = c.endpoint_id
             JOIN customers p ON p.id = c.customer_id WHERE p.ref = 'back' ORDER BY 1"""
    )
    assert [tuple(one) for one in said] == [("email", True), ("sms", False)]


def test_what_has_ended_or_was_taken_back_is_no_lasting_no(full: House) -> None:
    runtime, brand, ada = full.runtime, brand_id(full), ada_of(full)
    record(runtime, brand, [Statement(ada, Scope(kind=Kind.MARKETING), True, "preferences")])
    until = full.rows("SELECT now() - interval '1 hour'")[0][0]
    record(runtime, brand, [Statement(ada, Scope(), False, "preferences", until=until)])
    erase(runtime, brand, REF, "tests")
    assert full.rows("SELECT * FROM suppressions") == []


def test_a_no_that_ends_by_itself_holds_until_then(full: House) -> None:
    runtime, brand, ada = full.runtime, brand_id(full), ada_of(full)
    until = full.rows("SELECT now() + interval '7 days'")[0][0]
    record(runtime, brand, [Statement(ada, Scope(), False, "preferences", until=until)])
    erase(runtime, brand, REF, "tests")
    put_customers(runtime, brand, [{"ref": "back", "email": EMAIL}])
    ends = "SELECT until FROM consents WHERE NOT allow AND kind IS NULL"
    assert [row.until for row in full.rows(ends)] == [until]
    # Erased again, their no lasts as long as the longer of the two, and not for ever.
    erase(runtime, brand, "back", "tests")
    kept = "SELECT count(*) FROM suppressions WHERE until = :until"
    assert full.rows(kept, until=until)[0].count == len((EMAIL, PHONE, OLD))
    assert upkeep(runtime)["suppressions"] == 0
    full.execute("UPDATE suppressions SET until = now() WHERE until IS NOT NULL")
    put_customers(runtime, brand, [{"ref": "later", "email": EMAIL}])
    assert full.rows(ends) == [], "it has ended"
    assert upkeep(runtime)["suppressions"] == 3


@pytest.mark.parametrize(
    ("first", "then", "last"), [(1, 7, 7), (7, 1, 7), (None, 7, None), (7, None, None)]
)
def test_of_two_noes_of_an_address_the_longer_stays(
    house: House, first: int | None, then: int | None, last: int | None
) -> None:
    now = house.rows("SELECT now()")[0][0]
    row = {"brand_id": 1, "hash": "00" * 32, "channel": "email", "source": "text"}
    new = []
    for days in (first, then):
        until = None if days is None else (now + timedelta(days=days)).isoformat()
        with house.runtime.engine.begin() as connection:
            new.append(optouts.suppress(connection, [{**row, "until": until}]))
    [kept] = house.rows("SELECT until FROM suppressions")
    assert kept.until == (None if last is None else now + timedelta(days=last))
    assert new == [True, first != last]


def test_a_name_is_taken_out_where_it_stands_by_itself(house: House) -> None:
    brand = brand_id(house)
    put_customers(house.runtime, brand, [{"ref": "c1", "name": "Ada Berg"}])
    put_customers(house.runtime, brand, [{"ref": "c2", "name": "Berg"}])
    with house.runtime.engine.begin() as connection:
        for reason in ("Ada Berg, Ada Bergmann", "Berg"):
            audit.note(connection, actor="me", action="x", subject={}, reason=reason)
    for ref in ("c1", "c2"):
        assert erase(house.runtime, brand, ref, "tests")
    reasons = house.rows("SELECT reason FROM audit WHERE action = 'x' ORDER BY id")
    assert [row.reason for row in reasons] == ["(erased), Ada Bergmann", "Berg"], (
        "too short to tell"
    )


def test_a_content_that_others_need_stays_and_comes_back_when_it_is_said_again(
    house: House,
) -> None:
    shared, alone = {"text": "To all of you"}, {"text": WORDS}
    house.accept(intent(customer("bob"), content=shared))
    for content in (shared, alone):
        house.accept(intent(customer(REF), content=content))
    erase(house.runtime, brand_id(house), REF, "tests")
    assert sorted(
        row[0].get("text", "") for row in house.rows("SELECT document FROM contents")
    ) == [
        "",
        "To all of you",
    ]
    # This process still knows the ids of both.
    house.accept(intent("bob", content=alone))
    house.run()
    assert [WORDS in one.mime.decode() for one in house.sink.messages].count(True) == 1


def test_an_address_of_somebody_else_too_is_theirs(full: House) -> None:
    put_customers(full.runtime, brand_id(full), [{"ref": "bob", "phone": PHONE}])
    erase(full.runtime, brand_id(full), REF, "tests")
    tables = {line.split(":")[0] for line in left(full)}
    assert tables == {"endpoints", "inbound_messages", "inbox"}


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crashing(house: House, at: int) -> Iterator[list[int]]:
    """Let the process end before its n-th statement; yield how many it came to."""
    passed = [0]

    def point(*given: Any, **__: Any) -> None:
        passed[0] += 1
        if passed[0] == at:
            if given and not isinstance(given[0], str) and hasattr(given[0], "connection"):
                given[0].connection.rollback()
            raise Crash

    for name in ("before_cursor_execute", "commit"):
        event.listen(house.runtime.engine, name, point)
    try:
        yield passed
    finally:
        for name in ("before_cursor_execute", "commit"):
            event.remove(house.runtime.engine, name, point)


def test_a_crash_anywhere_leaves_all_or_nothing_and_once_more_ends_it(full: House) -> None:
    for at in range(1, 60):
        before = left(full)
        with crashing(full, at):
            try:
                done = erase(full.runtime, brand_id(full), REF, "tests")
            except Crash:
                now = {line.split(":")[0] for line in left(full)}
                assert now == {line.split(":")[0] for line in before}, at
                continue
        assert done
        assert left(full) == []
        return
    pytest.fail("it never ended")


def test_what_is_long_is_looked_through_before_the_gate_is_closed(full: House) -> None:
    """Behind the gate only rows that were found, and the latest, are looked at."""

    def look(connection: Connection) -> None:
        within = erasing.Rows([1, 2], 1_000_000)
        erasing.audit_naming(connection, [EMAIL], within)
        erasing.blank_refusals(connection, 1, REF, [uuid4()], [EMAIL], within)
        erasing.blank_inbox(connection, [EMAIL])

    found = plans(full, look)
    assert len(found) == 5
    for plan in found:
        assert "Index Cond" in plan or "inbox_due" in plan
        assert not re.search("Seq Scan on (audit|refusals|inbox)", plan)


def test_all_is_looked_through_whatever_is_changed_meanwhile(
    full: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing_usecase, "AT_ONCE", 2)
    monkeypatch.setattr(erasing_usecase, "NOT_SEEN_YET", 0)
    later, look = "ada.king@mail.example", erasing_usecase._look_for

    def meanwhile(*given: Any) -> Any:
        found = look(*given)
        if not full.rows("SELECT FROM endpoints WHERE address = :later", later=later):
            put_customers(full.runtime, brand_id(full), [{"ref": REF, "email": later}])
            full.accept(intent(REF, topic="nothing", key=later), keep_refusals=True)
            with full.runtime.engine.begin() as connection:
                audit.note(connection, actor="me", action="z", subject={}, reason=f"{REF} {later}")
        return found

    monkeypatch.setattr(erasing_usecase, "_look_for", meanwhile)
    assert erase(full.runtime, brand_id(full), REF, "tests")
    assert left(full) == []
    assert later not in dumped(full)


def test_while_it_is_erased_nothing_new_slips_in(full: House, database_url: str) -> None:
    """An intent that is accepted meanwhile is refused, or goes with the customer."""
    brand = brand_id(full)
    full.accept(intent(customer("bob"), content={"text": "To all of you"}))
    content = {"text": "To all of you"}
    full.accept(intent(REF, content=content))
    full.execute(
        "DELETE FROM deliveries USING intents i, customers c WHERE i.id = intent_id"
        " AND c.id = i.customer_id AND c.ref = 'bob'"
    )
    full.execute("DELETE FROM intents USING customers c WHERE c.id = customer_id AND ref = 'bob'")
    with side_by_side(
        full.runtime.engine,
        database_url,
        erase=lambda: erase(full.runtime, brand, REF, "tests"),
        accept=lambda: full.accept(intent("bob", content=content), intent(REF, content=content)),
    ) as both:
        # Both have the content that is about to be forgotten.
        both.go("accept", "SELECT id FROM contents")
        both.go("erase", "UPDATE contents")
        both.finish()
    full.run()
    assert left(full) == []
    assert [b"To all of you" in one.mime for one in full.sink.messages].count(True) == 1


def test_the_export_holds_everything_that_is_kept_and_no_more(full: House) -> None:
    pieces = export(full.runtime, brand_id(full), REF, "tests")
    assert pieces is not None
    told = orjson.loads(b"".join(pieces))
    assert told["customer"]["name"] == NAME
    assert {one["address"] for one in told["endpoints"]} == {EMAIL, OLD, PHONE}
    assert told["messages_in"][0]["text"] == "I shall come tomorrow"
    assert told["refusals"][0]["document"]["to"]["email"] == EMAIL
    assert [one["kind"] for one in told["consents"]] == ["marketing"]
    assert [one["channel"] for one in told["activity"]] == ["email", "sms"]
    assert [one["action"] for one in told["audit"]] == ["customer.change", "customer.export"]
    said = {one["said"]["text"] for one in told["intents"]}
    assert said == {f"{WORDS}, {NAME}", WORDS}
    sent = next(one for one in told["intents"] if one["deliveries"])
    assert sent["deliveries"][0]["address"] == EMAIL
    assert sent["deliveries"][0]["attempts"][0]["outcome"] == "accepted"
    assert sent["decisions"]
    assert export(full.runtime, brand_id(full), "nobody", "tests") is None


def test_an_export_is_read_page_by_page(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.usecases.people.exporting.PAGE", 2)
    house.accept(*(intent(customer(REF), key=f"k{n}") for n in range(5)))
    pieces = export(house.runtime, brand_id(house), REF, "tests")
    assert pieces is not None
    told = orjson.loads(b"".join(pieces))
    assert {one["key"] for one in told["intents"]} == {f"k{n}" for n in range(5)}
