"""From an accepted intent to a mail handed over, seen, and escalated where it was not."""

from uuid import uuid4

import orjson

from app.store.inbox import TRACKING, Arrival, keep_arrivals
from app.usecases.deciding.decide import decide_intents
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.control import Operator, Target, pause
from tests.store.conftest import House, customer, intent

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def opened(house: House, delivery_id: int, agent: str = BROWSER) -> None:
    body = {
        "delivery": delivery_id,
        "event": "opened",
        "index": 0,
        "agent": agent,
        "ip": "127.0.0.1",
        "method": "GET",
    }
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival(TRACKING, uuid4().hex, orjson.dumps(body))])
    read_feedback(house.runtime)


def test_an_intent_becomes_a_mail(house: House) -> None:
    [verdict] = house.accept(intent(customer(), key="991"))
    assert verdict.status == "accepted", verdict
    assert house.run() == {"sent": 1}
    [envelope] = house.sink.messages
    assert envelope.recipients == ("ada@example.com",)
    assert b"991" in envelope.mime
    assert house.states() == {"sent": 1}
    [attempt] = house.rows("SELECT outcome, account, task_id FROM attempts")
    assert (attempt.outcome, attempt.account) == ("accepted", "relay")
    assert attempt.task_id is not None


def test_the_same_key_is_the_same_intent(house: House) -> None:
    document = intent(customer(), key="991")
    [first] = house.accept(document)
    again, other = house.accept(document, {**document, "campaign": "spring"})
    assert (again.status, again.id) == ("exists", first.id)
    assert (other.status, other.field) == ("conflict", "key")
    assert len(house.rows("SELECT FROM deliveries")) == 1


def test_an_open_stops_everything(house: House) -> None:
    house.accept(intent(customer(phone="+12025550101"), key="991"))
    house.run()
    house.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 minute'")
    [delivery] = house.rows("SELECT id FROM deliveries")
    opened(house, delivery.id)
    [row] = house.rows("SELECT state, seen_as, seen_delivery_id FROM intents")
    assert (row.state, row.seen_as, row.seen_delivery_id) == ("seen", "opened", delivery.id)
    assert house.states() == {"delivered": 1}
    house.execute("UPDATE deliveries SET due_at = now() WHERE due_at IS NOT NULL")
    house.run()
    assert house.states() == {"delivered": 1}


def test_what_was_not_opened_goes_to_the_next_channel(house: House) -> None:
    house.accept(intent(customer(phone="+12025550101"), key="991"))
    house.run()
    house.execute(
        "UPDATE deliveries SET handed_over_at = now() - interval '31 minutes', due_at = now()"
    )
    house.tick()
    house.work()
    rows = house.rows("SELECT step, channel, state FROM deliveries ORDER BY step")
    assert [tuple(row) for row in rows][:1] == [(0, "email", "sent")]
    assert [(row.step, row.channel) for row in rows][1:] == [(1, "sms")]
    decisions = house.rows("SELECT number, verdict, considered FROM decisions ORDER BY number")
    assert [row.verdict for row in decisions] == ["send", "send"]
    assert decisions[1].considered == [
        [1, "chat", "no_endpoint", None],
        [1, "sms", "chosen", decisions[1].considered[1][3]],
    ]


def test_to_wait_on_as_before_is_no_news(house: House) -> None:
    [verdict] = house.accept(intent(customer(phone="+12025550101"), key="991"))
    house.run()
    assert verdict.id is not None
    asked = [decide_intents(house.runtime, [verdict.id], "signal") for _ in range(3)]
    assert asked == [{"wait": 1}] * 3
    rows = house.rows("SELECT number, verdict, reason FROM decisions ORDER BY number")
    assert [tuple(row) for row in rows] == [(1, "send", ""), (2, "wait", "not_yet_unseen")]
    [clock] = house.rows("""
        SELECT d.due_at = d.handed_over_at + interval '30 minutes' AS runs,
               i.decide_at = i.expires_at AS to_the_end
          FROM deliveries d JOIN intents i ON i.id = d.intent_id""")
    assert (clock.runs, clock.to_the_end) == (True, True)


def test_a_pause_that_stops_a_clock_is_told_once(house: House) -> None:
    [verdict] = house.accept(intent(customer(phone="+12025550101"), key="991"))
    house.run()
    assert verdict.id is not None
    target = Target(channel="email")
    assert pause(house.runtime, target, Operator("me", "an outage"))
    house.execute("UPDATE pauses SET started_at = now() - interval '2 hours'")
    house.execute("UPDATE deliveries SET handed_over_at = now() - interval '2 hours'")
    for _ in range(3):
        assert decide_intents(house.runtime, [verdict.id]) == {"wait": 1}
    rows = house.rows("SELECT verdict, reason FROM decisions ORDER BY number")
    assert [tuple(row) for row in rows] == [("send", ""), ("wait", "not_yet_unseen")]
    [clock] = house.rows("SELECT due_at > now() AS runs FROM deliveries")
    assert clock.runs


def test_clocks_are_set_though_the_decision_is_as_before(house: House) -> None:
    house.accept(intent(customer(phone="+12025550101"), key="991"))
    house.run()
    [one] = house.rows("SELECT id FROM intents")
    decide_intents(house.runtime, [one.id])
    house.execute("UPDATE intents SET decide_at = now() - interval '1 minute'")
    house.execute("UPDATE deliveries SET due_at = now() - interval '1 minute'")
    house.run()
    house.execute("UPDATE intents SET decide_at = now() - interval '1 minute'")
    decide_intents(house.runtime, [one.id])
    [clock] = house.rows("""
        SELECT d.due_at = d.handed_over_at + interval '30 minutes' AS runs,
               i.decide_at = i.expires_at AS to_the_end
          FROM deliveries d JOIN intents i ON i.id = d.intent_id""")
    assert (clock.runs, clock.to_the_end) == (True, True)
    assert len(house.rows("SELECT FROM decisions")) == 2


def test_answers_by_mail_go_where_the_sender_says(house: House) -> None:
    house.accept(intent(customer("ada")))
    house.run()
    assert b"Reply-To:" not in house.sink.messages[-1].mime
    house.execute("""
        UPDATE senders SET settings = settings || '{"reply_to": "help@shop.example"}'
         WHERE name = 'store'""")
    house.runtime.catalog.forget()
    house.accept(intent(customer("bea")))
    house.run()
    assert b"\r\nReply-To: help@shop.example\r\n" in house.sink.messages[-1].mime
