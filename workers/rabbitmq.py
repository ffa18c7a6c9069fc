"""What RabbitMQ wants beside Celery: queues that are there, a way back for what it put aside."""

from typing import Any

import kombu
import structlog

from converge_producer.queues import (
    DEAD_LETTERS,
    INTENTS,
    dead_letter_queue,
    task_queues,
    transport_options,
)

log = structlog.get_logger()

CONFIRM_S = 5.0
LONGEST_PAUSE_S = 5


def declare_queues(url: str) -> None:
    """Declare every queue, also those that others serve; wait for RabbitMQ if need be.

    Celery binds all of them as it starts, and says of each that is missing that it failed.
    """
    with kombu.Connection(url, connect_timeout=LONGEST_PAUSE_S) as connection:
        connection.ensure_connection(_waits, interval_start=1, interval_max=LONGEST_PAUSE_S)
        for queue in (dead_letter_queue(), *task_queues(url)):
            queue.bind(connection.default_channel).declare()


def revive(url: str) -> int:
    """Put back what was put aside; return how many chunks. Stopped halfway, nothing is lost.

    A chunk that comes twice by that is accepted once.
    """
    (queue,) = (queue for queue in task_queues(url) if queue.name == INTENTS)
    with kombu.Connection(url, transport_options=transport_options(url)) as connection:
        channel = connection.default_channel
        dead_letter_queue().bind(channel).declare()
        producer = connection.Producer(channel)
        waiting: int = channel.queue_declare(DEAD_LETTERS, passive=True).message_count
        for number in range(waiting):
            message = channel.basic_get(DEAD_LETTERS)
            if message is None:
                return number
            producer.publish(
                message.body,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                headers=_own(message.headers),
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                correlation_id=message.properties.get("correlation_id"),
                delivery_mode=2,
                confirm_timeout=CONFIRM_S,
            )
            channel.basic_ack(message.delivery_tag)
    return waiting


def _waits(error: BaseException, pause_s: float) -> None:
    # The kind alone: its text may hold the URL.
    log.warning("broker_away", kind=type(error).__name__, again_in_s=pause_s)


def _own(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers without those in which RabbitMQ keeps its counts."""
    return {name: value for name, value in headers.items() if not name.startswith("x-")}
