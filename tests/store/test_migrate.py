"""Releases follow each other on one database: what migrates, what waits, and what refuses to work.

A release is this one's migrations and some of a test's own.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from app.store import migrate, schema
from app.store.migrate import upgrade
from app.store.schema import WrongSchema, check
from app.store.session import make_engine
from tests.store.conftest import House, customer, intent

HEAD = schema.RELEASE
NEXT = f"{int(HEAD) + 1:04}"
AFTER_NEXT = f"{int(HEAD) + 2:04}"
EXPANDS = 'op.execute("ALTER TABLE brands ADD COLUMN motto text")'
CONTRACTS = """op.execute("UPDATE schema_contract SET works_from = '{revision}'")"""
SMALL = {"api_keys", "brands", "senders", "topics"}
INDEXES = """with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS brands_motto")
        op.execute("CREATE INDEX CONCURRENTLY brands_motto ON brands (name)")"""

Release = Callable[..., None]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Become a release with the migrations given: what each does, beyond those there are."""
    here = Path(migrate.__file__).parent / "migrations"
    numbers = iter(range(100))

    def become(*bodies: str) -> None:
        folder = tmp_path / str(next(numbers))
        shutil.copytree(here, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for number, body in enumerate(bodies, int(HEAD) + 1):
            revision = f"{number:04}"
            (folder / "versions" / f"{revision}_more.py").write_text(
                "from alembic import op\n"
                f"revision, down_revision = '{revision}', '{number - 1:04}'\n"
                f"def upgrade() -> None:\n    {body.format(revision=revision)}\n"
            )
        monkeypatch.setattr(schema, "MIGRATIONS", folder)
        monkeypatch.setattr(schema, "RELEASE", f"{int(HEAD) + len(bodies):04}")

    return become


def refusal(engine: Engine) -> str:
    with engine.begin() as connection, pytest.raises(WrongSchema) as refused:
        check(connection)
    return str(refused.value)


def test_an_empty_database_says_which_command_to_run(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    assert "is empty" in refusal(engine)
    assert "`converge migrate`" in refusal(engine)
    done = upgrade(database_url)
    assert (done.new[0], done.new[-1], done.now) == ("0001", HEAD, HEAD)
    assert upgrade(database_url).new == ()
    with engine.begin() as connection:
        check(connection)


def test_a_release_waits_for_its_migration(
    database_url: str, engine: Engine, release: Release
) -> None:
    release(EXPANDS)
    assert refusal(engine) == (
        f"the database is at schema {HEAD}, this release needs {NEXT}: run `converge migrate`"
    )
    assert upgrade(database_url).new == (NEXT,)
    with engine.begin() as connection:
        check(connection)


def test_the_release_before_works_on_what_was_expanded(
    database_url: str, engine: Engine, release: Release
) -> None:
    release(EXPANDS)
    upgrade(database_url)
    release()  # the old one, restarted or rolled back
    with engine.begin() as connection:
        check(connection)
    done = upgrade(database_url)
    assert (done.new, done.now, done.release) == ((), NEXT, HEAD)


def test_an_old_release_stops_where_it_does_not_work_any_more(
    database_url: str, engine: Engine, release: Release
) -> None:
    release(EXPANDS, CONTRACTS)
    upgrade(database_url)
    release()
    said = refusal(engine)
    assert "deploy the newer release" in said
    assert "converge migrate" not in said
    with pytest.raises(WrongSchema, match="deploy the newer release"):
        upgrade(database_url)
    release(EXPANDS)
    assert AFTER_NEXT in refusal(engine), "nor does the one between"


def test_half_migrated_is_mended_by_the_same_command(
    database_url: str, engine: Engine, release: Release
) -> None:
    release(EXPANDS, 'op.execute("ALTER TABLE brands ADD COLUMN"); raise RuntimeError("no disk")')
    with pytest.raises(Exception, match="syntax"):
        upgrade(database_url)
    assert f"is at schema {NEXT}" in refusal(engine)
    assert "`converge migrate`" in refusal(engine)
    release(EXPANDS, "pass")
    assert upgrade(database_url).new == (AFTER_NEXT,)
    with engine.begin() as connection:
        check(connection)


def test_an_index_is_built_beside_work_and_by_one_of_many(
    database_url: str, engine: Engine, release: Release
) -> None:
    """Those that wait for their turn hold nothing that the index waits for."""
    release(INDEXES, EXPANDS)
    with engine.connect() as working:
        working.execute(text("LOCK TABLE brands IN ROW EXCLUSIVE MODE"))  # as writing does
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(upgrade, database_url) for _ in range(3)]
            with engine.connect() as looking:
                _until(looking, "query LIKE 'CREATE INDEX CONCURRENTLY%' AND state = 'active'")
            working.rollback()
            new = sorted(one.result().new for one in done)
    assert new == [(), (), (NEXT, AFTER_NEXT)]


def test_what_is_in_use_is_neither_indexed_nor_checked_under_a_lock() -> None:
    """Of tables that a release before has: a whole scan of a big ledger would stop its writers."""
    folder = Path(migrate.__file__).parent / "migrations/versions"
    files = sorted(folder.glob("0*.py"))[1:]
    assert files
    for file in files:
        source = re.sub(r"--.*", "", file.read_text())
        new = set(re.findall(r"CREATE TABLE (\w+)", source))
        indexed = re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+)\s+ON (\w+)", source)
        assert [name for name, table in indexed if table not in new] == [], file.name
        altered = re.findall(r"ALTER TABLE (\w+)([^;]*)", source)
        checked = [
            table
            for table, what in altered
            if table not in new | SMALL and "CHECK" in what and "NOT VALID" not in what
        ]
        assert checked == [], file.name


def test_every_index_and_check_is_whole(engine: Engine) -> None:
    with engine.begin() as connection:
        indexes = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
        assert connection.execute(text(indexes)).scalars().all() == []
        checks = "SELECT conname FROM pg_constraint WHERE NOT convalidated"
        assert connection.execute(text(checks)).scalars().all() == []


def test_a_busy_table_is_waited_for_without_a_line_behind(
    database_url: str, engine: Engine, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_TABLE_LOCK_MS", 50)
    release(EXPANDS)
    refused = threading.Event()
    run = migrate.command.upgrade

    def counted(config: Config, revision: str) -> None:
        try:
            run(config, revision)
        except BaseException:
            refused.set()
            raise

    monkeypatch.setattr(migrate.command, "upgrade", counted)
    with engine.connect() as working, ThreadPoolExecutor(1) as pool:
        working.execute(text("SELECT count(*) FROM brands"))
        done = pool.submit(upgrade, database_url)
        assert refused.wait(30)
        with engine.begin() as other:
            other.execute(text("SET lock_timeout = 5000"))
            other.execute(text("SELECT count(*) FROM brands"))
        working.rollback()
        assert done.result(30).new == (NEXT,)


def test_revisions_are_ordered_by_name_and_the_contract_is_one_of_them(engine: Engine) -> None:
    script = ScriptDirectory.from_config(migrate._config())
    revisions = [one.revision for one in reversed(list(script.walk_revisions()))]
    assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]
    with engine.begin() as connection:
        assert schema._works_from(connection) in revisions
    assert script.get_current_head() == schema.RELEASE


def test_a_running_release_refuses_no_intent_for_a_ledger_that_contracted(house: House) -> None:
    """Its statements fail; the chunk is whole, and for a release that can take it."""
    house.execute("ALTER TABLE intents RENAME COLUMN campaign TO drive")
    with pytest.raises(ProgrammingError):
        house.accept(intent(customer(), key="k1"), keep_refusals=True)
    assert house.rows("SELECT FROM refusals") == []


def _until(looking: Connection, what: str) -> None:
    query = text(f"SELECT count(*) FROM pg_stat_activity WHERE {what}")
    for _ in range(2_000):
        if looking.execute(query).scalar_one():
            return
        looking.rollback()
        threading.Event().wait(0.01)
    pytest.fail("it did not come to pass")
