"""What the producer publishes, held against Celery itself on a real Redis."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from celery import Celery
from redis import Redis

from converge_producer import BrokerUnreachable, Intent, NotTaken, Producer, intent_id
from converge_producer.publishing import Message, Publisher
from converge_producer.queues import (
    DEAD_LETTERS,
    INTENTS,
    KEY_PREFIX,
    QUEUES,
    TASK_ACCEPT,
    task_queues,
    transport_options,
)

DEADLINE = 60.0  # seconds
SOON_S = 15.0  # a caller that waits is told within 5 s, where it need not wait for a processor
NO_CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
ON_REDIS = KEY_PREFIX + INTENTS


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, socket_timeout=2 * DEADLINE) as connection:
        yield connection


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    publisher = Publisher(redis_url)
    yield publisher
    publisher.close()


def celery_on(url: str) -> Celery:
    app = Celery("test", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=task_queues(url),
        broker_transport_options=transport_options(url),
        task_default_queue=INTENTS,
        task_create_missing_queues=False,
        task_ignore_result=True,
    )
    return app


def envelopes(redis: Redis, key: str = ON_REDIS) -> list[dict[str, Any]]:
    """Read what waits in a queue, first in first."""
    return [json.loads(raw) for raw in reversed(redis.lrange(key, 0, -1))]


def body(envelope: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(envelope["body"]))


def keys(redis: Redis) -> list[str]:
    chunks = [body(envelope)[0][0] for envelope in envelopes(redis)]
    return [intent["key"] for chunk in chunks for intent in chunk["intents"]]


def intents(count: int) -> list[Intent]:
    return [Intent(f"cust-{n}", "orders", "Hello é", key=f"k{n}") for n in range(count)]


def test_the_envelope_is_celerys_own(redis_url: str, redis: Redis, publisher: Publisher) -> None:
    payload = {"v": 1, "text": "é \u2028 \U0001f600", "ids": [1, None, True, 1.5]}
    ours = publisher.publish(TASK_ACCEPT, payload, INTENTS, "<2 intents, demo>", expires_s=60)
    with celery_on(redis_url) as app:
        theirs = app.send_task(
            TASK_ACCEPT,
            args=(payload,),
            queue=INTENTS,
            argsrepr="<2 intents, demo>",
            expires=60,
            ignore_result=True,
        ).id
    first, second = envelopes(redis)
    del second["properties"]["argsrepr"]  # Celery passes its own options on; nobody reads this
    assert body(first) == body(second) == [[payload], {}, NO_CANVAS]
    assert first["headers"].pop("expires")[:16] == second["headers"].pop("expires")[:16]
    for envelope, task_id in ((first, ours), (second, theirs)):
        del envelope["body"]
        del envelope["properties"]["delivery_tag"]
        assert envelope["headers"].pop("id") == envelope["headers"].pop("root_id") == task_id
        assert envelope["properties"].pop("correlation_id") == task_id
        assert envelope["properties"].pop("reply_to") is not None
    assert first == second


def test_headers_and_body_are_those_of_as_task_v2(redis: Redis, publisher: Publisher) -> None:
    task_id = publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    with Celery("test", set_as_current=False) as app:
        message = app.amqp.as_task_v2(
            task_id, TASK_ACCEPT, args=[{"v": 1}], argsrepr="<x>", ignore_result=True
        )
    (envelope,) = envelopes(redis)
    assert envelope["headers"] == json.loads(json.dumps(message.headers))
    assert body(envelope) == json.loads(json.dumps(message.body))
    assert envelope["properties"]["reply_to"] == message.properties["reply_to"] == ""


WORKER = """
import json, sys
from celery import Celery
from redis import Redis
from converge_producer.queues import task_queues, transport_options
url = sys.argv[1]
app = Celery("seen", broker=url)
app.conf.update(task_queues=task_queues(url), task_create_missing_queues=False,
                broker_transport_options=transport_options(url), task_acks_late=True,
                worker_prefetch_multiplier=1, task_default_queue="intents")
seen = Redis.from_url(url)
@app.task(name="intents.accept", bind=True, ignore_result=True)
def accept(self, *args, **kwargs):
    request = self.request
    seen.lpush("seen", json.dumps(
        [args, kwargs, request.id, request.argsrepr, request.kwargsrepr, request.root_id,
         request.ignore_result, request.delivery_info["routing_key"]]))
app.worker_main(["worker", "-P", "threads", "-c", "2", "-Q", "intents", "-l", "WARNING",
                 "--without-gossip", "--without-mingle", "--without-heartbeat"])
"""


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_real_worker_sees_what_was_published(
    tmp_path: Path, redis_url: str, redis: Redis, publisher: Publisher
) -> None:
    script = tmp_path / "seen_worker.py"
    script.write_text(WORKER)
    payloads = [{"v": 1, "n": n, "text": 'é \U0001f600 \\ " {}'} for n in range(50)]
    task_ids = publisher.publish_many(
        Message(TASK_ACCEPT, payload, INTENTS, f"<{n}>") for n, payload in enumerate(payloads)
    )
    publisher.publish(TASK_ACCEPT, {"v": 1, "late": True}, INTENTS, "<late>", expires_s=-1)
    with running(sys.executable, str(script), redis_url, cwd=tmp_path):
        seen = {}
        for _ in payloads:
            popped = redis.brpop("seen", timeout=DEADLINE)
            assert popped is not None, "the worker saw too little"
            args, kwargs, task_id, *rest = json.loads(popped[1])
            seen[task_id] = (args, kwargs, rest)
    assert seen == {
        task_id: ([payload], {}, [f"<{n}>", "{}", task_id, True, INTENTS])
        for n, (task_id, payload) in enumerate(zip(task_ids, payloads, strict=True))
    }
    assert redis.llen("seen") == 0  # what had expired was not run


def test_a_producers_chunks_hold_the_documents(redis_url: str, redis: Redis) -> None:
    key = f"cvt_shop_0123456789abcdef_{'a' * 43}"
    with Producer(redis_url, key, "store") as producer:
        found = producer.enqueue_many(intents(1200))
    assert found == [intent_id("shop", "store", f"k{n}", test=True) for n in range(1200)]
    chunks = [body(envelope)[0][0] for envelope in envelopes(redis)]
    assert [len(chunk["intents"]) for chunk in chunks] == [500, 500, 200]
    assert keys(redis) == [f"k{n}" for n in range(1200)]
    assert len({chunk.pop("chunk") for chunk in chunks}) == 3
    assert chunks[2]["intents"][0]["content"] == {"text": "Hello é"}
    for chunk in chunks:
        del chunk["intents"]
        assert chunk == {"v": 1, "brand": "shop", "test": True}
    shown = {envelope["headers"]["argsrepr"] for envelope in envelopes(redis)}
    assert shown == {"<500 intents, shop>", "<200 intents, shop>"}
    assert "a" * 43 not in json.dumps(envelopes(redis))


def test_every_queue_is_published_to_by_its_name(redis: Redis, publisher: Publisher) -> None:
    for queue in QUEUES:
        publisher.publish("any.task", {"v": 1}, queue, "<x>")
    assert {key.decode() for key in redis.scan_iter()} == {KEY_PREFIX + queue for queue in QUEUES}
    with pytest.raises(KeyError):
        publisher.publish("any.task", {"v": 1}, "email.bluk", "<x>")


def test_threads_share_a_producer(redis_url: str, redis: Redis) -> None:
    with Producer(redis_url) as producer, ThreadPoolExecutor(8) as pool:
        list(pool.map(producer.enqueue, intents(200)))
    assert Counter(keys(redis)) == Counter(f"k{n}" for n in range(200))


def test_an_idle_connection_that_was_cut_is_replaced(redis: Redis, publisher: Publisher) -> None:
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    me = redis.client_id()
    for client in redis.client_list():
        if int(client["id"]) != me:
            redis.client_kill_filter(_id=client["id"])
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    assert redis.llen(ON_REDIS) == 2


def test_a_flush_takes_no_route_away(redis: Redis, publisher: Publisher) -> None:
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    redis.flushall()
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    assert redis.llen(ON_REDIS) == 1


def test_the_next_broker_of_a_list_is_tried(redis_url: str, redis: Redis) -> None:
    with Producer(f"redis://127.0.0.1:1/0;{redis_url}") as producer:
        producer.enqueue_many(intents(2))
    assert keys(redis) == ["k0", "k1"]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_refuses_is_named_within_seconds(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # ours while we try it, and nobody listens
        _cannot_reach(f"{scheme}://guest:hunter2@127.0.0.1:{unused.getsockname()[1]}/")


def test_every_queue_is_counted(redis_url: str, publisher: Publisher) -> None:
    with Producer(redis_url) as producer:
        producer.enqueue(intents(1)[0])
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    publisher.publish(TASK_ACCEPT, {"v": 1}, "email.bulk", "<x>")
    expected = dict.fromkeys((*QUEUES, DEAD_LETTERS), 0) | {INTENTS: 2, "email.bulk": 1}
    assert publisher.depths() == expected
    assert publisher.depths() == expected


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_queues_of_a_broker_that_hangs_are_given_up_within_seconds(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silently = Publisher(f"{scheme}://guest:guest@127.0.0.1:{silent.getsockname()[1]}/")
        before = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            silently.depths()
        assert time.monotonic() - before < SOON_S
        silently.close()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_hangs_is_named_within_seconds(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _cannot_reach(f"{scheme}://guest:hunter2@127.0.0.1:{silent.getsockname()[1]}/")


def _cannot_reach(url: str) -> None:
    before = time.monotonic()
    with Producer(url) as producer, pytest.raises(NotTaken) as caught:
        producer.enqueue_many(intents(2))
    assert time.monotonic() - before < SOON_S
    assert isinstance(caught.value.__cause__, BrokerUnreachable)
    assert caught.value.taken == []
    assert caught.value.not_taken == [intent_id("demo", None, key) for key in ("k0", "k1")]
    assert caught.value.uncertain is False
    assert "hunter2" not in str(caught.value)


class Relay:
    """Passes bytes on to a server until the n-th LPUSH, which arrives but is never answered."""

    def __init__(self, target: tuple[str, int], lpushes: int, *, hang: bool) -> None:
        self._target, self._left, self._hang = target, lpushes, hang
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with suppress(OSError):  # ends when the listener is shut down
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for copy in (self._copy_there, self._copy_back):
                    thread = threading.Thread(target=copy, args=(client, server))
                    self._threads.append(thread)
                    thread.start()

    def _copy_there(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(65536):
            self._left -= data.count(b"LPUSH")
            server.sendall(data)
            if self._left <= 0 and not self._hang:
                client.shutdown(socket.SHUT_RDWR)
                return

    def _copy_back(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(65536):
            if self._left > 0:
                client.sendall(data)

    def close(self) -> None:
        for one in (*self._open, self._listener):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (*self._open, self._listener):
            one.close()


@pytest.mark.parametrize("hang", [True, False])
def test_a_broker_lost_half_way_says_what_was_taken_and_never_publishes_twice(
    redis_url: str, redis: Redis, hang: bool
) -> None:
    where = urlsplit(redis_url)
    relay = Relay((str(where.hostname), int(where.port or 0)), 3, hang=hang)
    url = redis_url.replace(f":{where.port}", f":{relay.port}")
    before = time.monotonic()
    try:
        with (
            Producer(url) as producer,
            pytest.raises(NotTaken, match="repeat with the same keys") as caught,
        ):
            producer.enqueue_many(intents(2000))
    finally:
        relay.close()
    assert time.monotonic() - before < SOON_S
    every = [intent_id("demo", None, f"k{n}") for n in range(2000)]
    assert caught.value.taken == every[:1000]
    assert caught.value.not_taken == every[1000:]
    assert caught.value.uncertain is True
    # The third chunk may arrive all the same, once: that is what "uncertain" warns of.
    arrived = keys(redis)
    assert arrived == [f"k{n}" for n in range(len(arrived))]
    assert len(arrived) in ((1500,) if hang else (1000, 1500))


def test_a_forked_child_leaves_its_parents_connection_alone(redis_url: str, redis: Redis) -> None:
    with Producer(redis_url) as producer:
        producer.enqueue(Intent("c", "t", "x", key="parent-1"))
        child = os.fork()
        if not child:
            try:
                for n in range(20):
                    producer.enqueue(Intent("c", "t", "x", key=f"child-{n}"))
                producer.close()
                os._exit(0)
            finally:
                os._exit(1)
        for n in range(2, 20):
            producer.enqueue(Intent("c", "t", "x", key=f"parent-{n}"))
        assert os.waitpid(child, 0)[1] == 0
        producer.enqueue(Intent("c", "t", "x", key="parent-20"))
    expected = [f"parent-{n}" for n in range(1, 21)] + [f"child-{n}" for n in range(20)]
    assert Counter(keys(redis)) == Counter(expected)


WEB = """
import os
from converge_producer import Intent, Producer
producer = Producer(os.environ["BROKER"])
producer.enqueue(Intent("c", "t", "x", key="preload"))  # the worst case: open before the fork
def app(environ, start_response):
    key = environ["QUERY_STRING"]
    if key:
        producer.enqueue(Intent("c", "t", "x", key=key))
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def test_preloaded_gunicorn_workers_enqueue_each_intent_once(
    tmp_path: Path, redis_url: str, redis: Redis
) -> None:
    (tmp_path / "web.py").write_text(WEB)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        command = [sys.executable, "-m", "gunicorn", "web:app", "--preload", "--workers", "3"]
        command += ["--bind", f"fd://{listener.fileno()}", "--log-level", "warning"]
        with running(
            *command,
            cwd=tmp_path,
            env={**os.environ, "BROKER": redis_url},
            pass_fds=[listener.fileno()],
        ):
            pids: set[str] = set()
            sent: list[str] = []
            give_up = time.monotonic() + DEADLINE
            with ThreadPoolExecutor(6) as pool:
                while len(pids) < 3 or len(sent) < 120:
                    assert time.monotonic() < give_up, f"only {len(pids)} workers answered"
                    batch = [f"r{len(sent) + n}" for n in range(30)]
                    # The first wait in the backlog until gunicorn has loaded the application.
                    answers = pool.map(
                        lambda key: requests.get(f"{url}?{key}", timeout=DEADLINE), batch
                    )
                    pids |= {answer.text for answer in answers if answer.ok}
                    sent += batch
    assert Counter(keys(redis)) == Counter(["preload", *sent])
