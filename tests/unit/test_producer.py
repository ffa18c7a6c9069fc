"""Intents on their way out: documents, ids, chunks, memory, and what a test of a service sees."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converge_producer import (
    Customer,
    Intent,
    InvalidIntent,
    Producer,
    from_document,
    intent_id,
    to_document,
    validate_intent,
)
from converge_producer.intake import MAX_CHUNK_BYTES, MAX_CHUNK_INTENTS, chunked

LATER = datetime(2090, 1, 1, tzinfo=timezone(timedelta(hours=2)))
pytest_plugins = ["pytester"]


def test_the_least_intent_is_three_words() -> None:
    producer = Producer("memory://")
    its_id = producer.enqueue(Intent(to="cust-42", topic="orders", text="Hello"))
    (sent,) = producer.sent
    key = sent.pop("key")
    assert UUID(hex=key).version == 4
    assert its_id == intent_id("demo", None, key)
    assert sent == {
        "to": "cust-42",
        "topic": "orders",
        "kind": "transactional",
        "urgency": "normal",
        "content": {"text": "Hello"},
    }


def test_an_intent_says_everything_the_wire_can_say() -> None:
    intent = Intent(
        to=Customer(ref="cust-42", email="ada@example.com", phone=None, as_of=LATER),
        topic="orders",
        text="Hello",
        subject="Hi",
        actions=({"label": "Go", "url": "https://shop.example"},),
        must_keep=("991",),
        overrides={"sms": "Hi"},
        sender="store",
        key="k",
        kind="conversational",
        urgency="urgent",
        campaign="spring",
        data={"name": "Ada"},
        policy="loud",
        send_after=LATER,
        expires_at=LATER + timedelta(days=1),
        replaces="j",
    )
    document = to_document(intent)
    validate_intent(document)
    assert document["to"] == {
        "ref": "cust-42",
        "email": "ada@example.com",
        "phone": None,
        "as_of": "2090-01-01T00:00:00+02:00",
    }
    assert document["send_after"] == "2090-01-01T00:00:00+02:00"
    back = from_document(document)
    assert back.expires_at == intent.expires_at
    assert to_document(back) == document


def test_a_dict_is_an_intent_too_and_is_left_as_it_was() -> None:
    producer = Producer("memory://", sender="store")
    given_dict = {"to": "c", "topic": "t", "content": {"template": "x"}, "expires_at": LATER}
    before = dict(given_dict)
    producer.enqueue(given_dict)
    assert given_dict == before
    assert producer.sent[0]["expires_at"] == "2090-01-01T00:00:00+02:00"
    assert producer.sent[0]["sender"] == "store"


def test_an_intents_own_sender_wins() -> None:
    producer = Producer("memory://", sender="store")
    its_id = producer.enqueue(Intent("c", "t", "x", sender="billing", key="k"))
    assert its_id == intent_id("demo", "billing", "k")


@pytest.mark.parametrize(
    ("intent", "field"),
    [
        (Intent("c", "t", "x", expires_at=datetime(2090, 1, 1)), "expires_at"),  # noqa: DTZ001  # is about that
        (Intent("c", "t", "x", expires_at=datetime(2020, 1, 1, tzinfo=UTC)), "expires_at"),
        (Intent("c", "t", "x", content={"text": "y"}), "content"),
        (Intent("c", "t"), "content.text"),
        (Intent("c", "t", template="a", subject="b"), "content.subject"),
        (Intent(None, "t", "x"), "to"),  # type: ignore[arg-type]
        ("an intent", ""),
    ],
)
def test_a_bad_intent_leaves_nothing_behind(intent: Any, field: str) -> None:
    producer = Producer("memory://")
    with pytest.raises(InvalidIntent) as one:
        producer.enqueue(intent)
    with pytest.raises(InvalidIntent) as many:
        producer.enqueue_many([Intent("c", "t", "x"), intent])
    assert one.value.field == field
    assert many.value.field == (f"[1].{field}" if field else "[1]")
    assert producer.sent == []


def test_an_intent_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Intent("c", "t", "x").topic = "u"  # type: ignore[misc]


SECRET = "a" * 43


@pytest.mark.parametrize(
    ("arguments", "environment", "brand"),
    [
        ({}, {}, "demo"),
        ({}, {"CONVERGE_BRAND": "acme"}, "acme"),
        ({"key": f"cvk_my_shop_0123456789abcdef_{SECRET}"}, {"CONVERGE_BRAND": "acme"}, "my_shop"),
        ({"key": f"cvt_shop_0123456789abcdef_{SECRET}", "brand": "other"}, {}, "other"),
    ],
)
def test_the_brand_is_named_by_argument_key_or_environment(
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, str],
    environment: dict[str, str],
    brand: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    producer = Producer("memory://", **arguments)
    test = arguments.get("key", "").startswith("cvt_")
    its_id = producer.enqueue(Intent("c", "t", "x", key="k"))
    assert its_id == intent_id(brand, None, "k", test=test)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://api.example", "needs a key"),
        ("ftp://user:hunter2@files.example", "'ftp'"),
        ("localhost:6379", "'localhost'"),
    ],
)
def test_a_url_that_cannot_work_says_so_at_once(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Producer(url)
    assert "hunter2" not in str(caught.value)


@given(sizes=st.lists(st.integers(0, 300_000), max_size=30), few=st.integers(0, 1200))
def test_chunks_keep_order_and_both_limits(sizes: list[int], few: int) -> None:
    packed = ["x" * size for size in sizes] + ["x"] * few
    ids = [uuid4() for _ in packed]
    chunks = chunked(ids, packed)
    assert [text for chunk in chunks for text in chunk.packed] == packed
    assert [one for chunk in chunks for one in chunk.ids] == ids
    place = 0
    for chunk in chunks:
        assert chunk.first == place
        assert 0 < len(chunk.packed) <= MAX_CHUNK_INTENTS
        assert sum(map(len, chunk.packed)) <= MAX_CHUNK_BYTES
        place += len(chunk.packed)


def test_importing_it_loads_no_client_and_never_celery_or_pydantic() -> None:
    probe = (
        "import sys, converge_producer as c; p = c.Producer('redis://127.0.0.1:1/0', 'k');"
        "import converge_producer.publishing, converge_producer.intake_http;"
        "print(sorted({'celery', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    probe = "import sys, converge_producer; print({'kombu', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


PRODUCER = Producer("redis://127.0.0.1:1/0")  # nobody listens there


def test_the_fixture_catches_what_any_producer_sends(intents_sent: list[dict[str, Any]]) -> None:
    PRODUCER.enqueue(Intent("c", "t", "one"))
    Producer("https://api.example", "key").enqueue_many([Intent("c", "t", "two")])
    with pytest.raises(InvalidIntent):
        PRODUCER.enqueue(Intent("c", "t", ""))
    assert [sent["content"]["text"] for sent in intents_sent] == ["one", "two"]


def test_the_fixture_comes_with_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from converge_producer import Intent, Producer
        def test_it(intents_sent):
            Producer("redis://127.0.0.1:1/0").enqueue(Intent("c", "t", "x"))
            assert len(intents_sent) == 1
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
