"""Publishing tasks by name: Celery's message protocol 2 on kombu, without Celery.

Source: docs.celeryq.dev/en/stable/internals/protocol.html, and Celery's own `as_task_v2`, which the
tests compare against.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import kombu
import kombu.exceptions

from converge_producer.errors import BrokerUnreachable
from converge_producer.queues import (
    DEAD_LETTERS,
    PUBLISH_TIMEOUT,
    dead_letter_queue,
    is_redis,
    publisher_options,
    task_queues,
)
from converge_producer.wire import encode

_NO_CANVAS: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_PERSISTENT: Final = 2
_NOT_FOUND: Final = 404  # AMQP 0-9-1, 1.2: the reply codes
_TRYING: Final = PUBLISH_TIMEOUT + 1  # seconds, after which no further host is tried


@dataclass(frozen=True, slots=True)
class Message:
    """One task to publish.

    `payload` is the task's only argument, as a mapping or as JSON text made already. `argsrepr` is
    what Flower shows of it, so nothing private belongs there. `expires_s` is in seconds from now.
    """

    task: str
    payload: Mapping[str, Any] | str
    queue: str
    argsrepr: str
    expires_s: float | None = None


class Publisher:
    """Publishes tasks to a broker; connects on first use.

    Safe over threads (each caller borrows a connection of its own) and over fork (a child never
    touches a connection of its parent). Nothing is tried twice: after a failure the caller is told.
    Every method raises `BrokerUnreachable` within 5 s when the broker refuses, hangs or goes away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues = {queue.name: queue for queue in task_queues(url)}
        self._idle: list[_Line] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def publish(
        self,
        task: str,
        payload: Mapping[str, Any] | str,
        queue: str,
        argsrepr: str,
        expires_s: float | None = None,
    ) -> str:
        """Publish one task and return its id; a queue of another name is a `KeyError`."""
        return self.publish_many([Message(task, payload, queue, argsrepr, expires_s)])[0]

    def publish_many(self, messages: Iterable[Message]) -> list[str]:
        """Publish tasks in order and return their ids.

        On failure the error's `published` says how many of them the broker has confirmed.
        """
        routed = [(message, self._queues[message.queue]) for message in messages]
        line = self._borrow()
        ids: list[str] = []
        try:
            for message, queue in routed:
                task_id = str(uuid4())
                line.send(message, task_id, queue)
                ids.append(task_id)
        except BaseException as error:
            line.drop()
            if isinstance(error, line.errors):
                raise _unreachable(error, len(ids), uncertain=True) from error
            raise
        self._give_back(line)
        return ids

    def depths(self) -> dict[str, int]:
        """Count what waits in each queue, and in that of what was put aside; 0 for what is not
        there. What a worker holds, or has fetched to hold next, is not counted."""
        names = (*self._queues, DEAD_LETTERS)
        line = self._borrow()
        try:
            found = line.depths(names)
        except BaseException as error:
            line.drop()
            if isinstance(error, line.errors):
                raise _unreachable(error, 0, uncertain=False) from error
            raise
        self._give_back(line)
        return found

    def close(self) -> None:
        """Close what is open; publishing again opens anew."""
        with self._lock:
            idle, self._idle = self._idle, []
            inherited = self._pid != os.getpid()
        for line in idle:
            line.abandon() if inherited else line.close()

    def _borrow(self) -> "_Line":
        if self._pid != os.getpid():
            self._start_anew()
        while True:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            if line is None:
                return _Line(self._url)
            if not line.is_stale():
                return line
            line.drop()

    def _give_back(self, line: "_Line") -> None:
        with self._lock:
            self._idle.append(line)

    def _start_anew(self) -> None:
        # In a child the lock may have been copied while held, and the sockets are the parent's.
        inherited, self._idle = self._idle, []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        for line in inherited:
            line.abandon()


class _Line:
    """One open connection, used by one caller at a time."""

    def __init__(self, url: str) -> None:
        self._redis = is_redis(url)
        self._connection = kombu.Connection(
            url, transport_options=publisher_options(url), connect_timeout=PUBLISH_TIMEOUT
        )
        self.errors: tuple[type[BaseException], ...] = (
            *self._connection.connection_errors,
            *self._connection.recoverable_connection_errors,  # with RabbitMQ's nack
            *self._connection.channel_errors,
            OSError,
        )
        try:
            # One try for each host of a failover list; kombu's default would try for good.
            self._connection.ensure_connection(max_retries=url.count(";"), timeout=_TRYING)
            self._producer = self._connection.Producer(serializer="json")
        except (*self.errors, kombu.exceptions.OperationalError) as error:
            self.drop()
            raise _unreachable(error, 0, uncertain=False) from error

    def send(self, message: Message, task_id: str, queue: kombu.Queue) -> None:
        payload = message.payload if isinstance(message.payload, str) else encode(message.payload)
        self._producer.publish(
            f"[[{payload}],{{}},{_NO_CANVAS}]",
            content_type="application/json",
            content_encoding="utf-8",
            headers=_headers(message, task_id),
            correlation_id=task_id,
            reply_to="",
            delivery_mode=_PERSISTENT,
            expiration=None if message.expires_s is None else max(message.expires_s, 0),
            retry=False,
            **self._route(queue),
        )

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        if self._redis:
            with self._connection.default_channel.client.pipeline(transaction=False) as asking:
                for name in names:
                    asking.llen(name)
                return dict(zip(names, asking.execute(), strict=True))
        return {name: self._depth(name) for name in names}

    def _depth(self, name: str) -> int:
        # On a channel of its own: RabbitMQ closes the one that asks for a queue that is not there.
        with self._connection.channel() as channel:
            try:
                return int(channel.queue_declare(name, passive=True).message_count)
            except self._connection.channel_errors as error:
                if getattr(error, "code", None) != _NOT_FOUND:
                    raise
                return 0

    def _route(self, queue: kombu.Queue) -> dict[str, Any]:
        if self._redis:
            # The nameless exchange needs no bindings, which a FLUSHALL would take away.
            return {"exchange": "", "routing_key": queue.name}
        return {
            "exchange": queue.exchange,
            "routing_key": queue.routing_key,
            "declare": [dead_letter_queue(), queue],
            "confirm_timeout": PUBLISH_TIMEOUT,
        }

    def is_stale(self) -> bool:
        """Say whether the other side has hung up; redis-py looks for itself."""
        if self._redis:
            return False
        try:
            readable, _, _ = select.select([self._socket()], [], [], 0)
        except (OSError, ValueError, AttributeError):
            return True
        return bool(readable)  # nobody asked anything, so this can only be a farewell

    def close(self) -> None:
        _quietly(self._connection.release)

    def drop(self) -> None:
        """Close without a word to the other side, which may never answer."""
        _quietly(self._connection.release if self._redis else self._connection.collect)

    def abandon(self) -> None:
        """Let go of a parent's connection without a word on its socket."""
        if not self._redis:
            # py-amqp would shut the shared socket down for the parent too; redis-py checks the pid.
            _quietly(lambda: os.close(self._socket().detach()))

    def _socket(self) -> socket.socket:
        found: socket.socket = self._connection.connection.transport.sock
        return found


def _headers(message: Message, task_id: str) -> dict[str, Any]:
    expires = None
    if message.expires_s is not None:
        expires = (datetime.now(UTC) + timedelta(seconds=message.expires_s)).isoformat()
    return {
        "lang": "py",
        "task": message.task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": expires,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": message.argsrepr,
        "kwargsrepr": "{}",
        "origin": f"gen{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _unreachable(error: BaseException, published: int, *, uncertain: bool) -> BrokerUnreachable:
    # The type alone, and that of what kombu wrapped: a message may hold the URL with its password.
    kind = type(error.__cause__ or error).__name__
    told = BrokerUnreachable(f"the broker cannot be reached ({kind})", uncertain=uncertain)
    told.published = published
    return told


def _quietly(act: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):  # letting go of what is broken already
        act()
