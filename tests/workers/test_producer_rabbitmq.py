"""Publishing to a real RabbitMQ: quorum queues, confirms, cut connections, fork."""

import json
import os
import socket
import time

import kombu
import pytest

from converge_producer import Intent, Producer
from converge_producer.publishing import Publisher
from converge_producer.queues import DEAD_LETTERS, INTENTS, QUEUES, TASK_ACCEPT, task_queues

pytestmark = [pytest.mark.debian, pytest.mark.long]


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


def test_every_queue_is_counted_also_those_that_are_not_there(amqp_url: str) -> None:
    publisher = Publisher(amqp_url)
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")
    for _ in range(2):
        give_up = time.monotonic() + 10
        while (found := publisher.depths())[INTENTS] != 1:  # the count lags behind the confirm
            assert time.monotonic() < give_up
        assert found == dict.fromkeys((*QUEUES, DEAD_LETTERS), 0) | {INTENTS: 1}
    publisher.publish(TASK_ACCEPT, {"v": 1}, INTENTS, "<x>")  # its connection still serves
    publisher.close()
    assert len(drain(amqp_url)) == 2


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
