"""Flower and Redis hold hints: ids, counts and names of accounts, and nothing about customers."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import requests
from redis import Redis

from app.embedded import EmbeddedServers
from converge_producer import Customer, Intent, Producer
from tests.e2e.conftest import Converge, wait_for

NAME = "Perpetua Quillfeather"
LOCAL_PART = "perpetua.quillfeather"
ADDRESS = f"{LOCAL_PART}@example.org"
PHONE = "+12025550187"
BODY = "the vault opens at half past nine"
DATUM = "periwinkle"
SECRETS = (NAME, "Quillfeather", ADDRESS, LOCAL_PART, PHONE, PHONE[1:], BODY, DATUM)
PAGES = ("/", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks")


@pytest.fixture
def redis(converge: Converge) -> Iterator[Redis]:
    found = EmbeddedServers(converge.folder / "data").find()
    assert found is not None
    with Redis.from_url(found.redis_url) as connection:
        yield connection


@pytest.fixture
def flower(converge: Converge) -> Iterator[requests.Session]:
    """Signed in, as the panel of `converge up` says."""
    told = converge.output.read_text().split("(user ", 1)[1].split(")", 1)[0]
    user, _, password = told.replace("\n", " ").partition(", password ")
    with requests.Session() as session:
        session.auth = (user.strip(), password.strip("│ "))
        yield session


def _enqueue(url: str) -> UUID:
    """Over the broker, so that everything private passes through Redis once."""
    producer = Producer(url, sender="store")
    customer = Customer(ref="flower-1", name=NAME, email=ADDRESS, phone=PHONE)
    intent = Intent(
        to=customer,
        topic="orders",
        policy="email-only",
        subject=f"For {NAME}",
        text=f"Hello {{{{ who }}}}, {BODY}.",
        data={"who": DATUM},
    )
    return producer.enqueue(intent)


def _everything(redis: Redis) -> Iterator[bytes]:
    """Every key and every value that Redis keeps."""
    for key in redis.scan_iter():
        yield key
        match redis.type(key):
            case b"string":
                yield redis.get(key) or b""
            case b"list":
                yield from redis.lrange(key, 0, -1)
            case b"set":
                yield from redis.smembers(key)
            case b"zset":
                yield from redis.zrange(key, 0, -1)
            case b"hash":
                for pair in redis.hgetall(key).items():
                    yield from pair
            case other:
                raise AssertionError(f"a kind of value that nobody looks into: {other!r}")


def _leaks(text: bytes) -> list[str]:
    """The secrets in a text, as they are, as JSON has them, or in base64 (as kombu's bodies)."""
    return [secret for secret in SECRETS if any(form in text for form in _forms(secret))]


def _forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    forms = {raw, json.dumps(secret)[1:-1].encode()}
    for before in range(3):  # where it may begin within a group of three bytes
        shifted = base64.b64encode(b"\0" * before + raw)
        forms.add(shifted[(before * 4 + 2) // 3 : -4])
    return forms


def _tasks(converge: Converge, flower: requests.Session) -> dict[str, dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = flower.get(
        f"{converge.url('flower_port')}/api/tasks", params={"limit": 10_000}, timeout=30
    ).json()
    return tasks


def _attempts(converge: Converge, intent_id: UUID) -> list[dict[str, Any]]:
    intent = converge.intent(intent_id)
    assert intent is not None
    attempts: list[dict[str, Any]] = intent["deliveries"][0]["attempts"]
    return attempts


def _deliver_one(converge: Converge, url: str) -> str:
    """Let a mail find its person; return the id of the task that handed it over."""
    sent = len(converge.screen(ADDRESS))
    intent_id = _enqueue(url)
    mails = wait_for(lambda: converge.screen(ADDRESS)[sent:], "the mail was handed over", 60)
    assert BODY in mails[0]["text"]
    (attempt,) = wait_for(lambda: _attempts(converge, intent_id), "the attempt was recorded")
    task: str = attempt["task"]
    return task


def _heard_of(
    converge: Converge, flower: requests.Session, task: str
) -> dict[str, dict[str, Any]] | None:
    """All tasks, if Flower hears of this one and an accepting one within some seconds."""
    for _ in range(40):
        tasks = _tasks(converge, flower)
        if task in tasks and "intents.accept" in {one["name"] for one in tasks.values()}:
            return tasks
        time.sleep(0.25)
    return None


@pytest.mark.timeout(240)
def test_flower_and_redis_tell_nothing_of_a_customer(
    converge: Converge, redis: Redis, flower: requests.Session
) -> None:
    chunk = base64.b64encode(json.dumps({"text": BODY, "name": NAME}).encode())
    assert _leaks(chunk) == [NAME, "Quillfeather", BODY], "the search can find what is hidden so"
    found = EmbeddedServers(converge.folder / "data").find()
    assert found is not None
    # Events are not kept for who does not listen yet, as a Flower that is slow to begin: the mail
    # goes again until one is heard of.
    for _ in range(6):
        task = _deliver_one(converge, found.redis_url)
        if done := _heard_of(converge, flower, task):
            break
    assert done, "Flower has heard of the tasks"
    assert done[task]["name"] == "email.deliver"
    assert "email deliveries" in done[task]["args"]

    base = converge.url("flower_port")
    workers = flower.get(f"{base}/api/workers", timeout=30).json()
    pages = [
        *PAGES,
        *(f"/worker/{name}" for name in workers),
        *(f"/task/{one}" for one in done),
        *(f"/api/task/info/{one}" for one in done if one == task),
    ]
    for page in pages:
        answer = flower.get(base + page, timeout=30)
        assert answer.status_code == 200, page
        assert _leaks(answer.content) == [], page
    assert requests.get(f"{base}/tasks", timeout=30).status_code == 401, "a password is asked for"

    values = list(_everything(redis))
    assert any(value.startswith(b"converge:") for value in values), "Redis was read"
    assert [leaks for value in values if (leaks := _leaks(value))] == []
    assert _leaks((converge.folder / "data/converge.log").read_bytes()) == [], "nor does the log"
