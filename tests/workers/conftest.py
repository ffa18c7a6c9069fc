"""The brokers and the fleet of the workers' tests, each made once and shared by a module."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from app.embedded import Endpoints
from tests.conftest import empty_database
from tests.workers.brokers import Broker, RabbitMQBroker, RabbitMQNode, RedisBroker, own_redis
from tests.workers.fleet import Fleet, running_fleet


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQNode]:
    """A RabbitMQ of this run alone."""
    node = RabbitMQNode(tmp_path_factory.mktemp("rabbitmq"))
    node.start()
    yield node
    node.discard()


@pytest.fixture(scope="module")
def amqp_url(rabbitmq: RabbitMQNode) -> str:
    """A RabbitMQ without queues."""
    rabbitmq.remove_queues()
    return rabbitmq.url


@pytest.fixture(
    scope="module",
    params=["redis", pytest.param("rabbitmq", marks=[pytest.mark.debian, pytest.mark.long])],
)
def broker(request: pytest.FixtureRequest, servers: Endpoints) -> Iterator[Broker]:
    """The broker of a module's tests, empty; they run on each in turn."""
    with own_redis(servers) as redis_url:
        if request.param == "redis":
            yield RedisBroker(redis_url)
        else:
            node: RabbitMQNode = request.getfixturevalue("rabbitmq")
            node.remove_queues()
            yield RabbitMQBroker(node, redis_url)


@pytest.fixture(scope="module")
def accounts() -> dict[str, dict[str, Any]]:
    """Live messages go out by `relay`.

    Those of test keys go to `rough`, which drops every 97th connection when it has taken the
    message and before it says so.
    """
    return {
        "relay": {"sink": ("--ack-latency", "0.005")},
        "rough": {"sink": ("--drop-before-ack-every", "97"), "sandbox": True},
    }


@pytest.fixture(scope="module")
def fleet(
    postgres_url: str,
    broker: Broker,
    accounts: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """One fleet for the tests of a module, each with a campaign of its own."""
    folder = tmp_path_factory.mktemp("fleet")
    with (
        pytest.MonkeyPatch.context() as environment,
        empty_database(postgres_url) as database_url,
    ):
        for name in [name for name in os.environ if name.startswith("CONVERGE_")]:
            environment.delenv(name)
        with running_fleet(database_url, broker, folder, accounts) as fleet:
            yield fleet
