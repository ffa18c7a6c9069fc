"""What networks say for people, and words in chats: from the webhook to what goes out."""

from dataclasses import replace

import pytest

from app.channels.contract import Blame, Rejected
from app.channels.registry import build_accounts
from app.store.inbox import Arrival, keep_arrivals
from app.usecases.hearing.feedback import read_feedback
from tests.store.conftest import House, intent
from tests.store.test_feedback_reports import PHONE, read, report
from tests.store.test_opting import (
    OTHER,
    STOPPED,
    Texts,
    consents,
    events,
    says,
    send,
    texting,
    texts,
)

__all__ = ["texting", "texts"]


def test_who_opted_out_at_the_provider_is_spared_and_reached_otherwise(
    texting: House, texts: Texts
) -> None:
    texts.refusal = Rejected("twilio_21610", Blame.OPTED_OUT)
    counts = send(texting, key="2")
    assert counts["rejected"] == 1
    texting.run()
    [row] = texting.rows("SELECT state, reason FROM deliveries WHERE reason IS NOT NULL")
    assert tuple(row) == ("failed", "twilio_21610")
    assert consents(texting) == [("ada", "sms", None, None, False, "provider")]
    [endpoint] = texting.rows("SELECT state FROM endpoints WHERE channel = 'sms'")
    assert endpoint.state == "active"
    assert [one.recipients for one in texting.sink.messages] == [("ada@example.com",)]
    texts.refusal = None
    says(texting, "START", "IN1")
    assert send(texting, policy="sms-only", key="3")["sent"] == 1


@pytest.mark.parametrize("phone", [PHONE, OTHER])
def test_a_network_that_answered_stop_itself_leaves_no_dead_letter(
    texting: House, texts: Texts, phone: str
) -> None:
    texts.refusal = Rejected("twilio_21610", Blame.OPTED_OUT)
    says(texting, "STOP", "IN1", phone)
    texting.run()
    [row] = texting.rows(
        "SELECT d.state, d.reason, a.outcome FROM deliveries d JOIN attempts a"
        " ON a.delivery_id = d.id JOIN intents i ON i.id = d.intent_id WHERE i.key LIKE '(answer)%'"
    )
    assert tuple(row) == ("cancelled", "twilio_21610", "rejected")
    texting.execute(
        "UPDATE intents SET expires_at = now(), decide_at = now()"
        " WHERE key LIKE '(answer)%' AND state = 'open'"
    )
    texting.run()
    rows = texting.rows("SELECT state FROM intents WHERE key LIKE '(answer)%'")
    assert [one.state for one in rows] == ["exhausted" if phone == PHONE else "expired"]
    assert "failed" not in texting.states()


def test_who_is_reported_as_opted_out_is_spared(texting: House, texts: Texts) -> None:
    for _ in range(2):
        read(texting, report("SM1", "failed", "21610"))
    texting.work()
    texting.run()
    assert consents(texting) == [("ada", "sms", None, None, False, "provider")]
    assert events(texting) == ["failed"]
    [endpoint] = texting.rows("SELECT state FROM endpoints WHERE channel = 'sms'")
    assert endpoint.state == "active"
    assert [one.recipients for one in texting.sink.messages] == [("ada@example.com",)]


def test_a_stop_in_a_chat_is_heard_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = Texts()
    accounts = build_accounts(
        {
            "rooms": {
                "channel": "chat",
                "provider": "matrix",
                "url": "http://127.0.0.1:9",
                "user": "@converge:example.org",
                "as_token": "one",
                "hs_token": "two",
                "room_secret": "a secret of rooms",
            }
        },
        {},
    )
    monkeypatch.setattr(accounts["rooms"].provider, "send", chats.send)
    chatting = replace(
        house, runtime=replace(house.runtime, accounts=house.runtime.accounts | accounts)
    )
    chatting.accept(intent({"ref": "ada", "chat": "matrix:@ada:example.org"}, policy="notify"))
    chatting.run()
    body = (
        b'{"events": [{"type": "m.room.message", "event_id": "$1", "sender": "@ada:example.org",'
        b' "origin_server_ts": 99999999999999, "content": {"msgtype": "m.text", "body": "STOP"}}]}'
    )
    with chatting.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival("rooms", "1", body)])
    read_feedback(chatting.runtime)
    chatting.work()
    assert consents(chatting) == [("ada", "chat", None, None, False, "text")]
    assert [text for _, text in chats.said[1:]] == [STOPPED]
