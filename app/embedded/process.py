"""Processes by identity: a pid together with its start time, so that no other one is ever ended."""

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

# The start time of a process is derived from the boot time, which moves a little with the clock.
START_TIME_TOLERANCE_S = 2.0


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
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/"}
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
    """A server that runs, or ran: who it is, where it listens, and what its command line holds."""

    pid: int
    started_at: float
    port: int
    mark: str

    @classmethod
    def spawn(
        cls, command: Sequence[str | Path], run_as: RunAs | None, log: Path, port: int, mark: str
    ) -> Self:
        """Start a server in a session of its own, so that Ctrl-C in our terminal is ours alone."""
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603  # our own command line, no shell
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_identity_options(run_as),
            )
        child.returncode = 0  # psutil waits for it; Popen shall not warn that it still runs
        return cls(child.pid, psutil.Process(child.pid).create_time(), port, mark)

    def find(self) -> psutil.Process | None:
        """The live process, or None when it is gone or its pid is now someone else's."""
        try:
            process = psutil.Process(self.pid)
            same = (
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.started_at) < START_TIME_TOLERANCE_S
                and any(self.mark in part for part in process.cmdline())
            )
        except psutil.Error:
            return None
        return process if same else None

    def end(self, stop_signal: signal.Signals, grace_s: float = 20) -> None:
        """Ask it to stop, wait, and kill it when it does not; nothing happens if it is gone."""
        process = self.find()
        if process is None:
            self._reap()
            return
        try:
            process.send_signal(stop_signal)
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(grace_s)
        except psutil.NoSuchProcess:
            return

    def _reap(self) -> None:
        """Collect our own dead child, so that no zombie stays."""
        try:
            os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return
