"""Intents over HTTP: what is taken, what is refused and why, whose key may do what."""

import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from structlog.testing import capture_logs

from app.api import create
from app.api.door import HOOK_FACTOR
from app.usecases.operating.keys import create_key, revoke
from converge_producer import Intent, Producer, Refused
from tests.e2e.api import MAX_BYTES, Site, intent, serving
from tests.store.conftest import customer

NDJSON = {"Content-Type": "application/x-ndjson"}


def batch(site: Site, *documents: Any, **more: Any) -> list[dict[str, Any]]:
    """Post a batch by lines; a string is a line as it is."""
    lines = [one if isinstance(one, str) else json.dumps(one) for one in documents]
    answer = site.call(
        "POST", "/v1/intents/batch", data="\n".join(lines).encode(), headers=NDJSON, **more
    )
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_one_intent_is_taken_once(site: Site) -> None:
    document = intent(key="991")
    first = site.post("/v1/intents", document)
    assert (first.status_code, first.json()["status"]) == (201, "accepted")
    assert first.headers["Location"] == f"/v1/intents/{first.json()['id']}"
    again = site.post("/v1/intents", document)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert len(site.house.rows("SELECT FROM deliveries")) == 1


def test_another_content_under_the_same_key_is_a_conflict(site: Site) -> None:
    site.post("/v1/intents", intent(key="991"))
    other = site.post("/v1/intents", intent(key="991", campaign="spring"))
    assert site.problem(other, 409, "key")["key"] == "991"


BAD = [
    ({"colour": "red"}, "colour"),
    ({"policy": "nobody-knows"}, "policy"),
    ({"sender": "nobody-knows"}, "sender"),
    ({"topic": "nobody-knows"}, "topic"),
    ({"content": {"template": "nobody-knows"}}, "content.template"),
    ({"to": "stranger"}, "to"),
    ({"to": {"ref": "bare"}}, "to"),
    ({"to": {"ref": "zoe-77", "email": "zoe-77@@example.com"}}, "to.email"),
    ({"to": {"ref": "zoe-77", "email": "zoe-77@example.com\r\nBcc: all@example.com"}}, "to.email"),
    ({"to": {"ref": "zoe-77", "phone": "+1 1"}}, "to.phone"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"content": {"subject": "a\r\nBcc: all@example.com", "text": "x"}}, "content.subject"),
    (
        {"content": {"text": "x", "actions": [{"label": "Go", "url": "javascript:alert(1)"}]}},
        "content.actions[0].url",
    ),
    ({"content": {"text": "Hello {{ name"}}, "content.text"),
    ({"content": {"text": "Hello {{ name }}"}}, "data.name"),
    ({"content": {"text": "Hello", "must_keep": ["991"]}}, "content.must_keep[0]"),
    ({"kind": "marketing"}, "kind"),
    ({"urgency": "now"}, "urgency"),
    ({"data": {"n": "\x00"}}, "data"),
]


def test_what_is_bad_is_refused_by_its_field(site: Site) -> None:
    for change, field in BAD:
        answer = site.post("/v1/intents", intent(**change))
        document = site.problem(answer, 422, field)
        assert document["detail"], change
        for secret in ("zoe-77", "Bcc", "javascript", "alert"):
            assert secret not in json.dumps(document), document
    assert site.house.rows("SELECT FROM intents") == []


def test_a_bad_line_does_not_stop_its_batch(site: Site) -> None:
    bad = [intent(**change) for change, _ in BAD]
    results = batch(site, intent(key="first"), "{not json", *bad, "[]", intent(key="last"))
    assert [one["line"] for one in results] == list(range(1, len(BAD) + 5))
    assert results[0]["status"] == results[-1]["status"] == "accepted"
    assert [one["status"] for one in results[1:-1]] == ["refused"] * (len(BAD) + 2)
    fields = [one["field"] for one in results[1:-1]]
    assert fields == ["line", *(field for _, field in BAD), "intent"]
    assert results[1]["code"] == "malformed"
    assert len(site.house.rows("SELECT FROM intents")) == 2


def test_a_batch_tells_of_repeats_and_counts_blank_lines(site: Site) -> None:
    site.post("/v1/intents", intent(key="a"))
    results = batch(site, intent(key="a"), "", intent(key="a", campaign="x"), intent(key="b"))
    told = [(one["line"], one["status"]) for one in results]
    assert told == [(1, "exists"), (3, "conflict"), (4, "accepted")]
    assert results[1]["field"] == "key"


def test_a_batch_may_be_an_array(site: Site) -> None:
    answer = site.post("/v1/intents/batch", [intent(key="a"), 7, intent(key="b")])
    assert [one["status"] for one in answer.json()["results"]] == [
        "accepted",
        "refused",
        "accepted",
    ]
    site.problem(site.post("/v1/intents/batch", {"key": "a"}), 422, "body")


def test_many_more_than_a_chunk_come_back_in_order(site: Site) -> None:
    results = batch(site, *(intent(key=f"k{n}") for n in range(1201)))
    assert [one["line"] for one in results] == list(range(1, 1202))
    assert {one["status"] for one in results} == {"accepted"}
    assert site.house.rows("SELECT count(*) FROM deliveries")[0][0] == 1201


def test_the_producer_speaks_this_http(site: Site) -> None:
    producer = Producer(site.url, key=site.key)
    ids = producer.enqueue_many([Intent(to="ada", topic="orders", text="x", key=k) for k in "abc"])
    rows = site.house.rows("SELECT id FROM intents")
    assert {row.id for row in rows} == set(ids)
    with pytest.raises(Refused) as refused:
        producer.enqueue(Intent(to="ada", topic="nobody-knows", text="x"))
    assert [one.field for one in refused.value.refusals] == ["topic"]


def test_malformed_json_says_where(site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/intents", "/v1/intents/batch"):
        answer = site.call("POST", path, data=b'[{"to": }]', headers=headers)
        assert "column" in site.problem(answer, 400, "body")["detail"]
        deep = site.call("POST", path, data=b"[" * 2_000 + b"]" * 2_000, headers=headers)
        assert site.problem(deep, 422, "body")["detail"] == "is nested too deeply"
        great = site.call("POST", path, data=b"[" + b"9" * 500 + b"]", headers=headers)
        assert "number is infinity" in site.problem(great, 400, "body")["detail"]


@pytest.mark.parametrize("path", ["/v1/intents", "/v1/intents/batch", "/hooks/texts"])
def test_a_long_body_is_refused_however_it_comes(site: Site, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    long = b"[" + b" " * MAX_BYTES * HOOK_FACTOR + b"]"
    announced = site.call("POST", path, data=long, headers=headers)
    site.problem(announced, 413, "body")
    parts = (long[start : start + 50_000] for start in range(0, len(long), 50_000))
    chunked = site.call("POST", path, data=parts, headers=headers)
    site.problem(chunked, 413, "body")


def test_a_body_that_does_not_arrive_is_not_waited_for(site: Site) -> None:
    with serving(create(site.house.runtime, body_s=0.2)) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port or 80), timeout=20) as caller:
            head = "POST /v1/intents HTTP/1.1\r\nHost: converge\r\nContent-Length: 100\r\n"
            caller.sendall(f"{head}Authorization: Bearer {site.key}\r\n\r\n{{".encode())
            answer = b"".join(iter(lambda: caller.recv(4096), b""))  # to the connection's end
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["field"] == "body"


def test_a_content_that_cannot_be_rendered_does_not_spoil_its_batch(site: Site) -> None:
    contents = ("{{ 'a word'|truncate(1) }}", "{{ [1]|batch(10**9) }}", "{{ 5|round(-10000) }}")
    bad = [intent(content={"text": text}) for text in contents]
    results = batch(site, *bad, intent())
    assert [one["status"] for one in results] == [*["refused"] * len(bad), "accepted"]
    assert {one["field"] for one in results[:-1]} == {"content.text"}


def test_compressed_and_foreign_bodies_are_refused(site: Site) -> None:
    packed = gzip.compress(b" " * 10_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path in ("/v1/intents", "/v1/intents/batch", "/hooks/texts"):
        answer = site.call("POST", path, data=packed, headers=headers)
        site.problem(answer, 415, "Content-Encoding")
    for path in ("/v1/intents", "/v1/intents/batch"):
        answer = site.call("POST", path, data={"to": "ada"})
        site.problem(answer, 415, "Content-Type")


def test_without_a_key_in_force_nothing_is_done(site: Site) -> None:
    made = create_key(site.house.runtime, "demo")
    prefix = made.split("_")[2]
    assert site.get("/v1/intents", key=made).status_code == 200
    wrong = [
        "",
        "nonsense",
        made[:-1] + ("A" if made[-1] != "A" else "B"),
        made.replace("demo", "other"),
        made.replace("cvk", "cvt"),
    ]
    for key in wrong:
        answer = site.get("/v1/intents", key=key)
        site.problem(answer, 401, "Authorization")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    revoke(site.house.runtime, prefix)
    fresh = create_key(site.house.runtime, "demo")
    revoke(site.house.runtime, fresh.split("_")[2])
    site.problem(site.get("/v1/intents", key=fresh), 401, "Authorization")


def test_another_brand_sees_and_changes_nothing(site: Site) -> None:
    other = site.other_brand()
    [mine] = batch(site, intent(key="991"))
    path = f"/v1/intents/{mine['id']}"
    site.problem(site.get(path, key=other), 404, "id")
    site.problem(site.post(f"{path}/cancel", key=other), 404, "id")
    assert site.get("/v1/intents", key=other).json()["intents"] == []
    site.problem(site.get("/v1/customers/ada", key=other), 404, "ref")
    site.problem(site.get("/v1/customers/ada/timeline", key=other), 404, "ref")
    site.problem(site.call("DELETE", "/v1/customers/ada", key=other), 404, "ref")
    # A brand's refs are its own: nobody else's customer can be addressed.
    site.problem(site.post("/v1/intents", intent(key="x"), key=other), 422, "to")
    assert site.get(path).json()["state"] == "open"


def test_a_key_of_one_sender_speaks_for_no_other(site: Site) -> None:
    store = create_key(site.house.runtime, "demo", senders=["store"])
    bills = create_key(site.house.runtime, "demo", senders=["billing"])
    taken = site.post("/v1/intents", intent(sender="store"), key=store)
    assert taken.status_code == 201
    site.problem(site.post("/v1/intents", intent(sender="billing"), key=store), 422, "sender")
    site.problem(site.get(taken.headers["Location"], key=bills), 404, "id")
    assert site.get("/v1/intents", key=bills).json()["intents"] == []
    assert len(site.get("/v1/intents", key=store).json()["intents"]) == 1
    site.problem(site.call("DELETE", "/v1/customers/ada", key=bills), 403, "Authorization")
    assert site.get(taken.headers["Location"]).json()["state"] == "open"


def test_a_test_key_touches_no_live_intent(site: Site) -> None:
    test_key = create_key(site.house.runtime, "demo", test=True)
    live = site.post("/v1/intents", intent(key="live")).headers["Location"]
    site.problem(site.get(live, key=test_key), 404, "id")
    site.problem(site.post(f"{live}/cancel", key=test_key), 404, "id")
    site.problem(site.call("DELETE", "/v1/customers/ada", key=test_key), 403, "Authorization")
    assert site.get(live).json()["state"] == "open"


def test_a_test_key_writes_to_no_live_customer(site: Site) -> None:
    test_key = create_key(site.house.runtime, "demo", test=True)
    for document, field in ((intent(), "to"), (intent(customer()), "to.ref")):
        answer = site.post("/v1/intents", document, key=test_key)
        told = site.problem(answer, 422, field)
        assert told["code"] == "unknown_customer"
        assert "knows test customers alone" in told["detail"]
    # No account of this house is a sandbox, so a test intent reaches nobody.
    answer = site.post("/v1/intents", intent(customer("tess")), key=test_key)
    assert site.problem(answer, 422, "to")["code"] == "no_endpoint"


def test_a_fault_of_ours_tells_nothing_of_it(site: Site) -> None:
    assert site.get("/v1/intents").status_code == 200  # the key is remembered
    site.house.execute("ALTER TABLE intents RENAME TO elsewhere")
    try:
        with capture_logs() as logs:
            answer = site.post("/v1/intents", intent(key="991"))
    finally:
        site.house.execute("ALTER TABLE elsewhere RENAME TO intents")
    problem = site.problem(answer, 500, None)
    assert "elsewhere" not in answer.text
    assert "SELECT" not in json.dumps(problem)
    [logged] = [one for one in logs if one["log_level"] == "error"]
    assert logged["event"] == "request_failed"
    requests.get(site.url + "/healthz", timeout=5).raise_for_status()
