"""Processes by identity: a pid together with its start time, so that no other one is ever ended."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import psutil

_POLL_S = 0.01
_FOR_SERVERS = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class RunAs:
    """The unprivileged user that a root session runs Postgres as (it refuses to run as root)."""

    uid: int
    gid: int

    @classmethod
    def for_folder(cls, folder: Path) -> Self | None:
        """Whom to run as: None unless we are root; else the owner of `folder`, or nobody."""
        if os.geteuid() != 0:
            return None
        if folder.exists() and (owner := folder.stat()).st_uid != 0:
            return cls(owner.st_uid, owner.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            return cls(65534, 65534)
        return cls(nobody.pw_uid, nobody.pw_gid)

    def can_enter(self, folder: Path) -> bool:
        """Whether that user can reach `folder`; tried, not computed from mode bits."""
        try:
            run(["/bin/sh", "-c", 'cd "$1"', "sh", folder], self)
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def own(self, path: Path) -> None:
        """Give `path`, which we made, to that user."""
        os.chown(path, self.uid, self.gid)


def _identity_options(run_as: RunAs | None) -> dict[str, Any]:
    # The current folder may be one that the other user cannot enter, hence cwd.
    # Of our environment, which holds secrets, another user's process gets what programs need.
    kept = {name: os.environ[name] for name in _FOR_SERVERS if name in os.environ}
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "env": kept}
    if run_as is not None:
        options |= {"user": run_as.uid, "group": run_as.gid, "extra_groups": []}
    return options


def run(command: Sequence[str | Path], run_as: RunAs | None, timeout_s: float = 60) -> str:
    """Run to the end and return the standard output; raises `OSError`, `SubprocessError`."""
    done = subprocess.run(  # noqa: S603  # our own command line, no shell
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        **_identity_options(run_as),
    )
    return str(done.stdout)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that runs, or ran: its pid, when it started, and where it listens."""

    pid: int
    started: str
    port: int

    @classmethod
    def spawn(
        cls, command: Sequence[str | Path], run_as: RunAs | None, log: Path, port: int
    ) -> Self:
        """Start a server in a session of its own, so that Ctrl-C in our terminal is ours alone."""
        with private_log(log) as output:
            child = subprocess.Popen(  # noqa: S603  # our own command line, no shell
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **_identity_options(run_as),
            )
        child.returncode = 0  # psutil waits for it; Popen shall not warn that it still runs
        return cls(child.pid, _start_mark(child.pid), port)

    def find(self) -> psutil.Process | None:
        """The live process, or None when it is gone or its pid is now someone else's."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            same = _start_mark(self.pid) == self.started
        except (psutil.Error, OSError):
            return None
        return process if alive and same else None

    def end(self, stop_signal: signal.Signals, grace_s: float = 20) -> None:
        """Ask it to stop, wait, and kill it when it does not; nothing happens if it is gone.

        A zombie that nobody collects (a container's first process may not) counts as gone.
        """
        deadline = time.monotonic() + grace_s
        asked = False
        while (process := self.find()) is not None:
            with suppress(psutil.NoSuchProcess):
                if not asked:
                    process.send_signal(stop_signal)
                    asked = True
                elif time.monotonic() > deadline:
                    process.kill()
            time.sleep(_POLL_S)
        self._reap()

    def _reap(self) -> None:
        """Collect our own dead child, so that no zombie stays."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def private_log(path: Path) -> BinaryIO:
    """Open a log to append to, which nobody else may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _start_mark(pid: int) -> str:
    """When a process started, in a form that no step of the clock changes."""
    if sys.platform != "linux":
        return repr(psutil.Process(pid).create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Field 22 of /proc/PID/stat, in ticks since boot; the name before it may hold spaces: proc(5).
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot} {ticks}"
