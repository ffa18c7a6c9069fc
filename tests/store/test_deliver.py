"""Deliver and settle: every kind of answer, over real SMTP, and what the ledger makes of it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.channels.registry import build_accounts
from app.domain.body import Body, ChatBody, EmailBody, TextBody
from app.domain.outcome import Blame, Retryable
from app.sandbox.mailsink import MailSink
from app.sandbox.mailsink_protocol import Faults
from app.usecases.operating.apply import Declared, apply
from app.usecases.telling.plain import because
from tests.contract.case import MatrixCase
from tests.contract.homeserver import Homeserver
from tests.contract.servers import ScriptedHttp
from tests.store.conftest import DECLARED, House, customer, intent, policy


def faults(sink: MailSink, **faulty: object) -> None:
    for name, value in faulty.items():
        assert hasattr(sink.faults, name), f"a sink has no fault {name}; it has {Faults()}"
        setattr(sink.faults, name, value)


def later(house: House) -> None:
    """Let everything that waits come due."""
    house.execute("UPDATE deliveries SET due_at = now() WHERE due_at IS NOT NULL")


def test_a_bad_recipient_fails_alone_and_escalates_at_once(house: House) -> None:
    faults(house.sink, refuse={"bob@example.com": "550 5.1.1 no such user"})
    house.accept(
        intent(customer("ada")),
        intent(customer("bob", phone="+12025550102")),
        intent(customer("cyd")),
    )
    house.tick()
    house.work()
    assert len(house.sink.messages) == 2
    rows = house.rows(
        "SELECT d.state, d.reason FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
        " WHERE d.channel = 'email' ORDER BY e.address"
    )
    assert [row.state for row in rows] == ["sent", "failed", "sent"]
    assert "5.1.1" in rows[1].reason
    [endpoint] = house.rows("SELECT state, reason FROM endpoints WHERE state <> 'active'")
    assert endpoint.state == "invalid"
    [text] = house.rows("SELECT step, state FROM deliveries WHERE channel = 'sms'")
    assert text.step == 1
    [refused] = house.rows("SELECT reason FROM attempts WHERE outcome = 'rejected'")
    assert "bob" not in refused.reason


def test_nobody_else_to_ask_means_exhausted(house: House) -> None:
    faults(house.sink, refuse={"bob@example.com": "550 5.1.1 no such user"})
    house.accept(intent(customer("bob"), policy="email-only"))
    house.run()
    [row] = house.rows("SELECT state, reason FROM intents")
    assert (row.state, row.reason) == ("exhausted", "nothing_can_still_come")
    assert house.rows("SELECT FROM deliveries WHERE due_at IS NOT NULL") == []


def test_a_passing_failure_is_tried_again_and_counted(house: House) -> None:
    faults(house.sink, refuse={"ada@example.com": "451 4.3.0 try later"})
    house.accept(intent(customer()))
    assert house.run() == {"retry": 1}
    [row] = house.rows("SELECT state, attempts, due_at > now() AS waits FROM deliveries")
    assert (row.state, row.attempts, row.waits) == ("planned", 1, True)
    assert house.run() == {}
    faults(house.sink, refuse={})
    later(house)
    assert house.run() == {"sent": 1}
    attempts = house.rows("SELECT number, outcome FROM attempts ORDER BY number")
    assert [tuple(row) for row in attempts] == [(1, "retryable"), (2, "accepted")]


@pytest.mark.parametrize(("kind", "copies"), [("transactional", 2), ("conversational", 2)])
def test_what_left_without_an_answer_is_unknown_and_its_kind_decides(
    house: House, kind: str, copies: int
) -> None:
    faults(house.sink, drop_before_ack_every=1)
    house.accept(intent(customer(), kind=kind))
    assert house.run() == {"unknown": 1}
    [row] = house.rows("SELECT state, due_at > now() + interval '30 s' AS waits FROM deliveries")
    assert (row.state, row.waits) == ("unknown", True)
    faults(house.sink, drop_before_ack_every=0)
    later(house)
    house.tick()
    house.run()
    assert house.states() == {"sent": 1}
    assert len(house.sink.messages) == copies
    outcomes = house.rows("SELECT outcome FROM attempts ORDER BY number")
    assert [row.outcome for row in outcomes] == ["ambiguous", "accepted"]


def test_an_intent_past_its_deadline_is_not_sent(house: House) -> None:
    house.accept(intent(customer()))
    house.tick()
    house.execute("UPDATE intents SET expires_at = now() - interval '1 s', decide_at = now()")
    assert house.work() == {"claimed": 0}
    assert house.states() == {"expired": 1}
    house.run()
    [row] = house.rows("SELECT state FROM intents")
    assert row.state == "expired"
    assert house.sink.messages == []


def test_an_endpoint_that_is_no_longer_good_is_not_used(house: House) -> None:
    house.accept(intent(customer(phone="+12025550102")))
    house.tick()
    house.execute("UPDATE endpoints SET state = 'invalid' WHERE channel = 'email'")
    house.work()
    house.run()
    rows = house.rows("SELECT channel, state, reason FROM deliveries ORDER BY id")
    assert tuple(rows[0]) == ("email", "failed", "endpoint_invalid")
    assert rows[1].channel == "sms"


def test_a_hint_that_nobody_claims_is_found_again(house: House) -> None:
    house.accept(intent(customer()))
    house.tick()
    house.hints.deliveries.clear()
    house.tick()
    assert house.hints.deliveries == []
    later(house)
    house.tick()
    assert house.work() == {"sent": 1}


def test_a_repeated_hint_claims_nothing(house: House) -> None:
    house.accept(intent(customer()))
    house.tick()
    house.hints.deliveries *= 3
    assert house.work() == {"sent": 1, "claimed": 0}
    assert len(house.sink.messages) == 1


def test_an_account_that_is_gone_gives_its_work_back(house: House) -> None:
    house.accept(intent(customer()))
    house.tick()
    house.execute("UPDATE deliveries SET account = 'gone'")
    [(channel, lane, _, ids)] = house.hints.deliveries
    house.hints.deliveries = [(channel, lane, "gone", ids)]
    house.work()
    assert house.run() == {"sent": 1}


def test_more_than_an_account_may_send_waits_without_an_attempt(house: House) -> None:
    from dataclasses import replace

    relay = replace(house.runtime.accounts["relay"], rate=5.0)
    house.runtime = replace(house.runtime, accounts={**house.runtime.accounts, "relay": relay})
    house.accept(*[intent(customer(f"c{n}")) for n in range(20)])
    house.tick()
    [released] = house.rows("SELECT count(*) AS n FROM deliveries WHERE state = 'queued'")
    assert released.n == 10, "two seconds of its rate"
    house.hints.deliveries = [
        ("email", "normal", "relay", [i for h in house.hints.deliveries for i in h[3]])
    ]
    counts = house.work()
    assert counts["sent"] + counts["held"] == 10
    assert counts["held"] >= 4
    held = house.rows("SELECT attempts FROM deliveries WHERE reason = 'rate_limit'")
    assert {row.attempts for row in held} == {0}


def test_times_are_the_databases_even_where_the_clock_here_is_wrong(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time as clock

    wrong = clock.time() - timedelta(hours=1).total_seconds()
    monkeypatch.setattr(clock, "time", lambda: wrong)
    house.accept(intent(customer()))
    house.run()
    [row] = house.rows(
        "SELECT abs(extract(epoch FROM now() - handed_over_at)) AS off FROM deliveries"
    )
    assert row.off < 60


def test_what_waits_when_its_intent_expires_is_expired_too(house: House) -> None:
    house.accept(intent(customer()))
    house.execute("UPDATE intents SET expires_at = now(), decide_at = now()")
    house.execute("UPDATE deliveries SET due_at = now() + interval '1 minute'")
    house.run()
    assert house.states() == {"expired": 1}
    [row] = house.rows("SELECT state FROM intents")
    assert row.state == "expired"


@pytest.mark.parametrize(("blame", "counted"), [(Blame.RECIPIENT, False), (Blame.ACCOUNT, True)])
def test_what_is_one_customers_fault_is_not_the_accounts(
    house: House, monkeypatch: pytest.MonkeyPatch, blame: Blame, counted: bool
) -> None:
    relay = house.runtime.accounts["relay"].provider
    monkeypatch.setattr(relay, "send", lambda batch, _: [Retryable("locked", blame) for _ in batch])
    house.accept(*(intent(customer(f"c{n}")) for n in range(20)))
    assert house.run() == {"retry": 20}
    errors = house.runtime.health.health(["relay"])["relay"].errors
    assert errors > 0.5 if counted else errors == 0.0


def test_recipients_who_are_greylisted_or_out_of_reach_are_no_fault_of_the_relay(
    house: House,
) -> None:
    far = {f"far{n}@example.org": "451 4.4.1 No answer from host" for n in range(40)}
    faults(house.sink, greylist=True, refuse=far)
    house.accept(*(intent(customer(f"c{n}")) for n in range(40)))
    house.accept(*(intent({"ref": address, "email": address}) for address in far))
    assert house.run() == {"retry": 80}
    health = house.runtime.health.health(["relay"])["relay"]
    assert (health.open_until, health.errors) == (None, 0.0)
    later(house)
    assert house.run() == {"sent": 40, "retry": 40}


def test_an_account_that_turns_all_away_rests_at_once(house: House) -> None:
    people = [f"c{n}@example.com" for n in range(20)]
    faults(house.sink, refuse=dict.fromkeys(people, "554 5.7.1 Relay access denied"))
    house.accept(*(intent(customer(f"c{n}")) for n in range(20)))
    assert house.run() == {"rejected": 20}
    health = house.runtime.health.health(["relay"])["relay"]
    assert health.open_until is not None
    assert health.errors > 0.5
    assert health.pace_per_s is None, "to be turned away quickly is no pace"


def test_another_message_of_a_ledger_that_was_reset_is_another_one(house: House) -> None:
    """Numbers come again, as they do after a restored dump; what knows the old ones must not say
    that it has this message already."""
    home = Homeserver()
    apply(house.runtime, Declared(DECLARED.brands, {"chat": policy("chat", (["chat"], None))}))
    with ScriptedHttp(home.answer).running() as server:
        table: dict[str, object] = {
            **MatrixCase().settings(server.url),
            "channel": "chat",
            "provider": "matrix",
        }
        made = build_accounts({"matrix": table})
        accounts = {**house.runtime.accounts, **made}
        house.runtime = replace(house.runtime, accounts=accounts)
        for key in ("first", "second"):
            house.execute("TRUNCATE intents, deliveries RESTART IDENTITY CASCADE")
            ada = {"ref": "ada", "chat": "matrix:@ada:example.org"}
            house.accept(intent(ada, policy="chat", key=key))
            assert house.run() == {"sent": 1}
            assert [row.id for row in house.rows("SELECT id FROM deliveries")] == [1]
        made["matrix"].provider.close()
    assert len(home.events) == 2


def test_a_body_longer_than_the_provider_takes_fails_alone_and_is_never_tried(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = type(house.runtime.accounts["relay"].provider)
    monkeypatch.setattr(provider, "traits", replace(provider.traits, max_bytes=20_000))
    long = {"subject": "Terms", "text": "All of our terms. " * 2000}
    house.accept(intent(customer("ada")), intent(customer("bob"), content=long))
    assert house.run() == {"sent": 1, "rejected": 1}
    assert [one.recipients for one in house.sink.messages] == [("ada@example.com",)]
    [failed] = house.rows("SELECT reason FROM deliveries WHERE state = 'failed'")
    assert failed.reason == "body_too_big"
    assert because(failed.reason) == " (it is longer than its provider takes)"


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (EmailBody(b"Subject: \xc3\xa9\r\n\r\n"), 15),
        (TextBody("\u20ac5"), 4),
        (ChatBody("\u00e9", "<b>\u00e9</b>"), 11),
    ],
)
def test_a_body_knows_its_size(body: Body, size: int) -> None:
    assert body.size == size
