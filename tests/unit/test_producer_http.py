"""The producer against an HTTP API that takes, refuses, fails and hangs."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from converge_producer import Intent, NotTaken, Producer, Refusal, Refused, intent_id
from converge_producer import intake_http as http

Verdicts = Callable[[list[dict[str, Any]]], tuple[int, Any]]


class Api:
    """A loopback API whose answers a test chooses; remembers each request's head and intents."""

    def __init__(self) -> None:
        self.answer: Verdicts = accept_all
        self.requests: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                intents = [json.loads(line) for line in body.decode().rstrip("\n").split("\n")]
                api.requests.append((self.path, dict(self.headers), intents))
                status, answer = api.answer(intents)
                sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/base/"


def accept_all(intents: list[dict[str, Any]]) -> tuple[int, Any]:
    return 200, {"results": [{"line": n, "status": "accepted"} for n in range(1, len(intents) + 1)]}


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


@pytest.fixture
def producer(api: Api) -> Iterator[Producer]:
    with Producer(api.url, "secret-key") as producer:
        yield producer


def intents(count: int) -> list[Intent]:
    return [Intent(f"cust-{n}", "orders", "line\none \u2028 é", key=f"k{n}") for n in range(count)]


def ids(*numbers: int) -> list[Any]:
    return [intent_id("demo", None, f"k{n}") for n in numbers]


def test_intents_go_as_lines_with_the_key_in_chunks_of_500(api: Api, producer: Producer) -> None:
    assert producer.enqueue_many(intents(1001)) == ids(*range(1001))
    assert [len(sent) for _, _, sent in api.requests] == [500, 500, 1]
    path, headers, sent = api.requests[0]
    assert path == "/base/v1/intents/batch"
    assert headers["Authorization"] == "Bearer secret-key"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert sent[7]["key"] == "k7"
    assert sent[7]["content"]["text"] == "line\none \u2028 é"


def test_one_refused_line_does_not_stop_the_others(api: Api, producer: Producer) -> None:
    def verdicts(sent: list[dict[str, Any]]) -> tuple[int, Any]:
        _, answer = accept_all(sent)
        if sent[0]["key"] == "k0":
            answer["results"][1] = {
                "line": 2,
                "status": "refused",
                "field": "topic",
                "reason": "unknown topic",
            }
            answer["results"][2]["status"] = "exists"
            answer["results"][3] = {"line": 4, "status": "conflict"}
        return 200, answer

    api.answer = verdicts
    with pytest.raises(Refused) as caught:
        producer.enqueue_many(intents(502))
    assert caught.value.taken == ids(0, 2, *range(4, 502))
    first, second = caught.value.refusals
    assert (first.index, first.id, first.field) == (1, ids(1)[0], "topic")
    assert (first.reason, first.status) == ("unknown topic", "refused")
    assert (second.index, second.status) == (3, "conflict")


def test_errors_count_one_intent_as_one() -> None:
    refusal = Refusal(0, ids(0)[0], "topic", "unknown topic", "refused")
    assert str(Refused([], [refusal])).startswith("1 intent refused, 0 taken; ")
    assert str(Refused([], [refusal] * 2)).startswith("2 intents refused, ")
    assert str(NotTaken([], ids(0), "gone")) == "1 intent not taken, 0 taken: gone"


def test_a_way_that_breaks_says_what_was_taken(api: Api, producer: Producer) -> None:
    def verdicts(sent: list[dict[str, Any]]) -> tuple[int, Any]:
        return accept_all(sent) if sent[0]["key"] == "k0" else (503, {"title": "Draining"})

    api.answer = verdicts
    with pytest.raises(NotTaken, match=r"503 \(Draining\)") as caught:
        producer.enqueue_many(intents(600))
    assert caught.value.taken == ids(*range(500))
    assert caught.value.not_taken == ids(*range(500, 600))


@pytest.mark.parametrize(
    ("status", "answer", "uncertain"),
    [
        (401, {"title": "Unknown key"}, False),
        (413, b"too large", False),
        (301, b"", False),
        (500, b"", True),
        (502, b"<html>", True),
        (200, b"<html>not json", True),
        (200, b'"text"', True),
        (200, {"results": []}, True),
        (200, {"results": [{"line": 1}]}, True),
    ],
)
def test_an_answer_without_verdicts_is_not_taken(
    api: Api, producer: Producer, status: int, answer: Any, uncertain: bool
) -> None:
    api.answer = lambda _: (status, answer)
    with pytest.raises(NotTaken) as caught:
        producer.enqueue(intents(1)[0])
    assert caught.value.not_taken == ids(0)
    assert caught.value.uncertain is uncertain
    assert "secret-key" not in str(caught.value)
    assert len(api.requests) == 1


def test_an_api_that_refuses_the_connection_is_named_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with (
        Producer(f"http://127.0.0.1:{port}", "key") as producer,
        pytest.raises(NotTaken, match="cannot be reached") as caught,
    ):
        producer.enqueue(intents(1)[0])
    assert caught.value.uncertain is False


def test_an_api_that_hangs_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http.CONNECT_TIMEOUT + http.READ_TIMEOUT <= 10
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        before = time.monotonic()
        with Producer(url, "key") as producer, pytest.raises(NotTaken) as caught:
            producer.enqueue(intents(1)[0])
        assert time.monotonic() - before < 5
    assert caught.value.uncertain is True
