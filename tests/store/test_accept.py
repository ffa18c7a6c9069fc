"""Accept: what is taken, what is refused and how it is said; one bad intent spoils nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError

from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission, Verdict
from app.usecases.operating.apply import apply
from app.usecases.people.erasing import erase
from tests.store.conftest import DECLARED, House, customer, intent
from tests.store.interleaving import side_by_side


@pytest.fixture
def ada(house: House) -> House:
    house.accept(intent(customer(), key="first"))
    return house


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"colour": "red"}, "colour", "invalid"),
    ({"key": "r4", "replaces": "r4"}, "replaces", "invalid"),
    ({"sender": "nobody"}, "sender", "unknown_sender"),
    ({"topic": "gossip"}, "topic", "unknown_topic"),
    ({"policy": "hope"}, "policy", "unknown_policy"),
    ({"content": {"template": "none-such"}}, "content.template", "content"),
    ({"kind": "marketing"}, "kind", "consent_required"),
    ({"to": "stranger"}, "to", "unknown_customer"),
    ({"to": {"ref": "bob"}}, "to", "no_endpoint"),
    ({"to": {"ref": "bob", "email": "bob@@example.com"}}, "to.email", "invalid"),
    ({"to": {"ref": "bob", "phone": "+1"}}, "to.phone", "invalid"),
    (
        {"to": {"ref": "bob", "email": "b@x.example", "timezone": "Mars/Base"}},
        "to.timezone",
        "invalid",
    ),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at", "invalid"),
    ({"content": {"subject": "a\r\nBcc: b@x.example", "text": "x"}}, "content.subject", "invalid"),
    (
        {"content": {"text": "x", "actions": [{"label": "Go", "url": "javascript:alert(1)"}]}},
        "content.actions[0].url",
        "invalid",
    ),
    ({"content": {"text": "{{ name"}}, "content.text", "content"),
    ({"content": {"text": "Hello {{ name }}"}}, "data.name", "content"),
    ({"content": {"text": "Hello", "must_keep": ["991"]}}, "content.must_keep[0]", "content"),
    ({"data": {"x": "y" * 300_000}}, "", "invalid"),
]


@pytest.mark.parametrize(("change", "field", "code"), BAD, ids=[str(bad[1:]) for bad in BAD])
def test_a_bad_intent_is_refused_by_field_and_the_others_are_taken(
    ada: House, change: dict[str, Any], field: str, code: str
) -> None:
    before, bad, after = ada.accept(
        intent(key="before"), {**intent(key="bad"), **change}, intent(key="after")
    )
    assert (before.status, after.status) == ("accepted", "accepted")
    assert (bad.status, bad.code) == ("refused", code)
    assert (bad.field or "").startswith(field)
    assert bad.reason
    assert "b@x.example" not in bad.reason


@pytest.mark.parametrize("typed", ["ada@example.com", "+12025550101", "12025550101", "Ada Byron"])
@pytest.mark.parametrize("field", ["sender", "topic", "policy"])
def test_a_refusal_keeps_nothing_that_may_be_an_address(
    house: House, field: str, typed: str
) -> None:
    verdict = house.accept(intent(customer(), key="k", **{field: typed}), keep_refusals=True)[0]
    assert (verdict.field, verdict.code) == (field, f"unknown_{field}")
    [row] = house.rows("SELECT * FROM refusals")
    assert "is no name, is not declared; known: " in row.reason
    assert (row.document[field], row.sender) == (typed, None)
    assert typed not in str([value for value in row if not isinstance(value, dict)])


def test_over_the_broker_refusals_are_rows_and_a_repeated_chunk_adds_none(ada: House) -> None:
    chunk = uuid4()
    documents = [intent(key="good"), intent(key="bad", topic="gossip")]
    for _ in range(2):
        accept(ada.runtime, Submission("demo", chunk, keep_refusals=True), documents)
    [row] = ada.rows("SELECT * FROM refusals")
    assert (row.line, row.key, row.field, row.code) == (1, "bad", "topic", "unknown_topic")
    assert row.document["topic"] == "gossip"
    assert row.intent_id is not None
    assert len(ada.rows("SELECT FROM intents")) == 2


def test_another_brands_chunk_is_refused_whole_and_kept(ada: House) -> None:
    submission = Submission("acme", uuid4(), keep_refusals=True)
    [verdict] = accept(ada.runtime, submission, [intent()])
    assert (verdict.field, verdict.code) == ("brand", "unknown_brand")
    assert ada.rows("SELECT brand, brand_id FROM refusals")[0] == ("acme", None)


@pytest.mark.parametrize("document", [None, 7, "text", ["a"], {}], ids=str)
def test_what_is_no_intent_at_all_is_refused_and_kept(ada: House, document: Any) -> None:
    [verdict, good] = ada.accept(document, intent(key="good"), keep_refusals=True)
    assert (verdict.status, good.status) == ("refused", "accepted")
    assert ada.rows("SELECT document FROM refusals")[0].document == document


def test_a_test_intent_never_takes_the_place_of_a_live_one(ada: House) -> None:
    [tested] = ada.accept(intent(customer("tess"), key="991"), test=True)
    [live] = ada.accept(intent(key="991"))
    assert (tested.code, live.status) == ("no_endpoint", "accepted"), "no sandbox is configured"
    assert tested.id != live.id


def test_a_test_intent_changes_no_live_customer(ada: House) -> None:
    ada.accept(intent(customer("ada", email="open@sandbox.example", name="X")), test=True)
    ada.accept(intent(customer("eve", email="open@sandbox.example")), test=True)
    ada.accept(intent(customer("eve", email="bounce@sandbox.example")), test=True)
    rows = ada.rows(
        "SELECT ref, test, name, address FROM customers c JOIN endpoints e"
        " ON e.customer_id = c.id AND e.state = 'active' ORDER BY ref"
    )
    assert [tuple(row) for row in rows] == [
        ("ada", False, None, "ada@example.com"),
        ("eve", True, None, "bounce@sandbox.example"),
    ]
    ada.accept(intent(customer("eve", name="Eve")))
    assert ada.rows("SELECT test, name FROM customers WHERE ref = 'eve'") == [(False, "Eve")]


@pytest.fixture
def rehearsing(ada: House) -> House:
    """With a sandbox account for mail beside the live one."""
    relay = ada.runtime.accounts["relay"]
    accounts = {**ada.runtime.accounts, "sandbox": replace(relay, name="sandbox", sandbox=True)}
    return replace(ada, runtime=replace(ada.runtime, accounts=accounts))


def test_a_test_intent_is_for_test_customers_alone(rehearsing: House) -> None:
    """To a live one it would use up caps, note activity and take a no from a rehearsal."""
    house = rehearsing
    by_ref, by_object, tests_own, again = house.accept(
        intent("ada", key="by-ref"),
        intent(customer("ada"), key="by-object"),
        intent(customer("tess"), key="tess"),
        intent("tess", key="again"),
        test=True,
    )
    assert (by_ref.field, by_ref.code) == ("to", "unknown_customer")
    assert "converge customers import --test" in (by_ref.reason or "")
    assert (by_object.field, by_object.code) == ("to.ref", "unknown_customer")
    assert "give another ref" in (by_object.reason or "")
    assert (tests_own.status, again.status) == ("accepted", "accepted")
    to = house.rows(
        "SELECT DISTINCT i.test, c.ref, c.test FROM intents i JOIN customers c"
        " ON c.id = i.customer_id ORDER BY i.test"
    )
    assert [tuple(row) for row in to] == [(False, "ada", False), (True, "tess", True)]
    house.run()
    sent = house.rows("SELECT account, count(*) FROM deliveries WHERE test GROUP BY 1")
    assert [tuple(row) for row in sent] == [("sandbox", 2)]


def test_a_live_intent_is_for_live_customers_alone(rehearsing: House) -> None:
    """A test customer becomes a live one by what a live key says of them, at whatever time the
    tests say they live."""
    house = rehearsing
    tess = customer("tess", as_of="2030-01-01T00:00:00Z")
    house.accept(intent(tess, key="991"), test=True)
    [by_ref] = house.accept(intent("tess"))
    assert (by_ref.field, by_ref.code) == ("to", "unknown_customer")
    told = customer("tess", as_of="2026-01-01T00:00:00Z", name="Tess")
    [named] = house.accept(intent(told, key="named"))
    assert named.status == "accepted"
    later = {"ref": "tess", "as_of": "2026-01-02T00:00:00Z", "name": "Theresa"}
    house.accept(intent(later, key="later"))
    [row] = house.rows("SELECT test, name FROM customers WHERE ref = 'tess'")
    assert tuple(row) == (False, "Theresa")
    [tested] = house.accept(intent("tess", key="992"), test=True)
    assert tested.code == "unknown_customer"


def test_what_stands_twice_in_a_chunk_shares_the_fate_of_the_first(house: House) -> None:
    lost = intent("stranger", key="k")
    verdicts = house.accept(lost, lost, {**lost, "campaign": "other"})
    assert [verdict.status for verdict in verdicts] == ["refused", "refused", "conflict"]


def test_a_fault_of_ours_refuses_one_intent_and_loses_none(
    ada: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.usecases.intake import accept as module

    def faulty(situation: Any, now: Any) -> Any:
        if situation.campaign == "trips":
            raise RuntimeError("a bug")
        return real(situation, now)

    real = module.decide
    monkeypatch.setattr(module, "decide", faulty)
    documents = [intent(key=f"k{n}", campaign="trips" if n == 5 else "") for n in range(8)]
    for document in documents:
        document["campaign"] = document["campaign"] or None
    verdicts = ada.accept(*documents, keep_refusals=True)
    assert [verdict.status for verdict in verdicts].count("accepted") == 7
    assert verdicts[5].code == "fault"
    assert len(ada.rows("SELECT FROM refusals")) == 1


def test_attributes_that_cannot_be_kept_are_named(ada: House) -> None:
    for value in ("a\x00b", 2**64):
        [verdict, _] = ada.accept(
            intent(customer("bob", attributes={"x": value})), intent(key=str(value)[:3])
        )
        assert (verdict.status, verdict.field) in {
            ("refused", "to.attributes"),
            ("refused", "to"),
        }, verdict


def test_a_key_speaks_for_its_own_senders_alone(ada: House) -> None:
    mine, other = ada.accept(intent(sender="store"), intent(sender="billing"), senders=["store"])
    assert mine.status == "accepted"
    assert (other.field, other.code) == ("sender", "forbidden_sender")


def test_what_passes_every_check_and_cannot_be_kept_is_refused_alone(ada: House) -> None:
    documents = [intent(key=f"k{n}", data={"n": 2**n}) for n in range(50, 70)]
    verdicts = ada.accept(*documents, keep_refusals=True)
    assert [verdict.status for verdict in verdicts] == ["accepted"] * 14 + ["refused"] * 6
    assert {verdict.field for verdict in verdicts[14:]} == {"data"}
    assert len(ada.rows("SELECT FROM refusals WHERE code = 'unstorable'")) == 6


def test_a_template_is_kept_in_the_customers_language_once(house: House, tmp_path: Any) -> None:
    pytest.importorskip("app.content.templates")
    folder = tmp_path / "templates" / "hello"
    folder.mkdir(parents=True)
    for locale, word in (("en", "Hello"), ("de", "Hallo")):
        (folder / f"{locale}.md").write_text(
            f'+++\nsubject = "{word}"\n+++\n{word} {{{{ name }}}}\n'
        )
    from dataclasses import replace

    from app.content.templates import Templates

    words = replace(house.runtime.words, templates=Templates(tmp_path / "templates"))
    house.runtime = replace(house.runtime, words=words)
    told = {"content": {"template": "hello"}, "data": {"name": "Ada"}}
    house.accept(
        intent(customer("a", locale="de-AT"), **told),
        intent(customer("b", locale="de"), **told),
        intent(customer("c"), **told),
    )
    rows = house.rows("SELECT document->>'subject' AS subject FROM contents ORDER BY 1")
    assert [row.subject for row in rows] == ["Hallo", "Hello"]


def test_a_customer_field_left_out_stays_null_removes_and_older_never_overwrites(
    house: House,
) -> None:
    def told(**more: Any) -> None:
        house.accept(intent({"ref": "ada", **more}))

    told(email="ada@example.com", locale="de", as_of="2026-03-01T00:00:00Z")
    told(phone="+12025550101", as_of="2026-03-02T00:00:00Z")
    told(email="old@example.com", as_of="2026-02-01T00:00:00Z")
    told(locale=None)
    [row] = house.rows("SELECT locale, as_of FROM customers")
    assert row.locale is None
    assert row.as_of.day == 2
    rows = house.rows("SELECT channel, address, state FROM endpoints ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("email", "ada@example.com", "active"),
        ("sms", "+12025550101", "active"),
    ]
    told(email=["new@example.com"], as_of="2026-03-03T00:00:00Z")
    rows = house.rows("SELECT address, state FROM endpoints WHERE channel = 'email' ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("ada@example.com", "removed"),
        ("new@example.com", "active"),
    ]


def test_a_newer_intent_replaces_what_has_not_left_yet(ada: House) -> None:
    ada.accept(intent(key="old"))
    ada.accept(intent(key="new", replaces="old"))
    rows = ada.rows("SELECT key, state, reason FROM intents ORDER BY key")
    assert [tuple(row) for row in rows if row.key != "first"] == [
        ("new", "open", None),
        ("old", "cancelled", "replaced"),
    ]
    ada.run()
    assert ada.states() == {"sent": 2, "cancelled": 1}


def test_urgent_intents_wait_for_no_tick(ada: House) -> None:
    ada.accept(intent(key="fire", urgency="urgent"))
    assert [hint[:3] for hint in ada.hints.deliveries] == [("email", "urgent", "relay")]
    assert ada.work() == {"sent": 1}


def test_what_is_for_later_is_decided_then(ada: House) -> None:
    ada.accept(
        intent(key="later", send_after="2999-01-01T00:00:00Z", expires_at="2999-01-02T00:00:00Z")
    )
    ada.run()
    assert (
        ada.rows(
            "SELECT FROM deliveries d JOIN intents i ON i.id = d.intent_id WHERE key = 'later'"
        )
        == []
    )
    ada.execute("UPDATE intents SET send_after = now(), decide_at = now() WHERE key = 'later'")
    ada.run()
    ada.run()
    assert ada.states() == {"sent": 2}


def test_the_database_defends_what_must_always_hold(ada: House) -> None:
    ada.execute("UPDATE deliveries SET state = 'queued'")
    for statement in (
        "UPDATE intents SET decide_at = NULL",
        "UPDATE intents SET state = 'seen', decide_at = NULL, ended_at = now()",
        "UPDATE deliveries SET due_at = NULL",
        "UPDATE deliveries SET state = 'sending'",
        """INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel,
               lane, state, due_at)
           SELECT intent_id, brand_id, sender_id, endpoint_id, step, channel, lane, state, due_at
             FROM deliveries""",
        "INSERT INTO pauses (reason, actor) VALUES ('all', 'me')",
    ):
        with pytest.raises(IntegrityError):
            ada.execute(statement)


def test_time_to_send_begins_when_it_may_be_sent(ada: House) -> None:
    """A policy's deadline counts from `send_after`, else what is for next week expires unsent."""
    [verdict] = ada.accept(intent(send_after=(datetime.now(UTC) + timedelta(days=7)).isoformat()))
    [row] = ada.rows(
        "SELECT expires_at - send_after = interval '1 hour' AS whole FROM intents WHERE id = :id",
        id=verdict.id,
    )
    assert row.whole


def test_a_customer_removed_meanwhile_spoils_no_chunk(ada: House, database_url: str) -> None:
    ada.execute("DELETE FROM intents")
    ada.accept(intent(customer("bob"), key="first"))
    documents = [intent("ada", key="to-ada"), intent("bob", key="to-bob")]
    verdicts: list[Verdict] = []
    brand = ada.runtime.catalog().brands["demo"].id
    with side_by_side(
        ada.runtime.engine,
        database_url,
        accept=lambda: verdicts.extend(ada.accept(*documents)),
        remove=lambda: erase(ada.runtime, brand, "ada", "test"),
    ) as both:
        both.go("accept", "INSERT INTO intents")
        assert both.go("remove")
        assert both.go("accept")
    told = {one.key: (one.status, one.code) for one in verdicts}
    assert told == {"to-ada": ("refused", "unknown_customer"), "to-bob": ("accepted", None)}


def test_what_was_declared_a_moment_ago_is_no_unknown(ada: House) -> None:
    """Another process has applied it; this one's copy of the catalog is a second old."""
    known = ada.runtime.catalog()
    brand = DECLARED.brands["demo"]
    topics = {**brand.topics, "news": "News"}
    apply(ada.runtime, replace(DECLARED, brands={"demo": replace(brand, topics=topics)}))
    ada.runtime.catalog()
    ada.runtime.catalog._catalog = known
    verdicts = ada.accept(intent(topic="news"), intent(topic="gossip"), intent())
    assert [one.status for one in verdicts] == ["accepted", "refused", "accepted"]
