"""The private Postgres: make the cluster once, start it, wait until it answers."""

import hashlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from app.embedded.binaries import (
    PostgresPrograms,
    ServerUnavailable,
    Source,
    find_postgres,
)
from app.embedded.process import RunAs, ServerProcess, run

USER = DATABASE = "converge"
# SIGTERM would wait for every client to leave; SIGINT rolls them back and stops in order.
STOP_SIGNAL = signal.SIGINT

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "work_mem": "16MB",
    "wal_buffers": "16MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # our statements are short: compiling them costs more than it saves
    "max_parallel_workers_per_gather": "0",  # /dev/shm is small in containers
    "timezone": "UTC",
    # Values of rows (addresses, texts) must not reach a log file.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}
# For tests alone: a power cut loses what was committed.
_UNSAFE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class PostgresHome:
    """Where the cluster is and who runs it."""

    folder: Path
    run_as: RunAs | None

    @property
    def cluster(self) -> Path:
        """Postgres's own data directory."""
        return self.folder / "postgres"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "postgres.log"


def home_for(data_dir: Path) -> PostgresHome:
    """Choose the folder for the cluster of `data_dir`: inside it wherever that is possible.

    As root the server runs as another user; when that one cannot enter `data_dir`, the cluster is
    kept in a folder of its own under /var, named after `data_dir`. No permission of a folder that
    is not ours is changed.
    """
    run_as = RunAs.for_folder(data_dir / "postgres")
    if run_as is None or run_as.can_enter(data_dir):
        return PostgresHome(data_dir, run_as)
    name = "converge-" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
    for folder in _homes_elsewhere(name):
        run_as = RunAs.for_folder(folder / "postgres")
        if run_as is None or run_as.can_enter(folder):
            return PostgresHome(folder, run_as)
    raise ServerUnavailable(
        f"Postgres does not run as root, and the user it would run as cannot enter {data_dir}. "
        "Set CONVERGE_DATA_DIR to a folder that every user may enter, such as /srv/converge, or "
        "start Converge as an ordinary user."
    )


def _homes_elsewhere(name: str) -> Iterator[Path]:
    for parent in (Path("/var/lib"), Path("/var/tmp")):  # noqa: S108  # checked to be ours below
        folder = parent / name
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        # /var/tmp is everyone's: somebody else's folder of that name is not trusted.
        if folder.stat().st_uid == 0 and not folder.is_symlink():
            yield folder


def programs_for(home: PostgresHome, source: Source) -> PostgresPrograms:
    """Find the programs; an existing cluster needs those of the version that made it."""
    version = home.cluster / "PG_VERSION"
    major = int(version.read_text().strip()) if version.exists() else None
    return find_postgres(source, home.run_as, home.folder, major=major)


def make_cluster(home: PostgresHome, programs: PostgresPrograms, password: str) -> None:
    """Run initdb unless the cluster exists; a first run that was cut short is begun again."""
    if home.cluster.exists():
        return
    unfinished = home.folder / "postgres.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file = home.folder / "postgres.password"
    password_file.touch(mode=0o600)
    try:
        password_file.write_text(password)
        if home.run_as is not None:
            home.run_as.own(unfinished)
            home.run_as.own(password_file)
        command: list[str | Path] = [
            programs.initdb,
            "-D",
            unfinished,
            "-U",
            USER,
            f"--pwfile={password_file}",
        ]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        run(command, home.run_as)
        unfinished.rename(home.cluster)
    except subprocess.CalledProcessError as error:
        raise ServerUnavailable(
            f"initdb failed in {home.folder}: {error.stderr.strip()}"
        ) from error
    finally:
        password_file.unlink(missing_ok=True)


def start(home: PostgresHome, programs: PostgresPrograms, port: int, safe: bool) -> ServerProcess:
    """Start the server on `port`; it is not yet said to answer. `safe=False` is for tests."""
    _forget_stale_pid(home.cluster / "postmaster.pid")
    settings = _SETTINGS if safe else _SETTINGS | _UNSAFE_SETTINGS
    command: list[str | Path] = [programs.server, "-D", home.cluster, "-p", str(port)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return ServerProcess.spawn(command, home.run_as, home.log, port)


def _forget_stale_pid(file: Path) -> None:
    """Remove the pid file of a server that was killed, when its pid is another process's by now.

    Postgres would take that process for itself and not start. Where a Postgres has that pid, what
    to do is left to it: two servers on one cluster would destroy it.
    """
    try:
        if psutil.Process(int(file.read_text().split("\n")[0])).name() == "postgres":
            return
    except FileNotFoundError:
        return
    except (psutil.NoSuchProcess, ValueError):
        pass
    file.unlink()


def url(port: int, password: str, database: str = DATABASE) -> str:
    """The address of a database on that server."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}"


def ping(port: int, password: str) -> bool:
    """Whether it answers; makes our database when it is not there yet."""
    try:
        with psycopg.connect(
            url(port, password, "postgres"), connect_timeout=5, autocommit=True
        ) as db:
            known = db.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if known.fetchone() is None:
                db.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True
