"""Twilio: what is asked of it, its codes, its signatures, its reports and what people text back."""

import hmac
import time
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from pydantic import ValidationError

from app.channels.contract import (
    Accepted,
    BadSignature,
    Blame,
    HookRequest,
    InboundMessage,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Retryable,
    UnreadableHook,
    Word,
)
from app.channels.registry import build_accounts
from app.channels.sms.twilio import TwilioProvider, TwilioSettings
from app.domain.vocabulary import Channel, EventType
from tests.contract.case import TwilioCase
from tests.contract.servers import Answer, ScriptedHttp

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
URL = "https://converge.example/hooks/texts"
ACCOUNT = "AC" + "0" * 32
SID = "SM00000000000000000000000000000002"
INBOUND = {
    "MessageSid": SID,
    "From": "+15550100",
    "To": "+15550101",
    "Body": "Where is it? Ünï & co+ ",
    "NumMedia": "0",
    "AccountSid": ACCOUNT,
}


def provider(token: str = "token", **settings: object) -> TwilioProvider:
    return TwilioProvider("texts", Channel.SMS, _settings(auth_token=token, **settings))


def _settings(**settings: object) -> TwilioSettings:
    least = {"account_sid": ACCOUNT, "auth_token": "token", "public_url": "https://c.example"}
    return TwilioSettings.model_validate({**least, **settings})


def _request(body: bytes, signature: str = "", url: str = URL) -> HookRequest:
    return HookRequest(body, {"x-twilio-signature": signature}, url, NOW)


def _form(fields: Any) -> bytes:
    return urlencode(fields).encode()


# Made with: printf %s "URL, names and values" | openssl dgst -sha1 -hmac TOKEN -binary | base64
SIGNED = "kTEGUSNEb4VTQt3ObHFXINLML+k="
SIGNED_BY_OTHER = "0i3iWgTxFmqv8EwGqXe7P1vmI+A="
SIGNED_WITH_443 = "GqLwFFQ1LSvl7Ste7wjBBkfFLoY="
SIGNED_WITH_8443 = "FndWSGB4NpDt9BQ5Bq3P1y9KD1s="


@pytest.mark.parametrize(
    ("signature", "token", "url"),
    [
        (SIGNED, "token", URL),
        (SIGNED_WITH_443, "token", URL),
        (SIGNED, "token", URL.replace(".example", ".example:8443")),
        (SIGNED_WITH_8443, "token", URL.replace(".example", ".example:8443")),
        (SIGNED, "new, token", URL),
        (SIGNED_BY_OTHER, "token,other", URL),
    ],
)
def test_what_twilio_signed_is_taken(signature: str, token: str, url: str) -> None:
    for fields in (INBOUND, dict(reversed(INBOUND.items()))):
        provider(token).verify(_request(_form(fields), signature, url))


def test_twilios_own_examples_of_signatures_are_taken() -> None:
    """The figures that twilio-python's tests of its validator have."""
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    twice = b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234"
    provider("12345").verify(_request(twice, "IK+Dwps556ElfBT0I3Rgjkr1wJU=", url))
    json = b'{"property": "value", "boolean": true}'
    url += "&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
    provider("12345").verify(_request(json, "a9nBmqA0ju/hNViExpshrM61xv4=", url))
    with pytest.raises(BadSignature, match="not the one"):
        provider("12345").verify(_request(json + b" ", "a9nBmqA0ju/hNViExpshrM61xv4=", url))


@pytest.mark.parametrize(
    ("public_url", "url", "taken"),
    [
        ("https://converge.example", "https://internal.example/hooks/texts", True),
        ("https://converge.example/", "https://internal.example/prefix/hooks/texts", True),
        ("https://internal.example", "https://internal.example/hooks/texts", False),
        ("", "https://internal.example/hooks/texts", False),
    ],
)
def test_what_is_signed_for_the_address_that_texts_name_is_taken(
    public_url: str, url: str, taken: bool
) -> None:
    request = _request(_form(INBOUND), SIGNED, url)
    if taken:
        provider(public_url=public_url).verify(request)
        return
    with pytest.raises(BadSignature):
        provider(public_url=public_url).verify(request)


@pytest.mark.parametrize("query", ["", "?a=1"])
def test_the_whole_of_that_address_is_signed(query: str) -> None:
    called = f"https://c.example/hooks/texts/17{query}"
    text = called + "".join(name + INBOUND[name] for name in sorted(INBOUND))
    signature = b64encode(hmac.digest(b"token", text.encode(), "sha1")).decode()
    request = _request(_form(INBOUND), signature, f"http://internal:8000/hooks/texts/17{query}")
    provider().verify(replace(request, path="/17"))
    with pytest.raises(BadSignature):
        provider().verify(replace(request, path="/18"))


@pytest.mark.parametrize(
    ("body", "signature", "url"),
    [
        (_form(INBOUND), "", URL),
        (_form(INBOUND), "é", URL),
        (_form(INBOUND), SIGNED[:-1], URL),
        (_form(INBOUND), SIGNED.lower(), URL),
        (_form(INBOUND), SIGNED_BY_OTHER, URL),
        (_form(INBOUND), SIGNED_WITH_8443, URL),
        (_form(INBOUND), SIGNED, f"{URL}?more=1"),
        (_form(INBOUND), SIGNED, URL.replace("texts", "others")),
        (_form(INBOUND), SIGNED, f"{URL}?bodySHA256="),
        (_form({**INBOUND, "Body": "Something else"}), SIGNED, URL),
        (_form({**INBOUND, "More": ""}), SIGNED, URL),
        (_form({name: value for name, value in INBOUND.items() if name != "To"}), SIGNED, URL),
        (b"<html><body>Hello</body></html>", SIGNED, URL),
        (b'{"MessageSid": "SM1"}', SIGNED, URL),
        (b"Body=%ff", SIGNED, URL),
        (b"Body=\xff", SIGNED, URL),
        (b"&".join(b"a=%d" % n for n in range(1000)), SIGNED, URL),
    ],
)
def test_anything_else_is_refused(body: bytes, signature: str, url: str) -> None:
    with pytest.raises(BadSignature):
        provider().verify(_request(body, signature, url))


def test_a_request_without_a_signature_is_refused() -> None:
    with pytest.raises(BadSignature):
        provider().verify(HookRequest(_form(INBOUND), {}, URL, NOW))


def test_what_somebody_texts_is_a_message() -> None:
    expected = InboundMessage(SID, "+15550100", "+15550101", INBOUND["Body"], NOW)
    assert provider().read(_request(_form(INBOUND))) == [expected]
    without_text = {**INBOUND, "Body": "", "NumMedia": "1"}
    [read] = provider().read(_request(_form(without_text)))
    assert isinstance(read, InboundMessage)
    assert read.text == ""


@pytest.mark.parametrize(
    ("kind", "word"),
    [("STOP", Word.STOP), ("START", Word.START), ("HELP", Word.HELP), ("", None), ("NEW", None)],
)
def test_what_twilio_answered_itself_says_so(kind: str, word: Word | None) -> None:
    [read] = provider().read(_request(_form({**INBOUND, "Body": "Adieu", "OptOutType": kind})))
    assert isinstance(read, InboundMessage)
    assert (read.text, read.answered) == ("Adieu", word)


def _status(status: str, code: str | None = None, **more: str) -> bytes:
    fields = {"MessageSid": SID, "MessageStatus": status, "To": "+15550100", **more}
    return _form(fields if code is None else {**fields, "ErrorCode": code})


@pytest.mark.parametrize(
    ("status", "code", "event", "reason"),
    [
        ("delivered", None, EventType.DELIVERED, None),
        ("read", None, EventType.READ, None),
        ("undelivered", "30005", EventType.BOUNCED, "twilio_30005"),
        ("undelivered", "30006", EventType.BOUNCED, "twilio_30006"),
        ("failed", "21610", EventType.FAILED, "twilio_21610"),
        ("failed", "21635", EventType.BOUNCED, "twilio_21635"),
        ("undelivered", "30003", EventType.FAILED, "twilio_30003"),
        ("undelivered", "30007", EventType.FAILED, "twilio_30007"),
        ("undelivered", "30008", EventType.FAILED, "twilio_30008"),
        ("failed", "30001", EventType.FAILED, "twilio_30001"),
        ("failed", "30002", EventType.FAILED, "twilio_30002"),
        ("failed", None, EventType.FAILED, "twilio_failed"),
        ("undelivered", "+15550100", EventType.FAILED, "twilio_undelivered"),
        ("canceled", None, EventType.FAILED, "twilio_canceled"),
    ],
)
def test_a_report_is_a_receipt(
    status: str, code: str | None, event: EventType, reason: str | None
) -> None:
    detail = {"reason": reason} if reason else {}
    opted_out = code == "21610"
    expected = Receipt(f"{SID}:{status}", SID, event, NOW, detail, opted_out=opted_out)
    assert provider().read(_request(_status(status, code))) == [expected]


@pytest.mark.parametrize(
    ("path", "number"), [("/17", 17), ("", None), ("/x", None), ("/1/2", None), ("/\u0661", None)]
)
def test_a_report_names_the_text_by_where_it_comes(path: str, number: int | None) -> None:
    request = replace(_request(_status("delivered")), path=path)
    [receipt] = provider().read(request)
    assert isinstance(receipt, Receipt)
    assert receipt.delivery_id == number


@pytest.mark.parametrize("status", ["accepted", "scheduled", "queued", "sending", "sent"])
def test_what_is_on_its_way_says_only_that_twilio_has_it(status: str) -> None:
    assert provider().read(_request(_status(status))) == []
    told = provider().read(replace(_request(_status(status)), path="/17"))
    assert told == [Receipt(f"{SID}:{status}", SID, EventType.ACCEPTED, NOW, delivery_id=17)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no MessageSid"),
        (b"<html><body>Hello</body></html>", "no MessageSid"),
        (b'{"MessageSid": "SM1", "MessageStatus": "sent"}', "no MessageSid"),
        (b"MessageSid=&MessageStatus=sent", "MessageSid is empty"),
        (b"MessageSid=%ff", "not a form"),
        (b"MessageSid=\xff", "not a form"),
        (b"&".join(b"a=%d" % n for n in range(1000)), "not a form"),
        (_status("eaten"), "a MessageStatus that is not known"),
        (_status(""), "a MessageStatus that is not known"),
        (_form({"MessageSid": SID, "From": "+15550100", "To": "+15550101"}), "no Body"),
        (_form({"MessageSid": SID, "Body": "Hello"}), "no From"),
    ],
)
def test_what_is_neither_says_why(body: bytes, problem: str) -> None:
    with pytest.raises(UnreadableHook, match=f"^{problem}$"):
        provider().read(_request(body))


def test_a_report_without_a_status_is_no_message_without_a_body() -> None:
    request = replace(_request(_form({"MessageSid": SID, "From": "+15550100"})), path="/17")
    with pytest.raises(UnreadableHook, match=r"^no MessageStatus$"):
        provider().read(request)


ERRORS = [
    (400, 21211, Rejected("twilio_21211", Blame.RECIPIENT)),
    (400, 21610, Rejected("twilio_21610", Blame.OPTED_OUT)),
    (400, 21614, Rejected("twilio_21614", Blame.RECIPIENT)),
    (400, 21635, Rejected("twilio_21635", Blame.RECIPIENT)),
    (401, 20003, Rejected("twilio_20003", Blame.ACCOUNT)),
    (404, 20404, Rejected("twilio_20404", Blame.ACCOUNT)),
    (400, 21609, Rejected("twilio_21609", Blame.ACCOUNT)),
    (400, 21408, Rejected("twilio_21408", Blame.CONTENT)),
    (400, 21617, Rejected("twilio_21617", Blame.CONTENT)),
    (400, 21606, Rejected("twilio_21606", Blame.CONTENT)),
    (400, 99999, Rejected("twilio_99999", Blame.CONTENT)),
    (403, 99999, Rejected("twilio_99999", Blame.ACCOUNT)),
    (429, 99999, RateLimited(7.0, "twilio_99999")),
    (400, 12345678, Rejected("http_400", Blame.CONTENT)),
    (503, 99999, RateLimited(7.0, "http_503")),
    (429, 21611, RateLimited(60.0, "twilio_21611")),
    (429, 20429, RateLimited(7.0, "http_429")),
    (400, 20429, RateLimited(5.0, "twilio_20429")),
    (400, 30003, Retryable("twilio_30003", Blame.RECIPIENT)),
    (400, 30007, Rejected("twilio_30007", Blame.CONTENT)),
    (409, 20409, Rejected("http_409", Blame.CONTENT)),
]


@pytest.mark.parametrize(("status", "code", "expected"), ERRORS)
def test_an_error_is_what_its_code_says(status: int, code: int, expected: Outcome) -> None:
    body = b'{"code": %d, "message": "Told", "more_info": "", "status": %d}' % (code, status)
    answer = Answer(status, body, {"Retry-After": "7"})
    with ScriptedHttp(lambda _request: answer).running() as server:
        made = provider(url=server.url)
        [outcome] = made.send([TwilioCase().message(1)], time.monotonic() + 20)
        made.close()
    assert outcome == expected


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({}, {"From": "+15550101"}),
        ({"from_number": "+15550102"}, {"From": "+15550102"}),
        ({"messaging_service": "MG" + "1" * 32}, {"MessagingServiceSid": "MG" + "1" * 32}),
        (
            {"messaging_service": "MG" + "1" * 32, "from_number": "+15550102"},
            {"MessagingServiceSid": "MG" + "1" * 32, "From": "+15550102"},
        ),
        ({"api_key": "SK" + "2" * 32, "api_secret": "word"}, {"From": "+15550101"}),
        ({"public_url": ""}, {"From": "+15550101", "StatusCallback": None}),
    ],
)
def test_a_text_asks_for_its_reports(settings: dict[str, object], form: dict[str, object]) -> None:
    with ScriptedHttp(lambda _request: Answer(201, b'{"sid": "SM1"}')).running() as server:
        made = provider(url=server.url, **settings)
        [outcome] = made.send([TwilioCase().message(1)], time.monotonic() + 20)
        made.close()
    assert outcome == Accepted("SM1")
    [request] = server.requests
    assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    sent = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    least = {
        "To": "+15550100",
        "Body": "Order 991 is on its way",
        "StatusCallback": "https://c.example/hooks/texts/1",
    }
    assert sent == {name: value for name, value in {**least, **form}.items() if value}
    user = settings.get("api_key", ACCOUNT)
    assert _user(request.headers["authorization"]) == user


def _user(header: str) -> str:
    return b64decode(header.removeprefix("Basic ")).decode().partition(":")[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"account_sid": "AC1"},
        {"auth_token": " , "},
        {"api_key": "SK" + "2" * 32},
        {"api_secret": "word"},
        {"public_url": "converge.example"},
        {"messaging_service": "MG"},
        {"more": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _settings(**settings)


def test_an_account_knows_where_it_is_reported_to() -> None:
    table: dict[str, object] = {
        "channel": "sms",
        "provider": "twilio",
        "account_sid": ACCOUNT,
        "auth_token": "env:TOKEN",
        "public_url": "env:CONVERGE_PUBLIC_URL",
    }
    environment = {"TOKEN": "token", "CONVERGE_PUBLIC_URL": "https://converge.example"}
    account = build_accounts({"texts": table}, environment)["texts"]
    assert isinstance(account.provider, TwilioProvider)
    request = account.provider.build(TwilioCase().message(1))
    assert b"StatusCallback=https%3A%2F%2Fconverge.example%2Fhooks%2Ftexts%2F1" in request.body
