"""The brokers that the workers' tests run on, and what may befall them.

RabbitMQ is a node of our own: its folder, its ports on loopback, its own port mapper; ended by pid.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kombu
from redis import Redis

from app.embedded import Endpoints
from converge_producer.queues import (
    DEAD_LETTERS,
    KEY_PREFIX,
    QUEUES,
    VISIBILITY_TIMEOUT_S,
    dead_letter_queue,
    task_queues,
)

START_S = 90.0
PROGRAMS = "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin"


class RedisBroker:
    """Redis as the broker; the same server keeps limits."""

    def __init__(self, url: str) -> None:
        self.url = self.redis_url = url

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with Redis.from_url(self.url) as redis:
            return int(redis.llen(KEY_PREFIX + queue))

    def forget_everything(self) -> None:
        with Redis.from_url(self.url) as redis:
            redis.flushall()

    def cut_connections(self) -> None:
        """Close every client's connection."""
        with Redis.from_url(self.url) as redis:
            redis.client_kill_filter(_type="normal", skipme=True)
            redis.client_kill_filter(_type="pubsub", skipme=True)

    def let_time_pass(self) -> None:
        """What somebody holds now was given to them a visibility time-out ago."""
        with Redis.from_url(self.url) as redis:
            index = f"{KEY_PREFIX}unacked_index"
            for tag in redis.zrange(index, 0, -1):
                redis.zincrby(index, -VISIBILITY_TIMEOUT_S, tag)


class RabbitMQNode:
    """A RabbitMQ of our own. `stop` and `start` again keep what is durable."""

    def __init__(self, home: Path) -> None:
        program = shutil.which("rabbitmq-server", path=PROGRAMS)
        assert program, "install the Debian package rabbitmq-server (make debian)"
        self._program = str(Path(program).resolve())
        self._home = home
        self._log = home / "out.log"
        self._process: subprocess.Popen[bytes] | None = None
        ports = _free_ports(3)
        self._name = f"test{ports[0]}@localhost"
        self.url = f"amqp://guest:guest@127.0.0.1:{ports[0]}//"
        self._environment = {
            **os.environ,
            "ERL_EPMD_PORT": str(ports[2]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "HOME": str(home),
            "RABBITMQ_BASE": str(home),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(ports[0]),
            "RABBITMQ_DIST_PORT": str(ports[1]),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._program], env=self._environment, stdout=out, stderr=out
            )
        give_up = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < give_up, self._log.read_text()

    def stop(self) -> None:
        """Stop it as its operators do."""
        assert self._process
        self._process.terminate()
        self._process.wait(START_S)

    def discard(self) -> None:
        """Stop it, and the port mapper that it started."""
        self.stop()
        subprocess.run(
            ["epmd", "-kill"], env=self._environment, check=True, capture_output=True, timeout=30
        )

    def control(self, *words: str) -> None:
        """Run `rabbitmqctl`, as an operator does."""
        program = Path(self._program).with_name("rabbitmqctl")
        subprocess.run(
            [str(program), "--node", self._name, *words],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def remove_queues(self) -> None:
        with kombu.Connection(self.url) as connection:
            for name in (*QUEUES, DEAD_LETTERS):
                connection.default_channel.queue_delete(name)

    def _answers(self) -> bool:
        try:
            with kombu.Connection(self.url, connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=0, timeout=2)
        except kombu.exceptions.OperationalError:
            return False
        return True


class RabbitMQBroker:
    """RabbitMQ as the broker; a Redis beside it keeps limits."""

    def __init__(self, node: RabbitMQNode, redis_url: str) -> None:
        self.node = node
        self.url = node.url
        self.redis_url = redis_url

    def waiting(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return messages_in_rabbitmq(self.url, queue)

    def forget_everything(self) -> None:
        with kombu.Connection(self.url) as connection:
            dead_letter_queue().bind(connection.default_channel).declare()
            for queue in task_queues(self.url):
                bound = queue.bind(connection.default_channel)
                bound.declare()
                bound.purge()

    def cut_connections(self) -> None:
        """Close every client's connection."""
        self.node.control("close_all_connections", "by the tests")

    def let_time_pass(self) -> None:
        """What a lost connection held is given to others at once."""


Broker = RedisBroker | RabbitMQBroker


def messages_in_rabbitmq(url: str, queue: str) -> int:
    """How many messages wait in a queue."""
    with kombu.Connection(url) as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


@contextmanager
def own_redis(servers: Endpoints) -> Iterator[str]:
    """A database of the Redis server that no other test uses."""
    url = f"{servers.redis_url.rpartition('/')[0]}/1"
    with Redis.from_url(url) as connection:
        connection.flushall()
    yield url


def _free_ports(number: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
