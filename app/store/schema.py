"""Whether this release works on a database: which schema it needs, and which is there.

Every process and every command asks; only who migrates needs Alembic, whose import takes as long
as all the rest of a short command.
"""

from importlib import resources
from pathlib import Path

from sqlalchemy import Connection, text

MIGRATIONS = Path(str(resources.files("app.store").joinpath("migrations")))
RELEASE = max(path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
"""The revision that this release is of: revisions are ordered by name."""


class WrongSchema(Exception):
    """This release does not work on the database; the message says what to do."""


def check(connection: Connection) -> None:
    """Raise `WrongSchema` unless this release works on the database."""
    now = revision(connection)
    if now is None:
        raise WrongSchema(
            f"the database is empty, this release needs schema {RELEASE}: run `converge migrate`"
        )
    if now < RELEASE:
        raise WrongSchema(
            f"the database is at schema {now}, this release needs {RELEASE}: run `converge migrate`"
        )
    if now > RELEASE and (works_from := _works_from(connection)) > RELEASE:
        raise WrongSchema(
            f"the database is at schema {now}, where releases of schema {works_from} and later "
            f"work, and this one is of {RELEASE}: deploy the newer release"
        )


def revision(connection: Connection) -> str | None:
    """The revision of the database; None where nothing was migrated yet."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _works_from(connection: Connection) -> str:
    """The oldest revision whose release still works here."""
    return str(connection.execute(text("SELECT works_from FROM schema_contract")).scalar_one())
