"""Connections to the ledger: how long a silent network is waited for, and what is asked of them."""

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from app.store import session
from app.store.session import make_engine
from app.usecases.runtime import Timing


@pytest.mark.skipif(sys.platform != "linux", reason="the names of these options are Linux's")
def test_a_server_that_vanished_is_given_up_before_a_lease_ends(database_url: str) -> None:
    engine = make_engine(database_url)
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        with socket.socket(fileno=os.dup(raw.fileno())) as ours:
            silent_s = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000
            asked = [
                ours.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
            ]
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    engine.dispose()
    idle, interval, count = asked
    assert 0 < silent_s < Timing().lease
    assert idle + interval * count < Timing().lease


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=3)
    yield engine
    engine.dispose()


def connected(engine: Engine, times: int = 1) -> list[int]:
    """Use so many connections at once; return the processes that serve them."""
    held = [engine.connect() for _ in range(times)]
    pids = [one.execute(text("SELECT pg_backend_pid()")).scalar_one() for one in held]
    for one in held:
        one.close()
    return pids


@pytest.fixture
def pings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that a connection was asked whether it still holds."""
    asked: list[None] = []
    do_ping = engine.dialect.do_ping

    def ping(connection: Any) -> bool:
        asked.append(None)
        return do_ping(connection)

    monkeypatch.setattr(engine.dialect, "do_ping", ping)
    return asked


def test_a_connection_in_use_is_not_asked_each_time(engine: Engine, pings: list[None]) -> None:
    assert connected(engine) == connected(engine) == connected(engine)
    assert pings == []


def test_one_that_lay_idle_is_asked(
    engine: Engine, pings: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connected(engine)
    monkeypatch.setattr(session, "PING_AFTER_S", 0.0)
    assert connected(engine) == before
    assert pings == [None]


def test_connections_that_the_server_closed_are_replaced(engine: Engine, database_url: str) -> None:
    gone = connected(engine, times=3)
    with psycopg.connect(database_url, autocommit=True) as other:
        for pid in gone:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert not set(connected(engine, times=3)) & set(gone)
