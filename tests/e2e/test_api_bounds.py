"""What an address can take: rates of keys, and requests that are made to hurt."""

import json
import socket
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from structlog.testing import capture_logs

from app.api import create
from app.api.connection import HEAD_BYTES, HEADERS, BoundedHttp
from app.limits.connection import connect
from app.limits.rate import Limit, RateLimits
from app.usecases.operating.keys import BadRate, all_keys, create_key
from tests.e2e.api import Site, intent, serving
from tests.e2e.conftest import wait_for

SLOW = 0.01  # intents a second: one, and then none for a hundred seconds
JSON = {"Content-Type": "application/json"}


# -- rates of keys -------------------------------------------------------------------------------


def over(site: Site, answer: Any) -> int:
    """Seconds that a key over its rate is told to wait."""
    site.problem(answer, 429, "Authorization")
    return int(answer.headers["Retry-After"])


def intents(site: Site) -> int:
    return int(site.house.rows("SELECT count(*) FROM intents")[0][0])


def test_a_key_over_its_rate_waits_in_every_process_and_nothing_is_taken(site: Site) -> None:
    key = create_key(site.house.runtime, "demo", per_second=SLOW)
    assert site.post("/v1/intents", intent(), key=key).status_code == 201
    with serving(create(site.house.runtime)) as url:
        for place in (site, replace(site, url=url)):
            assert 50 <= over(site, place.post("/v1/intents", intent(), key=key)) <= 100
            over(site, place.post("/v1/intents/batch", [intent()], key=key))
            assert place.get("/v1/intents", key=key).status_code == 200  # reading is not counted
    assert intents(site) == 1
    assert site.post("/v1/intents", intent()).status_code == 201  # another key, no rate


def test_a_batch_counts_its_lines(site: Site) -> None:
    key = create_key(site.house.runtime, "demo", per_second=1)
    lines = "\n".join(["{broken", *(json.dumps(intent()) for _ in range(59))])
    more = {"data": lines, "headers": {"Content-Type": "application/x-ndjson"}, "key": key}
    assert site.call("POST", "/v1/intents/batch", **more).status_code == 200
    assert 30 <= over(site, site.call("POST", "/v1/intents/batch", **more)) <= 60
    assert intents(site) == 59


def test_a_rate_for_all_keys_gives_way_to_a_keys_own(site: Site) -> None:
    free = create_key(site.house.runtime, "demo", per_second=1e6)
    with serving(create(site.house.runtime, rate=SLOW)) as url:
        here = replace(site, url=url)
        assert here.post("/v1/intents", intent()).status_code == 201
        over(site, here.post("/v1/intents", intent()))
        for _ in range(3):
            assert here.post("/v1/intents", intent(), key=free).status_code == 201


def test_with_redis_away_keys_are_not_held_to_their_rates(site: Site) -> None:
    key = create_key(site.house.runtime, "demo", per_second=SLOW)
    limits = RateLimits(connect("redis://127.0.0.1:1/0"))
    with (
        serving(create(replace(site.house.runtime, limits=limits))) as url,
        capture_logs() as logs,
    ):
        for _ in range(3):
            answer = replace(site, url=url).post("/v1/intents", intent(), key=key)
            assert answer.status_code == 201
    assert any(one["event"] == "key_rates_not_held" for one in logs)


def test_what_nobody_asked_for_is_saved_up_for_a_second(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        limits = RateLimits(redis)
        limit = Limit("key:1", 2)
        assert limits.admit(limit, 2) == 0
        assert 0 < limits.admit(limit, 1) <= 0.5
        assert limits.admit(Limit("key:2", 2), 1) == 0  # each key by itself
        wait_for(lambda: limits.admit(limit, 1000) == 0, "what was taken is paid off")
        assert 400 < limits.admit(limit, 1) <= 500  # and so is what came at once


def test_a_rate_that_would_stop_or_never_bind_is_refused(site: Site) -> None:
    keys = len(all_keys(site.house.runtime))
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(BadRate):
            create_key(site.house.runtime, "demo", per_second=rate)
    assert len(all_keys(site.house.runtime)) == keys


# -- bodies --------------------------------------------------------------------------------------


def test_what_is_compressed_is_refused_before_it_is_read(site: Site) -> None:
    bomb = zlib.compress(b" " * 50_000_000, 9)
    for encoding in ("gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity", "identity, gzip"):
        for path in ("/v1/intents", "/v1/intents/batch", "/hooks/texts"):
            for body in (bomb, iter([bomb])):  # announced, and chunked
                headers = {**JSON, "Content-Encoding": encoding}
                answer = site.call("POST", path, data=body, headers=headers)
                site.problem(answer, 415, "Content-Encoding")


STRANGE = [
    (b'{"to": ' * 10_000, 422),
    (b"[" * 1_020 + b"]" * 1_020, 422),
    (b'{"to":"ada","topic":"orders","content":{"text":"x"},"data":{"n":1e999}}', (201, 400, 422)),
    (
        b'{"to":"ada","topic":"orders","content":{"text":"x"},"data":{"n":' + b"9" * 5_000 + b"}}",
        (201, 400, 422),
    ),
    (b'{"to":"ada","topic":"orders","content":{"text":"\xff\xfe"}}', 400),
    (b'{"to":"ada","topic":"orders","content":{"text":"\\ud800"}}', 400),
    (b'{"to":"ada","topic":"orders","content":{"text":"\\u0000"}}', 422),
    (b'{"to":"ada","to":"nobody","topic":"orders","content":{"text":"x"}}', 422),  # the last one
    (b'\xef\xbb\xbf{"to":"ada"}', 400),
    (b"", 400),
    (b"null", 422),
    (b"NaN", 400),
    (b'{"to":"ada"}{"to":"ada"}', 400),
    (b'{"to":"ada","topic":"orders","content":{"text":"' + b"x" * 280_000 + b'"}}', 422),
]


def test_strange_json_gets_a_clear_answer(site: Site) -> None:
    for body, status in STRANGE:
        wanted = (status,) if isinstance(status, int) else status
        one = site.call("POST", "/v1/intents", data=body, headers=JSON)
        assert one.status_code in wanted, (body[:80], one.text)
        kind = "application/json" if one.ok else "application/problem+json"
        assert one.headers["Content-Type"] == kind
        many = [
            ("POST", "/v1/intents/batch", JSON),
            ("POST", "/v1/intents/batch", {"Content-Type": "application/x-ndjson"}),
            ("PUT", "/v1/customers/eve", JSON),
        ]
        for method, path, headers in many:
            answer = site.call(method, path, data=body, headers=headers)
            assert answer.status_code < 500, (path, body[:80], answer.text)


# -- heads and connections -----------------------------------------------------------------------


def raw(url: str, *parts: bytes, after_an_answer: bool = False) -> bytes:
    """Send bytes as they are, all at once or each after an answer; return all that comes back."""
    place = urlsplit(url)
    answer = b""
    with (
        socket.create_connection((place.hostname, place.port or 80), timeout=20) as caller,
        suppress(BrokenPipeError, ConnectionResetError),  # it was answered before the end
    ):
        for n, part in enumerate(parts):
            if n and after_an_answer:
                answer += caller.recv(65_536)
            caller.sendall(part)
        while more := caller.recv(65_536):
            answer += more
    return answer


def status_of(answer: bytes) -> int:
    return statuses_of(answer)[0]


def statuses_of(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


LINE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
END = b"Connection: close\r\n\r\n"
WIRE = [
    ("an address too long", b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\n", 431),
    ("a long address", b"GET /v1/customers/" + b"a" * 20_000 + b" HTTP/1.1\r\n" + END, 401),
    ("a whole head that is too long", LINE + b"X: " + b"a" * HEAD_BYTES + b"\r\n" + END, 431),
    ("a long head", LINE + b"X: " + b"a" * (HEAD_BYTES - 100) + b"\r\n" + END, 200),
    ("a long head of many", LINE + (b"X: " + b"a" * 999 + b"\r\n") * 40 + END, 431),
    ("a header without an end", LINE + b"X: " + b"a" * 200_000, 431),
    ("too many headers", LINE + b"X: 1\r\n" * (HEADERS + 1) + END, 431),
    ("many headers", LINE + b"X: 1\r\n" * (HEADERS - 2) + END, 200),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),
    ("bytes beyond ASCII", b"GET /\xff\xfe HTTP/1.1\r\n" + END, 400),
    ("an address that is no address", b"GET http://[::1 HTTP/1.1\r\n" + END, 400),
    ("an asterisk", b"OPTIONS * HTTP/1.1\r\n" + END, 404),
    ("a tunnel", b"CONNECT example.com:443 HTTP/1.1\r\n" + END, 400),
    ("an unknown method", b"BREW /healthz HTTP/1.1\r\n" + END, 400),
    ("a wrong method", b"TRACE /healthz HTTP/1.1\r\n" + END, 405),
    ("a negative length", LINE + b"Content-Length: -1\r\n" + END, 400),
    ("a length beyond numbers", LINE + b"Content-Length: " + b"9" * 50 + b"\r\n" + END, 400),
    ("two lengths", LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n" + END, 400),
    (
        "a length and chunks",
        LINE + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n" + END + b"0\r\n\r\n",
        400,
    ),
    (
        "a chunk of no size",
        b"POST /hooks/texts HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + END + b"zz\r\n",
        400,
    ),
    (
        "another protocol",
        LINE + b"Upgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
        200,
    ),
    ("a folded header", LINE + b"X: 1\r\n folded\r\n" + END, 400),
]


def test_what_comes_over_the_wire_gets_a_clear_answer(site: Site) -> None:
    for what, sent, status in WIRE:
        answer = raw(site.url, sent)
        assert status_of(answer) == status, (what, answer[:300])
        if status >= 400:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status, what


def test_trailers_are_bounded_as_headers_are(site: Site) -> None:
    head = b"POST /hooks/texts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(site.url, head + b"1\r\nx\r\n0\r\n" + b"X: 1\r\n" * (HEADERS + 1) + b"\r\n")
    assert status_of(answer) == 431


def test_pipelined_requests_are_answered_in_order_and_garbage_ends_them(site: Site) -> None:
    answer = raw(site.url, LINE + b"\r\n" + b"GET /nowhere HTTP/1.1\r\n\r\n" + LINE + END)
    assert statuses_of(answer) == [200, 404, 200]
    answer = raw(site.url, LINE + b"\r\n", b"garbage\r\n\r\n", after_an_answer=True)
    assert statuses_of(answer) == [200, 400]
    assert site.get("/healthz").status_code == 200


class Hasty(BoundedHttp):
    """Waits for heads no longer than a test does."""

    head_s = 1.0


def test_a_head_that_does_not_arrive_is_not_waited_for(site: Site) -> None:
    with serving(create(site.house.runtime), Hasty) as url:
        for begun in (b"", b"\r\n", b"GET /heal", LINE + b"X: 1"):
            assert status_of(raw(url, begun)) == 408
            if begun:  # a connection that has served is no better
                answer = raw(url, LINE + b"\r\n", begun, after_an_answer=True)
                assert statuses_of(answer) == [200, 408]


def test_methods_that_an_address_does_not_take_are_named(site: Site) -> None:
    for method in ("HEAD", "OPTIONS", "DELETE", "PATCH", "GET"):
        for path in ("/hooks/texts", "/hooks/texts/a/b"):
            answer = site.call(method, path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, PUT")
    for method in ("OPTIONS", "PATCH", "PUT"):
        answer = site.call(method, "/v1/intents")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    for method in ("PUT", "DELETE"):  # and creates no customer called "ada/timeline"
        answer = site.call(method, "/v1/customers/ada/timeline", json={})
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")


def test_an_hour_that_no_clock_shows_is_refused(site: Site) -> None:
    when = "2030-01-01T00:00:00+18:58"
    answer = site.put("/v1/customers/ada", {"as_of": when})
    site.problem(answer, 422, "as_of")
    for field in ("send_after", "expires_at"):
        site.problem(site.post("/v1/intents", intent(**{field: when})), 422, field)
