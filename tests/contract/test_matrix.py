"""Matrix: rooms, their mishaps, its error codes, and what the homeserver pushes."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.channels.chat import matrix
from app.channels.chat.matrix import MatrixProvider, MatrixSettings
from app.channels.contract import (
    Accepted,
    Ambiguous,
    BadSignature,
    Blame,
    ChatBody,
    HookRequest,
    InboundMessage,
    Message,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Retryable,
    TextBody,
    UnreadableHook,
)
from app.domain.vocabulary import Channel, EventType
from tests.contract.case import MatrixCase, Situation
from tests.contract.homeserver import Homeserver, error
from tests.contract.servers import Answer, Request, ScriptedHttp

ADA = "@ada:example.org"
US = "@converge:example.org"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000) - 5000
AT = datetime(2026, 3, 1, 11, 59, 55, tzinfo=UTC)


def _message(number: int = 1, user: str = ADA) -> Message:
    body = ChatBody("Order 991", "<p>Order <b>991</b></p>")
    return Message(number, f"converge-{number}", user, "Store", body, "matrix")


def _provider(url: str, account: str = "account", **own: object) -> MatrixProvider:
    settings = MatrixSettings.model_validate({**MatrixCase().settings(url), **own})
    return MatrixProvider(account, Channel.CHAT, settings)


@contextmanager
def _at(
    answer: Callable[[Request], Answer], **own: object
) -> Iterator[tuple[ScriptedHttp, MatrixProvider]]:
    with ScriptedHttp(answer).running() as server:
        provider = _provider(server.url, **own)
        try:
            yield server, provider
        finally:
            provider.close()


def _send(provider: MatrixProvider, *messages: Message, seconds: float = 20) -> list[Outcome]:
    return provider.send(messages, time.monotonic() + seconds)


def _asked(server: ScriptedHttp) -> list[str]:
    return [
        f"{one.method} {one.path.removeprefix('/_matrix/client/v3/').split('/')[0]}"
        f"{'/send' * ('/send/' in one.path)}{'/invite' * one.path.endswith('/invite')}"
        for one in server.requests
    ]


NEW = ["GET directory", "GET profile", "POST createRoom", "PUT rooms/send"]
FOUND = ["GET directory", "GET rooms", "PUT rooms/send"]
LEFT = ["GET directory", "GET rooms", "POST rooms/invite", "PUT rooms/send"]


def test_a_room_is_made_once_and_then_known() -> None:
    home = Homeserver()
    with _at(home.answer) as (server, provider):
        assert _send(provider, _message()) == [Accepted("$room0-converge-1")]
        assert _send(provider, _message(2)) == [Accepted("$room0-converge-2")]
        assert _asked(server) == [*NEW, "PUT rooms/send"]
    [made] = home.created
    assert made["invite"] == [ADA]
    assert made["preset"] == "private_chat"
    assert made["power_level_content_override"] == {"invite": 100}
    assert made["is_direct"] is True
    assert home.events["$room0-converge-1"] == (
        "!room0",
        {
            "msgtype": "m.text",
            "body": "Order 991",
            "format": "org.matrix.custom.html",
            "formatted_body": "<p>Order <b>991</b></p>",
        },
    )


def test_another_process_finds_the_room() -> None:
    home = Homeserver()
    with _at(home.answer) as (_, provider):
        _send(provider, _message())
    with _at(home.answer) as (server, provider):
        assert _send(provider, _message(2)) == [Accepted("$room0-converge-2")]
        assert _asked(server) == FOUND


def test_an_alias_tells_nothing_and_is_of_account_customer_and_secret() -> None:
    home = Homeserver()
    others: list[dict[str, Any]] = [{}, {"account": "b"}, {"room_secret": "another secret here"}]
    with ScriptedHttp(home.answer).running() as server:
        for own in others:
            provider = _provider(server.url, **own)
            _send(provider, _message(), _message(2, "@bob:example.net"))
            provider.close()
    names = [one["room_alias_name"] for one in home.created]
    assert len(set(names)) == 6
    for name in names:
        prefix, _, digest = name.partition("_")
        assert (prefix, len(digest)) == ("converge", 40)
        assert int(digest, 16)


@pytest.mark.parametrize("membership", ["leave", "knock", None])
def test_who_left_is_asked_back_once(membership: str | None) -> None:
    home = Homeserver()
    with _at(home.answer) as (_, provider):
        _send(provider, _message())
    home.members["!room0"] = {ADA: membership} if membership else {}
    with _at(home.answer) as (server, provider):
        assert _send(provider, _message(2)) == [Accepted("$room0-converge-2")]
        _send(provider, _message(3))
        assert _asked(server) == [*LEFT, "PUT rooms/send"]
    assert home.members["!room0"] == {ADA: "invite"}


def test_whether_they_left_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "ROOM_KNOWN_S", 0.0)
    home = Homeserver()
    with _at(home.answer) as (server, provider):
        for number in range(3):
            _send(provider, _message(number))
        assert _asked(server) == [*NEW, *FOUND, *FOUND]


def test_what_is_known_of_rooms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "ROOMS_KNOWN", 2)
    with _at(Homeserver().answer) as (server, provider):
        for number, name in enumerate(["a", "b", "c", "c", "b", "a"]):
            _send(provider, _message(number, f"@{name}:example.org"))
        assert _asked(server) == [*NEW * 3, "PUT rooms/send", "PUT rooms/send", *FOUND]


def test_many_at_once_come_to_one_room() -> None:
    home = Homeserver()
    together = threading.Barrier(20, timeout=30)

    def answer(request: Request) -> Answer:
        reply = home.answer(request)
        if "/directory/" in request.path and reply.status == 404:
            together.wait()  # nobody finds a room before everybody has found none
        return reply

    with _at(answer) as (_, provider):
        outcomes = _send(provider, *[_message(number) for number in range(20)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    assert len(home.created) == 1
    assert {room for room, _ in home.events.values()} == {"!room0"}


@pytest.mark.parametrize("reply", [error(400, "M_ROOM_IN_USE"), Answer(409)])
def test_a_name_that_is_taken_and_never_found_is_for_later(reply: Answer) -> None:
    home = Homeserver()

    def answer(request: Request) -> Answer:
        return reply if "createRoom" in request.path else home.answer(request)

    with _at(answer) as (server, provider):
        assert _send(provider, _message()) == [Retryable("matrix_room_contended")]
        assert len(server.requests) == 4


def test_a_repeat_is_the_same_event() -> None:
    home = Homeserver()
    with _at(home.answer, device="BOT 1") as (server, provider):
        assert _send(provider, _message()) == _send(provider, _message())
        assert {one.path.partition("?")[2] for one in server.requests[-2:]} == {
            "user_id=%40converge%3Aexample.org&device_id=BOT%201"
        }
    assert len(home.events) == 1


STAGES = ["directory/room/", "/m.room.member/", "/invite", "profile/", "createRoom"]


@contextmanager
def _with_trouble(
    stage: str, reply: Answer, **own: object
) -> Iterator[tuple[Homeserver, MatrixProvider]]:
    """A homeserver that answers one kind of request in its own way."""
    home = Homeserver()
    if stage in {"/m.room.member/", "/invite"}:
        with _at(home.answer) as (_, provider):
            _send(provider, _message())
        home.members["!room0"] = {ADA: "leave"}
        home.events.clear()

    def answer(request: Request) -> Answer:
        return reply if stage in request.path else home.answer(request)

    with _at(answer, **own) as (_, provider):
        yield home, provider


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("situation", Situation, ids=lambda s: s.name)
def test_trouble_with_a_room_is_never_ambiguous(stage: str, situation: Situation) -> None:
    case = MatrixCase()
    if situation in {
        Situation.ACCEPTS,
        Situation.REFUSES_BAD_RECIPIENT,
        Situation.NOT_THERE,
        Situation.WRONG_CREDENTIALS,
    }:
        return  # none with a room
    case.yes = lambda _: Answer(body=b'{"room_id": "!room0"}')  # type: ignore[method-assign]
    asked = Request("GET", "/send/", {"authorization": "Bearer right"}, b"")
    reply = case.answer(situation, asked)
    most_s = 0.3 if reply.how in {"hang", "drip_head", "drip_body"} else 20.0
    with _with_trouble(stage, reply, read_timeout=most_s, total_timeout=most_s) as (home, provider):
        [outcome] = _send(provider, _message())
    if stage == "profile/" and situation in {Situation.FORBIDDEN, Situation.UNREADABLE}:
        assert isinstance(outcome, Accepted)  # the profile itself is of no interest
        return
    if stage == "/invite" and situation is Situation.UNREADABLE:
        assert isinstance(outcome, Accepted)  # nor what an invitation answers
        return
    assert isinstance(outcome, Retryable | RateLimited | Rejected), outcome
    if situation in {Situation.FORBIDDEN}:
        assert outcome == Rejected("http_403", Blame.ACCOUNT)
    elif situation is not Situation.TOO_BIG:
        assert not isinstance(outcome, Rejected), outcome
    assert not home.events


@pytest.mark.parametrize(
    ("stage", "status", "code", "expected"),
    [
        ("profile/", 404, "M_NOT_FOUND", Rejected("matrix_no_such_user", Blame.RECIPIENT)),
        ("profile/", 400, "M_INVALID_PARAM", Rejected("matrix_no_such_user", Blame.RECIPIENT)),
        ("profile/", 401, "M_UNKNOWN_TOKEN", Rejected("matrix_unknown_token", Blame.ACCOUNT)),
        ("profile/", 502, "M_UNKNOWN", Retryable("http_502")),
        ("createRoom", 403, "M_FORBIDDEN", Rejected("matrix_may_make_no_rooms", Blame.ACCOUNT)),
        ("createRoom", 400, "M_EXCLUSIVE", Rejected("matrix_exclusive", Blame.ACCOUNT)),
        ("/invite", 403, "M_INVITE_BLOCKED", Rejected("matrix_invite_blocked", Blame.RECIPIENT)),
        ("/invite", 403, "M_FORBIDDEN", Rejected("matrix_invite_refused", Blame.CONTENT)),
        ("/m.room.member/", 403, "M_FORBIDDEN", Retryable("matrix_room_forbids", Blame.RECIPIENT)),
        ("directory/room/", 404, "M_UNRECOGNIZED", Rejected("matrix_unrecognized", Blame.ACCOUNT)),
        (
            "directory/room/",
            401,
            "M_MISSING_TOKEN",
            Rejected("matrix_missing_token", Blame.ACCOUNT),
        ),
        ("/send/", 403, "M_FORBIDDEN", Retryable("matrix_room_forbids", Blame.RECIPIENT)),
        ("/send/", 404, "M_NOT_FOUND", Retryable("matrix_room_gone", Blame.RECIPIENT)),
        ("/send/", 413, "M_TOO_LARGE", Rejected("matrix_too_large", Blame.CONTENT)),
        ("/send/", 401, "M_UNKNOWN_TOKEN", Rejected("matrix_unknown_token", Blame.ACCOUNT)),
        ("/send/", 403, "M_USER_DEACTIVATED", Rejected("matrix_user_deactivated", Blame.ACCOUNT)),
        ("/send/", 400, "M_UNKNOWN_DEVICE", Rejected("matrix_unknown_device", Blame.ACCOUNT)),
        ("/send/", 400, "M_BAD_JSON", Rejected("http_400", Blame.CONTENT)),
        ("/send/", 500, "M_UNKNOWN", Retryable("http_500")),
        ("/send/", 502, "M_UNKNOWN", Ambiguous("http_502")),
    ],
)
def test_error_codes(stage: str, status: int, code: str, expected: Outcome) -> None:
    with _with_trouble(stage, error(status, code)) as (home, provider):
        assert _send(provider, _message()) == [expected]
    assert not home.events


EVE = "@eve:elsewhere.example"


def test_whom_nobody_may_invite_closes_no_account() -> None:
    """Homeservers make the room, then invite, and answer with what came of that."""
    home = Homeserver()

    def answer(request: Request) -> Answer:
        if EVE.encode() not in request.body:
            return home.answer(request)
        if request.path.endswith("/createRoom"):
            home.answer(request)
            home.members[home.rooms[next(reversed(home.rooms))]] = {}
        return error(403, "M_FORBIDDEN")

    with _at(answer) as (_, provider):
        refused = Rejected("matrix_invite_refused", Blame.CONTENT)
        for number in range(2):
            assert _send(provider, _message(number, EVE)) == [refused]
        assert _send(provider, _message(3)) == [Accepted("$room1-converge-3")]


def test_who_comes_in_while_they_are_invited_is_in() -> None:
    home = Homeserver()

    def answer(request: Request) -> Answer:
        if request.path.endswith("/invite"):
            home.members["!room0"] = {ADA: "join"}
            return error(403, "M_FORBIDDEN")
        return home.answer(request)

    with _at(answer) as (_, provider):
        _send(provider, _message())
    home.members["!room0"] = {ADA: "leave"}
    with _at(answer) as (_, provider):
        assert _send(provider, _message(2)) == [Accepted("$room0-converge-2")]


@pytest.mark.parametrize("stage", [*STAGES, "/send/"])
@pytest.mark.parametrize(
    ("more", "headers", "seconds"),
    [
        ({"retry_after_ms": 2500}, {}, 2.5),
        ({"retry_after_ms": 2500}, {"Retry-After": "3"}, 3.0),
        ({"retry_after_ms": -1}, {}, 0.0),
        ({"retry_after_ms": 1e18}, {}, 86_400.0),
        ({"retry_after_ms": None}, {}, 5.0),
        ({}, {}, 5.0),
    ],
)
def test_too_fast(
    stage: str, more: dict[str, Any], headers: dict[str, str], seconds: float
) -> None:
    reply = replace(error(429, "M_LIMIT_EXCEEDED", **more), headers=headers)
    with _with_trouble(stage, reply) as (_, provider):
        [outcome] = _send(provider, _message())
    assert isinstance(outcome, RateLimited)
    assert outcome.retry_after == seconds


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
@pytest.mark.parametrize("stage", [*STAGES, "/send/"])
def test_replies_out_of_shape_are_outcomes_too(stage: str, status: int) -> None:
    for body in (b"[]", b'"no"', b"5", b"{}", b'{"errcode": 7}', b"\xff"):
        with _with_trouble(stage, Answer(status, body)) as (_, provider):
            assert len(_send(provider, _message())) == 1


# What the homeserver pushes.


def _request(document: Any, token: str | None = "Bearer theirs") -> HookRequest:
    headers = {} if token is None else {"authorization": token}
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return HookRequest(body, headers, "http://127.0.0.1:1/hooks/account", NOW, "PUT")


@pytest.fixture(scope="module")
def reader() -> MatrixProvider:
    return _provider("http://127.0.0.1:1")


def test_the_homeserver_is_known_by_its_token(reader: MatrixProvider) -> None:
    reader.verify(_request({}))
    assert reader.answer(_request({})) == b"{}"


@pytest.mark.parametrize("token", [None, "", "Bearer ", "Bearer their", "theirs", "Bearer théirs"])
def test_nobody_else_is(reader: MatrixProvider, token: str | None) -> None:
    with pytest.raises(BadSignature):
        reader.verify(_request({}, token))


def _event(content: Any, **more: Any) -> dict[str, Any]:
    event = {
        "type": "m.room.message",
        "event_id": "$one",
        "room_id": "!room0",
        "sender": ADA,
        "origin_server_ts": MS,
        "content": content,
    }
    return {**event, **more}


def _text(body: str = "Thanks!", **more: Any) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": body, **more}


def _inbound(text: str = "Thanks!", ref: str | None = None, at: datetime = AT) -> InboundMessage:
    return InboundMessage("$one", ADA, US, text, at, "matrix", ref)


REPLY = {"m.in_reply_to": {"event_id": "$ours"}}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (_event(_text()), _inbound()),
        (
            _event({"msgtype": "m.image", "body": "cat.png", "url": "mxc://x/y"}),
            _inbound("cat.png"),
        ),
        (_event(_text(**{"m.relates_to": REPLY})), _inbound(ref="$ours")),
        (
            _event(_text("> <@us> Order\n> 991\n\nThanks!", **{"m.relates_to": REPLY})),
            _inbound(ref="$ours"),
        ),
        (_event(_text("> my own quote\n\nThanks!")), _inbound("> my own quote\n\nThanks!")),
        (
            _event(
                _text(
                    **{
                        "m.relates_to": {
                            "rel_type": "m.thread",
                            "event_id": "$ours",
                            "is_falling_back": True,
                            "m.in_reply_to": {"event_id": "$last"},
                        }
                    }
                )
            ),
            _inbound(ref="$ours"),
        ),
        (
            _event(
                _text(
                    "* No thanks",
                    **{
                        "m.new_content": _text("No thanks"),
                        "m.relates_to": {"rel_type": "m.replace", "event_id": "$before"},
                    },
                )
            ),
            _inbound("No thanks"),
        ),
        (_event(_text(**{"m.relates_to": "x"})), _inbound()),
        (_event(_text(**{"m.relates_to": {"m.in_reply_to": {"event_id": "\0"}}})), _inbound()),
        (_event(_text(), origin_server_ts=MS + 10**9), _inbound(at=NOW)),
        (_event(_text(), origin_server_ts=10**30), _inbound(at=NOW)),
        (_event(_text(), origin_server_ts="soon"), _inbound(at=NOW)),
        (_event(_text(), sender=US), None),
        (_event({"msgtype": "m.notice", "body": "I am a bot"}), None),
        (_event(_text(), type="m.room.encrypted"), None),
        (_event(_text(), event_id="one"), None),
        (_event(_text(), event_id="$o\0ne"), None),
        (_event(_text(), sender=5), None),
        (_event({"msgtype": "m.text", "body": 5}), None),
        (_event({}), None),
        (_event([]), None),
        ("no event", None),
        (None, None),
        ([], None),
    ],
)
def test_messages(reader: MatrixProvider, event: Any, expected: InboundMessage | None) -> None:
    after = _event(_text(), event_id="$two")
    told = reader.read(_request({"events": [event, after]}))
    follows = replace(_inbound(), external_id="$two")
    assert told == ([expected, follows] if expected else [follows])


def _receipt(event_id: str = "$ours", everything: bool = True, at: datetime = AT) -> Receipt:
    return Receipt(
        f"{event_id}:read", event_id, EventType.READ, at, read_up_to=everything, recipient=ADA
    )


def _read(content: Any) -> dict[str, Any]:
    return {"type": "m.receipt", "room_id": "!room0", "content": content}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (_read({"$ours": {"m.read": {ADA: {"ts": MS}}}}), [_receipt()]),
        (_read({"$ours": {"m.read": {ADA: {"ts": MS, "thread_id": "main"}}}}), [_receipt()]),
        (
            _read({"$ours": {"m.read": {ADA: {"ts": MS, "thread_id": "$other"}}}}),
            [_receipt(everything=False)],
        ),
        (_read({"$ours": {"m.read": {ADA: {}}}}), [_receipt(at=NOW)]),
        (_read({"$ours": {"m.read": {US: {"ts": MS}}}}), []),
        (_read({"$ours": {"m.read": {US: {"ts": MS}, ADA: {"ts": MS}}}}), [_receipt()]),
        (
            _read({"$a": {"m.read": {ADA: {"ts": MS}}}, "$b": {"m.read": {ADA: {"ts": MS}}}}),
            [_receipt("$a"), _receipt("$b")],
        ),
        (_read({"$ours": {"m.read.private": {ADA: {"ts": MS}}}}), []),
        (_read({"ours": {"m.read": {ADA: {"ts": MS}}}}), []),
        (_read({"$ours": {"m.read": {ADA: 5}}}), []),
        (_read({"$ours": {"m.read": 5}}), []),
        (_read({"$ours": 5}), []),
        (_read(5), []),
        ({"type": "m.typing", "room_id": "!room0", "content": {"user_ids": [ADA]}}, []),
        ({"type": "m.presence", "sender": ADA, "content": {"presence": "online"}}, []),
        (5, []),
    ],
)
@pytest.mark.parametrize("name", ["ephemeral", "de.sorunome.msc2409.ephemeral"])
def test_what_was_read(
    reader: MatrixProvider, name: str, event: Any, expected: list[Receipt]
) -> None:
    after = _read({"$after": {"m.read": {ADA: {"ts": MS}}}})
    told = reader.read(_request({"events": [], name: [event, after]}))
    assert told == [*expected, _receipt("$after")]


def test_many_events_are_read_in_order_and_said_once(reader: MatrixProvider) -> None:
    passing = [_read({"$ours": {"m.read": {ADA: {"ts": MS}}}})]
    document = {
        "events": [_event(_text(), event_id=f"${number}") for number in range(1000)],
        "ephemeral": passing,
        "de.sorunome.msc2409.ephemeral": passing,
        "de.sorunome.msc2409.to_device": [],
    }
    told = reader.read(_request(document))
    assert [one.external_id for one in told] == [*[f"${n}" for n in range(1000)], "$ours:read"]


def test_a_ping_tells_nothing(reader: MatrixProvider) -> None:
    assert reader.read(_request({"transaction_id": "mautrix-1"})) == []
    assert reader.read(_request({})) == []


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"null", b'{"events": {}}', b'{"ephemeral": 5}', b'"events"']
)
def test_what_is_no_transaction(reader: MatrixProvider, body: bytes) -> None:
    with pytest.raises(UnreadableHook):
        reader.read(_request(body))


def test_settings_are_checked() -> None:
    good = MatrixCase().settings("http://127.0.0.1:1")
    assert MatrixSettings.model_validate(good)
    for wrong in ({"user": "converge"}, {"room_secret": "short"}, {"url": "example.org"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MatrixSettings.model_validate({**good, **wrong})


def test_it_speaks_chat_to_people_on_matrix_alone() -> None:
    with _at(Homeserver().answer) as (server, provider):
        text = _message()._replace(body=TextBody("Hi"))
        slack = _message()._replace(service="slack")
        mail = _message()._replace(recipient="ada@example.org")
        assert _send(provider, text, slack, mail) == [
            Rejected("http_request_unbuildable", Blame.CONTENT),
            Rejected("http_request_unbuildable", Blame.CONTENT),
            Rejected("matrix_user_id", Blame.RECIPIENT),
        ]
        assert not server.requests
