"""The fixtures that all other tests stand on."""

import socket

import psycopg
import pytest
from redis import Redis


def test_a_test_gets_a_migrated_database_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert version is not None


def test_a_test_gets_an_empty_redis(redis_url: str) -> None:
    with Redis.from_url(redis_url) as connection:
        assert connection.dbsize() == 0


def test_no_test_reaches_another_machine() -> None:
    with socket.socket() as outward, pytest.raises(UserWarning, match=r"192\.0\.2\.1"):
        outward.connect(("192.0.2.1", 80))
