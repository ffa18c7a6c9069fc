"""What every test may use: a real Postgres and a real Redis of this run alone.

They are Converge's own embedded servers, with durability off. A run that was killed leaves its
servers behind; the next run takes over their folder, and them, and ends them.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from redis import Redis

from app.embedded import DataFolderInUse, EmbeddedServers, Endpoints
from app.store import migrate

TEMPLATE = "template_converge"

# A busy machine is no fault of an example.
settings.register_profile("converge", deadline=None)
settings.load_profile("converge")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees no CONVERGE_ variable but its own."""
    for name in [name for name in os.environ if name.startswith("CONVERGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[Endpoints]:
    """The Postgres and the Redis of this run."""
    for number in count():
        folder = Path(tempfile.gettempdir(), f"converge-tests-{os.getuid()}-{number}")
        embedded = EmbeddedServers(folder, safe=False, exclusive=True)
        try:
            endpoints = embedded.start()
        except DataFolderInUse:  # another run of the tests
            continue
        break
    yield endpoints
    embedded.discard()


@pytest.fixture(scope="session")
def postgres_url(servers: Endpoints) -> str:
    """A server with a migrated template database; a test wants `database_url` instead."""
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        left = "SELECT datname FROM pg_database WHERE datname LIKE 'test_%%' OR datname = %s"
        for (name,) in admin.execute(left, (TEMPLATE,)).fetchall():
            _drop(admin, name)
        admin.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate.upgrade(_with_database(servers.database_url, TEMPLATE))
    return servers.database_url


@contextmanager
def empty_database(postgres_url: str) -> Iterator[str]:
    """A migrated, empty database for as long as the block runs."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield _with_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        _drop(admin, name)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated, empty database of this test alone."""
    with empty_database(postgres_url) as url:
        yield url


@pytest.fixture
def redis_url(servers: Endpoints) -> str:
    """An empty Redis."""
    with Redis.from_url(servers.redis_url) as connection:
        connection.flushall()
    return servers.redis_url


def _with_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def _drop(admin: psycopg.Connection, name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
