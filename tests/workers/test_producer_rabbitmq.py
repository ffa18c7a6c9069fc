"""Publishing to a real RabbitMQ: quorum queues, confirms, cut connections, fork."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from converge_producer import Intent, Producer
from converge_producer.publishing import Publisher
from converge_producer.queues import DEAD_LETTERS, INTENTS, TASK_ACCEPT, task_queues

pytestmark = pytest.mark.debian
START = 60.0  # seconds


@pytest.fixture(scope="module")
def amqp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin")
    assert program, "install the Debian package rabbitmq-server"
    home = tmp_path_factory.mktemp("rabbitmq")
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    epmd = {"ERL_EPMD_PORT": str(ports[2]), "ERL_EPMD_ADDRESS": "127.0.0.1"}  # one of our own
    log = home / "out.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(program).resolve())],
            env={
                **os.environ,
                **epmd,
                "HOME": str(home),
                "RABBITMQ_BASE": str(home),
                "RABBITMQ_NODENAME": f"test{ports[0]}@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
                "RABBITMQ_NODE_PORT": str(ports[0]),
                "RABBITMQ_DIST_PORT": str(ports[1]),
                "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
                "RABBITMQ_LOG_BASE": str(home / "log"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
                "RABBITMQ_PID_FILE": str(home / "pid"),
            },
            stdout=out,
            stderr=out,
        )
    url = f"amqp://guest:guest@127.0.0.1:{ports[0]}//"
    give_up = time.monotonic() + START
    while not _answers(url):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
    yield url
    process.terminate()
    process.wait(START)
    subprocess.run(["epmd", "-kill"], env={**os.environ, **epmd}, check=True, capture_output=True)


def _answers(url: str) -> bool:
    try:
        with kombu.Connection(url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=0, timeout=2)
    except kombu.exceptions.OperationalError:
        return False
    return True


def drain(url: str, queue: str = INTENTS) -> list[kombu.Message]:
    found = []
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        while (message := channel.basic_get(queue)) is not None:
            found.append(message)
            channel.basic_ack(message.delivery_tag)
    return found


def keys(url: str) -> list[str]:
    chunks = [json.loads(message.body)[0][0] for message in drain(url)]
    return sorted(intent["key"] for chunk in chunks for intent in chunk["intents"])


def intent(key: str) -> Intent:
    return Intent("cust-42", "orders", "Hello é", key=key)


def test_a_chunk_arrives_in_a_quorum_queue(amqp_url: str) -> None:
    with Producer(amqp_url) as producer:
        producer.enqueue_many([intent(f"k{n}") for n in range(600)])
    assert keys(amqp_url) == sorted(f"k{n}" for n in range(600))
    declared = next(queue for queue in task_queues(amqp_url) if queue.name == INTENTS)
    with kombu.Connection(amqp_url) as connection:
        declared(connection.default_channel).declare()  # fails if it was declared otherwise


def test_what_is_given_up_is_put_aside(amqp_url: str) -> None:
    publisher = Publisher(amqp_url)
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>", expires_s=0.0)
    publisher.close()
    give_up = time.monotonic() + 10
    while not (dead := drain(amqp_url, DEAD_LETTERS)):
        assert time.monotonic() < give_up
    assert dead[0].headers["task"] == TASK_ACCEPT


def test_a_connection_that_was_cut_is_replaced(amqp_url: str) -> None:
    publisher = Publisher(amqp_url)
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    (line,) = publisher._idle
    line._socket().shutdown(socket.SHUT_RDWR)
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    publisher.close()
    assert len(drain(amqp_url)) == 2


def test_a_forked_child_leaves_its_parents_connection_alone(amqp_url: str) -> None:
    with Producer(amqp_url) as producer:
        producer.enqueue(intent("before"))
        child = os.fork()
        if not child:
            try:
                for n in range(100):
                    producer.enqueue(intent(f"child-{n}"))
                producer.close()
                os._exit(0)
            finally:
                os._exit(1)
        for n in range(100):
            producer.enqueue(intent(f"parent-{n}"))
        assert os.waitpid(child, 0)[1] == 0
        producer.enqueue(intent("after"))
    expected = [f"{who}-{n}" for who in ("child", "parent") for n in range(100)]
    assert keys(amqp_url) == sorted(["before", "after", *expected])
