"""Connections to the ledger."""

import select
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
import psycopg
from sqlalchemy import Connection, Engine, TextClause, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

APPLICATION = "converge"
LEDGER_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""What a ledger raises that cannot be asked now: whoever asked may come again.

Internal errors are among them, for that is what drivers call a server that takes no writes since a
failover, or a session that it ended.
"""
STATEMENT_TIMEOUT_S = 30
NETWORK = {
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
"""How long a server that has vanished without a word is believed in (libpq's parameters).

The statement's time limit is the server's own; without these a client waits for what TCP allows, a
quarter of an hour and more, with its thread and its lease.
"""
POOL_TIMEOUT_S = 30
PING_AFTER_S = 5.0
"""A connection that lay idle for so long is asked whether it still holds before it is used."""


def make_engine(database_url: str, pool_size: int = 8) -> Engine:
    """Make an engine for `database_url` (postgresql://…); nothing is connected yet.

    Every statement has a time limit below a lease, so that no worker hangs on the ledger.
    """
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=1800,
        json_deserializer=orjson.loads,
        hide_parameters=True,  # an error's text never quotes a row
        connect_args={
            "application_name": APPLICATION,
            **NETWORK,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_S}s "
            "-c idle_in_transaction_session_timeout=60000",
        },
    )
    _ping_idle(engine)
    return engine


def _ping_idle(engine: Engine) -> None:
    """Let connections be asked whether they still hold, where that may be in doubt.

    A connection of a moment ago is in doubt only if the server has said something since, as it does
    when it closes one. To ask each time, as `pool_pre_ping` does, is a round trip a transaction.
    """

    @event.listens_for(engine, "checkin")
    def checked_in(_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_IDLE_SINCE)
        if since is None:  # made just now
            return
        try:
            if time.monotonic() - since >= PING_AFTER_S or _was_told(connection):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


def _was_told(connection: psycopg.Connection) -> bool:
    """Whether there is something to read on a connection on which nobody has asked anything."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_IDLE_SINCE = "converge_idle_since"


@lru_cache(1_000)
def sql(statement: str) -> TextClause:
    """`text` for statements that are constants and asked for all the time: a statement is searched
    for its parameters once, not each time (a long one takes 0.1 ms)."""
    return text(statement)


def as_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Many rows as one JSON document, the form in which set-based statements take them.

    One document costs no more than one array per column and keeps a statement readable. Raises
    `TypeError` for what is no JSON, such as a whole number of over 64 bits.
    """
    return orjson.dumps(rows, default=dict).decode()  # what is a mapping, and no dict


def lock_intents(connection: Connection, ids: list[str]) -> None:
    """Lock intents in the one order, by id, before their deliveries are touched."""
    connection.execute(
        text("SELECT id FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"),
        {"ids": ids},
    )


def read_only(connection: Connection) -> None:
    """Let the transaction that begins here change nothing, whatever it tries."""
    connection.execute(text("SET TRANSACTION READ ONLY"))
