"""The one way in which limits reach Redis, and what they raise when it is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

RedisClient: TypeAlias = Redis


class LimitsUnavailable(Exception):
    """Redis cannot be asked now. Whoever needs a permit must not send without one."""


def connect(url: str, timeout_s: float = 2.0) -> RedisClient:
    """Return a client for `redis://` or `rediss://`; it connects on first use.

    Safe over threads and, while unused, over fork. Every call ends within about twice
    `timeout_s`: a connection that a restart closed is opened once more, and that is all.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1),
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn whatever Redis or the way to it does into `LimitsUnavailable`, without its address."""
    try:
        yield
    except RedisError as error:
        raise LimitsUnavailable(f"Redis cannot be asked: {type(error).__name__}") from error
