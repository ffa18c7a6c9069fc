"""Both servers of one data folder, as one thing that starts, is found again and stops."""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.embedded import postgres, redis
from app.embedded.binaries import ServerUnavailable, Source, find_redis
from app.embedded.process import ServerProcess

START_TIMEOUT_S = 60.0
START_TRIES = 3
_POLL_S = 0.02


class DataFolderInUse(Exception):
    """Another Converge owns the data folder, and the caller needed to own it."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers of a data folder answer, and the token secret that goes with its data."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    secret: str = field(repr=False)


class EmbeddedServers:
    """The Postgres and the Redis of one data folder.

    The first process that starts them owns them and stops them. A process that starts them while
    an owner lives is a guest: it gets the same endpoints, and its `stop` leaves them running.
    Servers whose owner was killed are taken over by the next start. POSIX only.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        source: Source = Source.ANY,
        safe: bool = True,
        exclusive: bool = False,
    ) -> None:
        """`safe=False` gives up durability, for tests. `exclusive` refuses to be a guest."""
        self.data_dir = data_dir.resolve()
        self.owned = False
        self._source = source
        self._safe = safe
        self._exclusive = exclusive
        self._lock: int | None = None
        self._running: dict[str, ServerProcess] = {}
        self._stop_signals = {"postgres": postgres.STOP_SIGNAL, "redis": redis.STOP_SIGNAL}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where they answer; only after `start`."""
        return self._endpoints(self._read_state())

    def start(self) -> Endpoints:
        """Start or find both servers and wait until they answer.

        Raises `ServerUnavailable` when a program is missing or does not start, and
        `DataFolderInUse` when this process was to own the folder and another one does.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._take_ownership():
            if self._exclusive:
                raise DataFolderInUse(
                    f"{self.data_dir} belongs to another running Converge. Stop that one, or set "
                    "CONVERGE_DATA_DIR to another folder."
                )
            if self._answers(self._read_state()):
                return self.endpoints
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"Another Converge owns {self.data_dir}, but its servers do not answer."
                )
            time.sleep(_POLL_S)
        try:
            self._start_owned()
        except BaseException:
            self.stop()
            raise
        return self.endpoints

    def find(self) -> Endpoints | None:
        """Where the servers of the folder answer, if they run; starts and owns nothing."""
        return self.endpoints if self._answers(self._read_state()) else None

    def stop(self) -> None:
        """End the servers if this process owns them; may be called twice."""
        if not self.owned:
            return
        self._end_all()
        self._write_state(self._read_state() | {"servers": {}})
        self._release_ownership()

    def discard(self) -> None:
        """Stop them and remove the folder with all data, if this process owns it; for tests."""
        if self.owned:
            self._end_all()
            # Put aside first: what another process begins here meanwhile is not ours to remove.
            gone = self.data_dir.with_name(f"{self.data_dir.name}.gone-{os.getpid()}")
            self.data_dir.rename(gone)
            shutil.rmtree(gone)
            self._release_ownership()

    def _end_all(self) -> None:
        for name, process in self._running.items():
            process.end(self._stop_signals[name])
        self._running.clear()

    def _start_owned(self) -> None:
        state = self._read_state()
        if "password" not in state:
            state |= {"password": secrets.token_hex(24), "secret": secrets.token_urlsafe(48)}
            self._write_state(state)
        password = state["password"]
        self._running = self._left_running(state)
        if "redis" not in self._running:
            program = find_redis(self._source)
            self._bring_up(
                "redis",
                lambda port: redis.start(program, self.data_dir, port, password, self._safe),
                lambda port: redis.ping(port, password),
                self.data_dir / "redis.log",
            )
        if "postgres" not in self._running:
            home = postgres.home_for(self.data_dir)
            programs = postgres.programs_for(home, self._source)
            postgres.make_cluster(home, programs, password)
            self._bring_up(
                "postgres",
                lambda port: postgres.start(home, programs, port, self._safe),
                lambda port: postgres.ping(port, password),
                home.log,
            )

    def _left_running(self, state: dict[str, Any]) -> dict[str, ServerProcess]:
        """Take over what a killed owner left behind; end what runs but does not answer."""
        pings = {"postgres": postgres.ping, "redis": redis.ping}
        kept = {}
        for name, process in self._recorded(state).items():
            if process.find() is None:
                continue
            if pings[name](process.port, state["password"]):
                kept[name] = process
            else:
                process.end(self._stop_signals[name])
        return kept

    def _bring_up(
        self,
        name: str,
        start: Callable[[int], ServerProcess],
        ping: Callable[[int], bool],
        log: Path,
    ) -> None:
        """Start a server and record it at once; somebody may take its free port first."""
        for _ in range(START_TRIES):
            process = start(_free_port())
            self._running[name] = process
            servers = {known: asdict(each) for known, each in self._running.items()}
            self._write_state(self._read_state() | {"servers": servers})
            deadline = time.monotonic() + START_TIMEOUT_S
            while process.find() is not None and time.monotonic() < deadline:
                if ping(process.port):
                    return
                time.sleep(_POLL_S)
            process.end(signal.SIGKILL)
            del self._running[name]
        raise ServerUnavailable(
            f"The embedded {name} did not start. The end of {log}:\n{_tail(log)}"
        )

    def _answers(self, state: dict[str, Any]) -> bool:
        servers = self._recorded(state)
        return (
            {"postgres", "redis"} <= servers.keys()
            and redis.ping(servers["redis"].port, state["password"])
            and postgres.ping(servers["postgres"].port, state["password"])
        )

    @staticmethod
    def _recorded(state: dict[str, Any]) -> dict[str, ServerProcess]:
        return {name: ServerProcess(**fields) for name, fields in state.get("servers", {}).items()}

    def _endpoints(self, state: dict[str, Any]) -> Endpoints:
        servers = self._recorded(state)
        return Endpoints(
            database_url=postgres.url(servers["postgres"].port, state["password"]),
            redis_url=redis.url(servers["redis"].port, state["password"]),
            secret=state["secret"],
        )

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(parents=True)
        except FileExistsError:
            return  # as it was before, or another process begins here this moment
        # Ours: the user that runs Postgres passes through, whatever the umask; none may list.
        self.data_dir.chmod(0o711)

    def _take_ownership(self) -> bool:
        self._make_folder()
        path = self.data_dir / "owner.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # discarded meanwhile
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(lock), path.stat())  # else it was discarded meanwhile
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            os.close(lock)
            return False
        self._lock, self.owned = lock, True
        return True

    def _release_ownership(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self.owned = None, False

    @property
    def _state_file(self) -> Path:
        return self.data_dir / "servers.json"

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ServerUnavailable(
                f"{self._state_file} cannot be read. It holds the password of the data beside it: "
                "restore it, or move the folder away to begin anew."
            ) from error
        return state

    def _write_state(self, state: dict[str, Any]) -> None:
        unfinished = self._state_file.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(state))
        unfinished.replace(self._state_file)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _tail(log: Path, lines: int = 8) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
