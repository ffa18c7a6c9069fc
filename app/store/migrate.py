"""Bring a database to the schema of this release.

Migrations expand first and contract a release later (docs/decisions/0007), so that two releases run
side by side while one follows the other. Revisions are ordered by name.
"""

import time
from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app.store import schema
from app.store.session import make_engine

_LOCK = 7_230_114_205
"""Advisory lock number: two migrating processes wait for each other."""
_LOOK_AGAIN_S = 0.2
_TABLE_LOCK_MS = 3_000
"""Longest wait for a table: whoever wants it meanwhile stands in line behind us."""
_TABLE_PATIENCE_S = 120.0
"""So long a table that is busy is asked for again."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What migrating did: the revisions that are new (oldest first), where the database is now,
    and which revision this release is of."""

    new: tuple[str, ...]
    now: str
    release: str


def upgrade(database_url: str) -> Upgraded:
    """Run the migrations that are missing, each in a transaction of its own.

    Safe to repeat, and from many processes at once. A database of a newer release is left alone;
    raises `schema.WrongSchema` where this release does not work on it.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            _wait_for_turn(connection)
            before = schema.revision(connection)
            if before is not None and before >= schema.RELEASE:
                schema.check(connection)
                return Upgraded((), before, schema.RELEASE)
            config = _config()
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(f"SET lock_timeout = {_TABLE_LOCK_MS}"))
            connection.commit()
            config.attributes["connection"] = connection
            _run(connection, config)
            steps = ScriptDirectory.from_config(config).iterate_revisions("head", before or "base")
            new = tuple(reversed([step.revision for step in steps]))
            return Upgraded(new, schema.RELEASE, schema.RELEASE)
    finally:
        engine.dispose()  # with the connection goes the lock


def _wait_for_turn(connection: Connection) -> None:
    # A statement that waits for the lock would hold a snapshot, and so hold up an index that the
    # one who has the lock builds concurrently. So we ask again and again.
    asked = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.execute(asked, {"lock": _LOCK}).scalar_one():
        connection.commit()
        time.sleep(_LOOK_AGAIN_S)
    connection.commit()


def _run(connection: Connection, config: Config) -> None:
    give_up = time.monotonic() + _TABLE_PATIENCE_S
    while True:
        try:
            command.upgrade(config, "head")
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > give_up:
                raise
            connection.rollback()
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    return config
