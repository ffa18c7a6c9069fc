"""The HTTP base beyond the common contract."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.channels import http
from app.channels.contract import (
    Accepted,
    Ambiguous,
    Blame,
    Message,
    Outcome,
    RateLimited,
    Rejected,
    Retryable,
    TextBody,
)
from app.channels.http import (
    LONGEST_RETRY_AFTER,
    HttpRequest,
    outcome_of_status,
    retry_after,
)
from app.channels.sandbox import SandboxProvider, SandboxSettings
from app.domain.vocabulary import Channel
from tests.contract.servers import Answer, Request, ScriptedHttp, refusing_port

TAKEN = Answer(body=b'{"ref": "r"}')


@contextmanager
def _vendor(
    answer: Callable[[Request], Answer], **own: object
) -> Iterator[tuple[ScriptedHttp, SandboxProvider]]:
    with ScriptedHttp(answer).running() as server:
        settings = SandboxSettings.model_validate({"url": server.url, "secret": "s3cret", **own})
        provider = SandboxProvider("account", Channel.SMS, settings)
        try:
            yield server, provider
        finally:
            provider.close()


def _messages(count: int) -> list[Message]:
    return [
        Message(n, f"key-{n}", f"+1555010{n:02}", "+15550100", TextBody("Hi")) for n in range(count)
    ]


def _send(provider: SandboxProvider, count: int, seconds: float = 30) -> list[Outcome]:
    return provider.send(_messages(count), time.monotonic() + seconds)


def test_64_requests_are_in_the_air_at_once() -> None:
    together = threading.Barrier(64, timeout=30)

    def answer(_request: Request) -> Answer:
        together.wait()  # breaks, and so fails the test, unless 64 come together
        return TAKEN

    with _vendor(answer) as (_, provider):
        assert _send(provider, 128) == [Accepted("r")] * 128


def test_connections_are_kept() -> None:
    with _vendor(lambda _: TAKEN, concurrency=4) as (server, provider):
        for _ in range(5):
            assert _send(provider, 20) == [Accepted("r")] * 20
        assert server.connections <= 4


def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    closing = Answer(body=b'{"ref": "r"}', headers={"Connection": "close"})
    with _vendor(lambda _: closing, concurrency=1) as (_, provider):
        assert _send(provider, 3) == [Accepted("r")] * 3


def test_the_order_of_outcomes_is_the_order_of_messages() -> None:
    def answer(request: Request) -> Answer:
        return Answer(body=b'{"ref": "%b"}' % request.headers["idempotency-key"].encode())

    with _vendor(answer) as (_, provider):
        assert _send(provider, 100) == [Accepted(f"key-{n}") for n in range(100)]


def test_the_wire_carries_what_the_sandbox_reads() -> None:
    with _vendor(lambda _: TAKEN) as (server, provider):
        _send(provider, 1)
        [request] = server.requests
    assert request.path == "/wire/sms"
    assert json.loads(request.body) == {
        "id": "key-0",
        "to": "+155501000",
        "from": "+15550100",
        "service": "",
        "text": "Hi",
        "html": None,
        "mime": None,
        "hook": "account",
    }


def test_cookies_and_netrc_of_the_machine_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    answer = Answer(body=b'{"ref": "r"}', headers={"Set-Cookie": "sticky=1"})
    with _vendor(lambda _: answer, concurrency=1) as (server, provider):
        assert _send(provider, 2) == [Accepted("r")] * 2
        assert {request.headers["authorization"] for request in server.requests} == {
            "Bearer s3cret"
        }
        assert not any("cookie" in request.headers for request in server.requests)


def test_redirects_are_not_followed() -> None:
    away = Answer(307, headers={"Location": "/elsewhere"})
    with _vendor(lambda _: away) as (server, provider):
        assert _send(provider, 1) == [Rejected("http_307", Blame.ACCOUNT)]
        assert len(server.requests) == 1


def test_a_refusal_whose_body_is_cut_is_still_a_refusal() -> None:
    cut = Answer(429, b"x" * 100, {"Retry-After": "3"}, how="half")
    with _vendor(lambda _: cut) as (_, provider):
        assert _send(provider, 1) == [RateLimited(3.0, "http_429")]


def test_a_thread_held_by_a_drip_is_freed() -> None:
    how = {"now": "drip_head"}

    def answer(_request: Request) -> Answer:
        return Answer(body=TAKEN.body, how=how["now"])  # type: ignore[arg-type]

    with _vendor(answer, concurrency=1) as (_, provider):
        assert _send(provider, 1, seconds=1) == [Ambiguous("http_deadline")]
        how["now"] = "whole"
        assert _send(provider, 1) == [Accepted("r")]


def test_what_never_got_a_thread_before_the_deadline_is_retryable() -> None:
    with _vendor(lambda _: Answer(how="hang"), concurrency=2) as (_, provider):
        outcomes = _send(provider, 6, seconds=1)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        *["Ambiguous"] * 2,
        *["Retryable"] * 4,
    ]


def test_a_message_has_its_own_time_within_the_batch() -> None:
    with _vendor(
        lambda request: Answer(how="drip_head") if b"key-0" in request.body else TAKEN,
        total_timeout=1,
        concurrency=1,
    ) as (_, provider):
        outcomes = _send(provider, 3, seconds=60)
    assert outcomes == [Ambiguous("http_deadline"), Accepted("r"), Accepted("r")]


class _Asking(SandboxProvider):
    """Asks `vendor` twice before each message."""

    vendor: str

    def build(self, message: Message) -> HttpRequest:
        request = super().build(message)
        for number in range(2):
            reply = self.ask(HttpRequest(f"{self.vendor}/ask/{number}", b"", {}, "GET"))
            if reply.status != 200:
                raise self.unwelcome(reply)
        return request


@contextmanager
def _asking(
    answer: Callable[[Request], Answer], **own: object
) -> Iterator[tuple[ScriptedHttp, _Asking]]:
    with ScriptedHttp(answer).running() as server:
        settings = SandboxSettings.model_validate({"url": server.url, "secret": "s3cret", **own})
        provider = _Asking("account", Channel.SMS, settings)
        provider.vendor = server.url
        try:
            yield server, provider
        finally:
            provider.close()


def test_what_comes_before_a_message_goes_on_the_same_connection() -> None:
    with _asking(lambda _: TAKEN) as (server, provider):
        assert _send(provider, 1) == [Accepted("r")]
        assert [one.path.rpartition("/")[2] for one in server.requests] == ["0", "1", "sms"]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(how="hang"), Retryable("http_deadline")),
        (Answer(body=b"x" * 100, how="drip_body"), Retryable("http_deadline")),
        (Answer(how="drop"), Retryable("http_connection_lost")),
        (Answer(body=b"x" * 100, how="half"), Retryable("http_connection_lost")),
        (Answer(204), Retryable("http_204_unreadable")),
        (Answer(302), Rejected("http_302", Blame.ACCOUNT)),
        (Answer(401), Rejected("http_401", Blame.ACCOUNT)),
        (Answer(409), Retryable("http_409")),
        (Answer(429, headers={"Retry-After": "7"}), RateLimited(7, "http_429")),
        (Answer(502), Retryable("http_502")),
    ],
)
def test_what_comes_before_a_message_is_no_message(answer: Answer, expected: Outcome) -> None:
    def vendor(request: Request) -> Answer:
        return answer if request.path.endswith("/ask/1") else TAKEN

    most_s = 0.5 if expected == Retryable("http_deadline") else 20.0
    with _asking(vendor, total_timeout=most_s) as (server, provider):
        assert _send(provider, 1) == [expected]
        # Its thread is free again, and has not gone on to the message.
        provider.close()
        assert not [one for one in server.requests if one.method == "POST"]


def test_a_message_that_is_lost_after_what_came_before_is_ambiguous() -> None:
    def vendor(request: Request) -> Answer:
        return TAKEN if "/ask/" in request.path else Answer(how="drop")

    with _asking(vendor) as (_, provider):
        assert _send(provider, 1) == [Ambiguous("http_connection_lost")]


def test_a_message_and_what_comes_before_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    took = 0.0  # by the provider's clock, which the vendor moves on

    def vendor(_request: Request) -> Answer:
        nonlocal took
        took += 250
        return TAKEN

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + took)
    monkeypatch.setattr(http, "time", clock)
    with _asking(vendor, total_timeout=600) as (server, provider):
        assert _send(provider, 1, seconds=10_000) == [Ambiguous("http_deadline")]
        assert len(server.requests) == 3


def test_a_message_that_cannot_connect_after_what_came_before_is_retryable() -> None:
    with refusing_port() as port, _asking(lambda _: TAKEN) as (server, provider):
        provider._url = f"http://127.0.0.1:{port}/"
        assert _send(provider, 1) == [Retryable("http_connect_failed")]
        assert len(server.requests) == 2


def test_asking_is_for_building_alone() -> None:
    with _asking(lambda _: TAKEN) as (_, provider), pytest.raises(RuntimeError):
        provider.ask(HttpRequest("http://127.0.0.1:9/", b""))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Rejected("http_400", Blame.CONTENT)),
        (401, Rejected("http_401", Blame.ACCOUNT)),
        (403, Rejected("http_403", Blame.ACCOUNT)),
        (408, Retryable("http_408")),
        (409, Accepted()),
        (422, Rejected("http_422", Blame.CONTENT)),
        (500, Retryable("http_500")),
        (502, Ambiguous("http_502")),
        (503, Retryable("http_503")),
        (504, Ambiguous("http_504")),
        (520, Ambiguous("http_520")),
    ],
)
def test_status(status: int, expected: Outcome) -> None:
    assert outcome_of_status(status, {}) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1e99", LONGEST_RETRY_AFTER),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}) == seconds
