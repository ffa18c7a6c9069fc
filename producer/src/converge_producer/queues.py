"""The names that producers and workers share: queues, tasks, keys; and how kombu declares them.

One queue per channel and lane, because Redis priorities would starve the bulk lane. A queue name is
also its routing key.
"""

from typing import Any, Final

from kombu import Exchange, Queue

from converge_producer.wire import CHANNELS, LANES

KEY_PREFIX: Final = "converge:"  # of every Redis key of the broker

INTENTS: Final = "intents"
DECISIONS: Final = "decisions"
FEEDBACK: Final = "feedback"
CONTROL: Final = "control"

TASK_ACCEPT: Final = "intents.accept"
TASK_DECIDE: Final = "decisions.decide"
TASK_FEEDBACK: Final = "feedback.read"
TASK_DISPATCH: Final = "control.dispatch"
TASK_UPKEEP: Final = "control.upkeep"

DELIVERY_LIMIT: Final = 5  # redeliveries on RabbitMQ; then a chunk is put aside, a hint let go
DEAD_LETTERS: Final = "dead"  # where RabbitMQ puts chunks that killed their workers
DEAD_LETTER_EXCHANGE: Final = "converge.dead"


def lane_queue(channel: str, lane: str) -> str:
    """Return the queue of a channel's lane, such as `email.bulk`."""
    return f"{channel}.{lane}"


def deliver_task(channel: str) -> str:
    """Return the name of a channel's delivery task, such as `email.deliver`."""
    return f"{channel}.deliver"


LANE_QUEUES: Final = tuple(lane_queue(channel, lane) for channel in CHANNELS for lane in LANES)
QUEUES: Final = (INTENTS, DECISIONS, FEEDBACK, CONTROL, *LANE_QUEUES)
TASKS: Final = (
    TASK_ACCEPT,
    TASK_DECIDE,
    TASK_FEEDBACK,
    TASK_DISPATCH,
    TASK_UPKEEP,
    *(deliver_task(channel) for channel in CHANNELS),
)

VISIBILITY_TIMEOUT_S: Final = 180
"""After which Redis gives what a killed worker held to another one. A run that takes longer is run
a second time beside it, which changes nothing: a repeated chunk or hint finds its work done."""
PUBLISH_TIMEOUT: Final = 2.0  # seconds; whoever publishes is somebody's web request


def is_redis(url: str) -> bool:
    """Say whether a broker URL means Redis (plain, TLS, Sentinel or a socket)."""
    return url.startswith(("redis:", "rediss:", "sentinel:", "redis+socket:"))


def task_queues(url: str) -> list[Queue]:
    """Return every queue as this broker wants it declared."""
    if is_redis(url):
        exchange = Exchange("converge", type="direct")
        return [Queue(name, exchange, routing_key=name) for name in QUEUES]
    exchange = Exchange("converge", type="topic", durable=True)
    return [
        Queue(
            name, exchange, routing_key=name, durable=True, queue_arguments=_quorum(name == INTENTS)
        )
        for name in QUEUES
    ]


def _quorum(keep: bool) -> dict[str, Any]:
    """A quorum queue's arguments, which never change: redeclaring it otherwise is an error.

    A chunk is nowhere else, so it is kept whatever happens; hints are in the ledger.
    """
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
    if not keep:
        return arguments
    # Without the strategy, a chunk could be lost on its way to the dead; it needs the overflow.
    return arguments | {
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def dead_letter_queue() -> Queue:
    """Return the queue for what RabbitMQ gave up on; declared, never consumed."""
    graveyard = Exchange(DEAD_LETTER_EXCHANGE, type="fanout", durable=True)
    return Queue(DEAD_LETTERS, graveyard, durable=True, queue_arguments={"x-queue-type": "quorum"})


def transport_options(url: str) -> dict[str, Any]:
    """Return kombu's transport options for workers and for everything that shares their keys."""
    if not is_redis(url):
        return {"confirm_publish": True}
    return {
        # Above the longest run, and the same everywhere: any consumer restores the others'.
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": False,  # a publish that timed out may have arrived
        "priority_steps": [0],
        "global_keyprefix": KEY_PREFIX,
    }


def publisher_options(url: str) -> dict[str, Any]:
    """Return the same options with the short timeouts of a caller that waits."""
    options = transport_options(url)
    if is_redis(url):
        options.update(
            socket_timeout=PUBLISH_TIMEOUT,
            socket_connect_timeout=PUBLISH_TIMEOUT,
            health_check_interval=0,  # a connection is looked at when it is taken anyway
        )
    else:
        options.update(
            connect_timeout=PUBLISH_TIMEOUT,
            read_timeout=PUBLISH_TIMEOUT,
            write_timeout=PUBLISH_TIMEOUT,
        )
    return options
