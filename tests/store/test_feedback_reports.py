"""What a vendor reports and what people text back: late, early, twice, in any order, unreadable."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import orjson
import pytest
import typer
from sqlalchemy import event

from app.channels.contract import (
    Accepted,
    Ambiguous,
    HookRequest,
    InboundMessage,
    Message,
    Receipt,
)
from app.channels.registry import build_accounts
from app.channels.sms.twilio import _ARRIVED
from app.cli import inbox as inbox_commands
from app.domain.vocabulary import EventType
from app.store.inbox import Arrival, keep_arrivals
from app.usecases.hearing import feedback, reading
from app.usecases.hearing.feedback import read_feedback
from app.usecases.hearing.hooks import PATH
from app.usecases.operating.apply import Declared, apply
from app.usecases.operating.control import Operator, cancel_intents
from app.usecases.people.erasing import erase
from tests.store.conftest import DECLARED, House, customer, intent, policy

PHONE = "+12025550101"
TWILIO = {
    "channel": "sms",
    "provider": "twilio",
    "account_sid": "AC" + "0" * 32,
    "auth_token": "token",
    "public_url": "https://converge.example",
}
POLICIES = (
    policy("sms-then-email", (["sms"], 1800), (["email"], None)),
    policy("sms-only", (["sms"], None)),
)


class Texts:
    """Takes texts; the SIDs that it gives are SM1, SM2 …"""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, batch: Sequence[Message], _deadline: float) -> list[Accepted]:
        first = len(self.sent) + 1
        self.sent += batch
        return [Accepted(f"SM{number}") for number in range(first, len(self.sent) + 1)]


@pytest.fixture
def texting(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house that texts through Twilio."""
    accounts = build_accounts({"texts": TWILIO}, {})
    provider = accounts["texts"].provider
    monkeypatch.setattr(provider, "send", Texts().send)
    apply(house.runtime, Declared(DECLARED.brands, {one["name"]: one for one in POLICIES}))
    yield replace(house, runtime=replace(house.runtime, accounts=house.runtime.accounts | accounts))
    provider.close()


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be read again is not due again while a test runs."""
    monkeypatch.setattr(reading, "_pause_s", lambda _tries, _cap_s: 3_600.0)


def text(house: House, ref: str = "ada", phone: str = PHONE, **more: Any) -> None:
    """Text somebody; the next SID is given."""
    house.accept(intent(customer(ref, phone=phone), **{"policy": "sms-then-email", **more}))
    house.run()


def came(house: House, form: dict[str, str] | bytes, path: str = "") -> None:
    """Put something into the inbox, as the webhook does."""
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    told = {PATH: path} if path else {}
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival("texts", uuid4().hex, body, told)])


def report(sid: str, status: str, code: str = "") -> dict[str, str]:
    form = {"MessageSid": sid, "MessageStatus": status, "From": "+15550101"}
    return {**form, "ErrorCode": code} if code else form


def read(house: House, *forms: dict[str, str] | bytes) -> dict[str, int]:
    for form in forms:
        came(house, form)
    return read_feedback(house.runtime)


def answer(sid: str = "SMin", sender: str = PHONE, words: str = "Where is it?") -> dict[str, str]:
    return {"MessageSid": sid, "From": sender, "To": "+15550101", "Body": words}


def delivery(house: House, sid: str = "SM1") -> tuple[str, str | None]:
    [row] = house.rows("SELECT state, reason FROM deliveries WHERE provider_ref = :sid", sid=sid)
    return row.state, row.reason


def endpoint(house: House) -> str:
    [row] = house.rows("SELECT state FROM endpoints WHERE channel = 'sms'")
    return str(row.state)


def intents(house: House) -> list[tuple[str, str | None]]:
    rows = house.rows("SELECT state, seen_as FROM intents ORDER BY accepted_at, id")
    return [(row.state, row.seen_as) for row in rows]


def test_a_report_that_comes_twice_is_one_fact(texting: House) -> None:
    text(texting)
    assert read(texting, report("SM1", "delivered")) == {"delivered": 1}
    assert read(texting, {**report("SM1", "delivered"), "More": "1"}) == {}
    assert delivery(texting) == ("delivered", None)
    [clock] = texting.rows("SELECT due_at > now() AS goes_on FROM deliveries")
    assert clock.goes_on


@pytest.mark.usefixtures("seldom")
def test_a_report_that_overtakes_our_own_commit_waits_for_it(texting: House) -> None:
    assert read(texting, report("SM1", "delivered")) == {"unread": 1}
    [kept] = texting.rows("SELECT due_at > now() AS waits, problem FROM inbox")
    assert tuple(kept) == (True, "no delivery has this reference")
    text(texting)
    texting.execute("UPDATE inbox SET due_at = now()")
    assert read(texting) == {"delivered": 1}
    assert delivery(texting) == ("delivered", None)


def test_of_long_bodies_few_are_read_at_once(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "BATCH_BYTES", 2_500)
    text(texting)
    for n in range(6):
        came(texting, answer(f"IN{n}", words=f"{n} " + "x" * 1_000))
    took: list[int] = []

    def taken(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "octet_length(body) AS bytes" in statement:
            took.append(cursor.rowcount)

    event.listen(texting.runtime.engine, "after_cursor_execute", taken)
    assert read(texting)["messages"] == 6
    event.remove(texting.runtime.engine, "after_cursor_execute", taken)
    assert took == [3, 3, 0]
    told = texting.rows("SELECT text FROM inbound_messages ORDER BY id")
    assert [row.text[0] for row in told] == list("012345"), "the oldest first"


def test_one_thread_of_a_process_reads_at_a_time(texting: House) -> None:
    """The others have something else to do."""
    came(texting, answer("IN1"))
    with feedback._reading:
        assert read_feedback(texting.runtime) == {}
    assert read_feedback(texting.runtime)["messages"] == 1


def test_a_report_of_what_others_sent_is_tried_a_few_times_and_done_with(texting: House) -> None:
    """An account may be shared, and then nearly all that it reports is of no interest here."""
    read(texting, report("SM9", "delivered"))
    tries = 1
    while texting.rows("SELECT FROM inbox WHERE due_at IS NOT NULL"):
        texting.execute("UPDATE inbox SET due_at = now() WHERE due_at IS NOT NULL")
        read(texting)
        tries += 1
        assert tries <= 20
    assert tries > 5, "it may be ours all the same"
    [left] = texting.rows("SELECT problem, body FROM inbox")
    assert (left.problem, bytes(left.body)) == (None, b""), "nobody is called for it"
    counts = texting.runtime.tally.snapshot()
    for result, count in (("again", tries - 1), ("not_ours", 1)):
        assert counts["converge_inbox_read_total", f'{{"result": "{result}"}}'] == count


@pytest.mark.usefixtures("seldom")
@pytest.mark.parametrize(
    ("status", "said", "states"),
    [
        ("delivered", {"delivered": 1}, {"delivered": 1}),
        ("undelivered", {"failed": 1}, {"failed": 1}),
    ],
)
def test_a_report_of_a_text_without_a_verdict_says_what_became_of_it(
    texting: House,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    said: dict[str, int],
    states: dict[str, int],
) -> None:
    """Nobody told us its SID, so it is known by its own address for reports."""
    provider = texting.runtime.accounts["texts"].provider
    monkeypatch.setattr(provider, "send", lambda batch, _: [Ambiguous("http_read")] * len(batch))
    text(texting, policy="sms-only")
    assert texting.states() == {"unknown": 1}
    [row] = texting.rows("SELECT id FROM deliveries")
    for path in (f"/{row.id + 1}", "", f"/{row.id}"):
        assert texting.states() == {"unknown": 1}
        came(texting, {**report(f"SM{path}", status, "30003"), "At": path}, path)
        counts = read_feedback(texting.runtime)
    assert counts == said
    assert texting.states() == states


def test_reports_in_any_order_end_the_same(texting: House) -> None:
    text(texting)
    told = [report("SM1", word) for word in ("read", "delivered", "sent", "sending", "queued")]
    assert read(texting, *told) == {"read": 1, "delivered": 1, "seen": 1}
    assert delivery(texting) == ("delivered", None)
    assert intents(texting) == [("seen", "read")]
    [row] = texting.rows("SELECT count(*) FROM inbox WHERE problem IS NULL AND due_at IS NULL")
    assert row.count == len(told)


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_told_last_of_a_message_holds(texting: House, at_once: bool) -> None:
    text(texting)
    gone, there = report("SM1", "undelivered", "30003"), report("SM1", "delivered")
    for told in ([gone, there],) if at_once else ([gone], [there]):
        for form in told:
            came(texting, form)
            texting.execute(
                "UPDATE inbox SET received_at = clock_timestamp() WHERE id = "
                "(SELECT max(id) FROM inbox)"
            )
        read(texting)
    assert delivery(texting)[0] == "delivered"


def test_a_lost_text_goes_on_to_the_next_channel_and_spoils_no_number(texting: House) -> None:
    text(texting)
    assert read(texting, report("SM1", "undelivered", "30007")) == {"failed": 1}
    assert delivery(texting) == ("failed", "twilio_30007")
    assert endpoint(texting) == "active"
    texting.work()
    assert texting.run() == {"sent": 1}
    assert [one.recipients for one in texting.sink.messages] == [("ada@example.com",)]


def test_a_number_that_takes_nothing_is_marked(texting: House) -> None:
    text(texting)
    assert read(texting, report("SM1", "undelivered", "30005")) == {"bounced": 1}
    assert delivery(texting) == ("failed", "twilio_30005")
    assert endpoint(texting) == "invalid"
    texting.work()
    assert texting.run() == {"sent": 1}


@pytest.mark.parametrize("code", ["30003", "30005", ""])
def test_a_report_about_what_has_ended_moves_nothing_else(texting: House, code: str) -> None:
    text(texting)
    cancel_intents(
        texting.runtime,
        [row.id for row in texting.rows("SELECT id FROM intents")],
        Operator("tests", "ordered twice"),
    )
    read(texting, report("SM1", "undelivered" if code else "read", code))
    texting.work()
    assert intents(texting) == [("cancelled", None)]
    assert len(texting.rows("SELECT FROM deliveries")) == 1
    assert len(texting.rows("SELECT FROM events")) == 1


UNREADABLE = [
    (b"<html><body>502</body></html>", "no MessageSid"),
    (urlencode(report("SM1", "eaten")).encode(), "a MessageStatus that is not known"),
    (b"MessageSid=SM2&From=%2B1&To=%2B2", "no Body"),
    (b"MessageSid=\xff", "not a form"),
    (
        b"MessageSid=SM%00&MessageStatus=read",
        "an id or address is empty, too long or no plain text",
    ),
    (
        b"MessageSid=" + b"9" * 9000 + b"&MessageStatus=read",
        "an id or address is empty, too long or no plain text",
    ),
]


def test_what_cannot_be_read_says_why_and_holds_up_no_other(texting: House) -> None:
    text(texting)
    counts = read(texting, *(body for body, _ in UNREADABLE), report("SM1", "delivered"))
    assert counts == {"unread": len(UNREADABLE), "delivered": 1}
    kept = texting.rows("SELECT body, problem, due_at FROM inbox WHERE problem <> '' ORDER BY id")
    assert [(bytes(row.body), row.problem, row.due_at) for row in kept] == [
        (body, problem, None) for body, problem in UNREADABLE
    ]


def command(texting: House, monkeypatch: pytest.MonkeyPatch, *words: str) -> int | None:
    monkeypatch.setattr(inbox_commands, "runtime", lambda: texting.runtime)
    application = typer.Typer()
    inbox_commands.add_to(application)
    status: int | None = application(list(words), standalone_mode=False)
    return status


def test_what_could_not_be_read_is_listed_and_read_again(
    texting: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text(texting)
    read(texting, report("SM1", "arrived"), report("SM9", "delivered"))
    capsys.readouterr()
    command(texting, monkeypatch, "inbox", "list", "--json")
    waiting, unreadable = orjson.loads(capsys.readouterr().out)
    assert (waiting["problem"], waiting["again_at"] is None) == (
        "no delivery has this reference",
        False,
    )
    assert unreadable.keys() == {
        "id",
        "source",
        "received_at",
        "tries",
        "problem",
        "again_at",
        "bytes",
    }
    command(texting, monkeypatch, "inbox", "list", "--unreadable")
    told = capsys.readouterr().out
    assert "a MessageStatus that is not known" in told
    assert "SM9" not in told
    assert str(waiting["id"]) not in told.split()

    monkeypatch.setitem(_ARRIVED, "arrived", EventType.DELIVERED)  # the provider is mended
    command(texting, monkeypatch, "inbox", "retry", "--json", "--reason", "mended")
    assert orjson.loads(capsys.readouterr().out) == {"again": [unreadable["id"]], "not_again": []}
    assert texting.hints.inbox == 1
    later = "UPDATE inbox SET due_at = now() + interval '1 hour' WHERE id = :id"
    texting.execute(later, id=waiting["id"])  # on a slow machine its time has come by now
    assert read(texting) == {"delivered": 1}
    assert delivery(texting) == ("delivered", None)
    [noted] = texting.rows("SELECT reason, subject FROM audit WHERE action = 'inbox.retry'")
    assert tuple(noted) == ("mended", {"ids": [unreadable["id"]], "count": 1})

    assert command(texting, monkeypatch, "inbox", "retry", str(unreadable["id"]), "999") == 1
    told = capsys.readouterr()
    assert "0 arrivals will be read again" in told.out
    assert f"Not again: {unreadable['id']}, 999" in " ".join(told.err.split())


def reads_as(
    house: House, monkeypatch: pytest.MonkeyPatch, *told: Receipt | InboundMessage
) -> None:
    """Let the vendor tell something that Twilio has no word for."""

    def read_so(request: HookRequest) -> list[Receipt | InboundMessage]:
        return [replace(one, at=request.received_at) for one in told]

    monkeypatch.setattr(house.runtime.accounts["texts"].provider, "read", read_so)


NOW = datetime(2026, 1, 1, tzinfo=UTC)  # replaced by the time of the request


def test_a_read_receipt_covers_what_came_before_it_and_nothing_else(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        text(texting, key=f"ada-{number}")  # SM1, SM2, SM3
    text(texting, "bob", "+12025550102")  # SM4
    texting.execute(
        "UPDATE deliveries SET handed_over_at = now() - interval '1 hour' + id * "
        "interval '1 minute'"
    )
    reads_as(texting, monkeypatch, Receipt("r", "SM2", EventType.READ, NOW, read_up_to=True))
    assert read(texting, b"1") == {"read": 2, "seen": 2}
    assert intents(texting) == [("seen", "read"), ("seen", "read"), ("open", None), ("open", None)]
    assert read(texting, b"2") == {}


def later_event(recipient: str = PHONE, *, everything: bool = True) -> Receipt:
    """Read was an event that is not ours, such as the reader's own entry after our message."""
    return Receipt("j", "$join", EventType.READ, NOW, read_up_to=everything, recipient=recipient)


@pytest.mark.usefixtures("seldom")
def test_who_reads_a_later_event_has_read_ours(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        text(texting, key=f"ada-{number}")  # SM1, SM2, SM3
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 second'")
    reads_as(texting, monkeypatch, later_event())
    came(texting, b"1")
    texting.execute(
        "UPDATE deliveries SET handed_over_at = now() + interval '1 hour'"
        " WHERE provider_ref = 'SM3'"  # written after they had read
    )
    for _ in range(5):  # a receipt for a message of ours may overtake our own commit
        assert read(texting) == {"unread": 1}
        texting.execute("UPDATE inbox SET due_at = now()")
    assert read(texting) == {"read": 2, "seen": 2}
    assert intents(texting) == [("seen", "read"), ("seen", "read"), ("open", None)]
    assert len(texting.rows("SELECT FROM inbox WHERE problem IS NULL AND due_at IS NULL")) == 1


@pytest.mark.parametrize("receipt", [later_event("+12025550109"), later_event(everything=False)])
def test_what_others_wrote_and_was_read_is_of_no_interest(
    texting: House, monkeypatch: pytest.MonkeyPatch, receipt: Receipt
) -> None:
    text(texting)
    reads_as(texting, monkeypatch, receipt)
    came(texting, b"1")
    texting.execute("UPDATE inbox SET tries = 5")
    assert read(texting) == {}
    [kept] = texting.rows("SELECT due_at, problem, body FROM inbox")
    assert (kept.due_at, kept.problem, bytes(kept.body)) == (None, None, b"")
    assert intents(texting) == [("open", None)]


def test_what_cannot_be_kept_takes_nothing_along_that_can(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text(texting)
    good = InboundMessage("good", PHONE, "+15550101", "\ud83c?\0", NOW)
    bad = InboundMessage("bad", "+1\0", "+15550101", "Hello", NOW)
    nameless = Receipt("", "SM1", EventType.READ, NOW)
    reads_as(texting, monkeypatch, bad, good, nameless, Receipt("r", "SM1", EventType.READ, NOW))
    counts = {"messages": 1, "replied": 1, "read": 1, "seen": 1, "unread": 1}
    assert read(texting, b"1") == counts
    assert [row.text for row in texting.rows("SELECT text FROM inbound_messages")] == ["??"]
    [kept] = texting.rows("SELECT problem FROM inbox")
    assert kept.problem == "an id or address is empty, too long or no plain text"


def test_an_answer_shows_that_the_text_was_seen(texting: House) -> None:
    text(texting)
    assert read(texting, answer()) == {"messages": 1, "replied": 1, "seen": 1}
    assert intents(texting) == [("seen", "replied")]
    assert delivery(texting) == ("delivered", None)
    [row] = texting.rows(
        "SELECT m.*, c.ref, d.provider_ref FROM inbound_messages m"
        " JOIN customers c ON c.id = m.customer_id AND c.brand_id = m.brand_id"
        " JOIN endpoints e ON e.id = m.endpoint_id JOIN deliveries d ON d.id = m.delivery_id"
    )
    assert (row.ref, row.provider_ref, row.text) == ("ada", "SM1", "Where is it?")
    assert (row.account, row.channel, row.service) == ("texts", "sms", "")
    assert (row.from_address, row.to_identity, row.external_id) == (PHONE, "+15550101", "SMin")


def test_a_message_that_comes_twice_is_kept_once(texting: House) -> None:
    text(texting)
    assert read(texting, answer(), {**answer(), "More": "1"})["messages"] == 1
    assert read(texting, {**answer(), "More": "2"}) == {}
    assert len(texting.rows("SELECT FROM inbound_messages")) == 1


def answered(house: House) -> list[tuple[str | None, str | None]]:
    """Who each message is from, and what it answers."""
    rows = house.rows(
        "SELECT c.ref, d.provider_ref FROM inbound_messages m"
        " LEFT JOIN customers c ON c.id = m.customer_id"
        " LEFT JOIN deliveries d ON d.id = m.delivery_id ORDER BY m.id"
    )
    return [(row.ref, row.provider_ref) for row in rows]


def test_an_answer_is_to_the_last_text(texting: House) -> None:
    text(texting, key="first")
    text(texting, key="second")
    texting.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 hour' * (3 - id)")
    read(texting, answer())
    assert answered(texting) == [("ada", "SM2")]
    assert intents(texting) == [("open", None), ("seen", "replied")]


def test_an_answer_that_names_its_text_is_to_that_one(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text(texting, key="first")
    text(texting, key="second")
    message = InboundMessage("m", PHONE, "+15550101", "Which?\0", NOW, ref="SM1")
    reads_as(texting, monkeypatch, message)
    read(texting, b"1")
    assert answered(texting) == [("ada", "SM1")]
    assert [row.text for row in texting.rows("SELECT text FROM inbound_messages")] == ["Which?"]


@pytest.mark.parametrize(
    "made_so",
    [
        "UPDATE deliveries SET handed_over_at = now() - interval '8 days'",
        "UPDATE inbox SET received_at = now() - interval '1 hour'",  # before it was handed over
        "UPDATE deliveries SET account = 'others'",
        "UPDATE deliveries SET handed_over_at = NULL, state = 'failed'",
    ],
)
def test_what_answers_nothing_is_still_theirs(texting: House, made_so: str) -> None:
    text(texting)
    came(texting, answer())
    texting.execute(made_so)
    assert read(texting) == {"messages": 1}
    assert answered(texting) == [("ada", None)]
    assert intents(texting) == [("open", None)]


def test_a_strangers_message_is_kept_too(texting: House) -> None:
    text(texting)
    assert read(texting, answer(sender="+12025550199", words="Ünï\0 🎈")) == {"messages": 1}
    assert answered(texting) == [(None, None)]
    [row] = texting.rows("SELECT text, from_address FROM inbound_messages")
    assert tuple(row) == ("Ünï 🎈", "+12025550199")


def test_a_shared_number_is_whoever_was_texted_or_else_nobody(texting: House) -> None:
    for ref in ("ada", "bob"):
        texting.accept(intent(customer(ref, phone=PHONE), policy="sms-then-email"))
    read(texting, answer("SMa"))
    assert answered(texting) == [(None, None)]
    texting.run()
    texting.execute(
        "UPDATE deliveries d SET handed_over_at = now() - interval '1 minute' FROM intents i"
        " JOIN customers c ON c.id = i.customer_id WHERE i.id = d.intent_id AND c.ref = 'ada'"
    )
    texting.execute(
        "UPDATE deliveries SET handed_over_at = now() - interval '1 second'"
        " WHERE handed_over_at > now() - interval '30 seconds'"
    )
    read(texting, answer("SMb"))
    assert answered(texting)[1][0] == "bob"


def test_an_answer_after_the_end_is_kept_and_moves_nothing(texting: House) -> None:
    text(texting)
    read(texting, report("SM1", "read"))
    assert read(texting, answer()) == {"messages": 1, "replied": 1}
    assert intents(texting) == [("seen", "read")]


def test_an_erased_customers_messages_are_gone(texting: House) -> None:
    text(texting)
    read(texting, answer())
    [brand] = texting.runtime.catalog().brands.values()
    assert erase(texting.runtime, brand.id, "ada", "tests")
    assert texting.rows("SELECT FROM inbound_messages") == []
    assert len(texting.rows("SELECT FROM intents")) == 1
