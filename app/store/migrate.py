"""Bring a database to the schema of this release, and say whether it is there."""

from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.store.session import make_engine

_LOCK = 7_230_114_205
"""Advisory lock number: two migrating processes wait for each other."""


class WrongSchema(Exception):
    """The database is not at this release's schema; the message says which command to run."""


def upgrade(database_url: str) -> list[str]:
    """Run the migrations that are missing; return their revisions, oldest first."""
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            before = MigrationContext.configure(connection).get_current_revision()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            script = ScriptDirectory.from_config(config)
            new = [step.revision for step in script.iterate_revisions("head", before or "base")]
            return list(reversed(new))
    finally:
        engine.dispose()


def check(connection: Connection) -> None:
    """Raise `WrongSchema` unless the database is at this release's schema."""
    current = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    if current != wanted:
        raise WrongSchema(
            f"the database is at schema {current or 'none'}, this release needs {wanted}: "
            "run `converge migrate` (if the database is newer, deploy the newer release)"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(resources.files("app.store").joinpath("migrations"))
    )
    return config
