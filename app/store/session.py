"""Connections to the ledger."""

from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url

APPLICATION = "converge"


def make_engine(database_url: str, pool_size: int = 8) -> Engine:
    """Make an engine for `database_url` (postgresql://…); nothing is connected yet.

    Every statement has a time limit below a lease, so that no worker hangs on the ledger.
    """
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_recycle=1800,
        json_deserializer=orjson.loads,
        hide_parameters=True,  # an error's text never quotes a row
        connect_args={
            "application_name": APPLICATION,
            "connect_timeout": 5,
            "options": "-c timezone=UTC -c statement_timeout=30000 "
            "-c idle_in_transaction_session_timeout=60000",
        },
    )


def as_rows(rows: list[dict[str, Any]]) -> str:
    """Many rows as one JSON document, the form in which set-based statements take them.

    One document costs no more than one array per column and keeps a statement readable. Raises
    `TypeError` for what is no JSON, such as a whole number of over 64 bits.
    """
    return orjson.dumps(rows).decode()


def lock_intents(connection: Connection, ids: list[str]) -> None:
    """Lock intents in the one order, by id, before their deliveries are touched."""
    connection.execute(
        text("SELECT id FROM intents WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"),
        {"ids": ids},
    )
