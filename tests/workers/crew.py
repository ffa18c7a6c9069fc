"""Processes of one release, as an operator runs them, and how they end."""

import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from app.supervisor import Command, Supervisor
from config.settings import Settings
from workers.__main__ import GRACE_BEYOND_S


class Crew:
    """Processes of one release, as an operator runs them: commands kept alive by a supervisor.

    `environment` is what they see beside ours; the source of their release is in `root`.
    """

    def __init__(
        self, commands: Sequence[Command], workers: int, settings: Settings, log: Path, root: Path
    ) -> None:
        self._workers = workers
        self._log = log
        self.environment = settings.environment() | {
            "CONVERGE_LEASE_SECONDS": str(settings.lease_seconds),
            "CONVERGE_HINT_LOST_SECONDS": str(settings.hint_lost_seconds),
            "CONVERGE_WORKER_PROCESSES": str(settings.worker_processes),
            "CONVERGE_WORKER_THREADS": str(settings.worker_threads),
            "CONVERGE_SOFT_SHUTDOWN_SECONDS": str(settings.soft_shutdown_seconds),
            "CONVERGE_LOG_FORMAT": "json",
            "PYTHONWARNINGS": "default",
            "PYTHONPATH": f"{root}:{root / 'producer/src'}",
        }
        there = ("env", f"--chdir={root}")
        self._grace_s = settings.soft_shutdown_seconds + GRACE_BEYOND_S
        self._supervisor = Supervisor(
            [Command(one.name, (*there, *one.argv), self.environment) for one in commands],
            grace_s=self._grace_s,
            output=log,
        )

    def begin(self) -> None:
        """Start every process."""
        self._supervisor.start()

    def is_ready(self) -> bool:
        """Whether each takes work."""
        return self.logged("worker_ready") >= self._workers

    def stop(self) -> None:
        """Ask every process to end, and wait; a second time does nothing."""
        self._supervisor.stop()

    def end_well(self) -> float:
        """End as operators do: nobody need be killed. Return how many seconds it took."""
        running = [child.process for child in self._supervisor._children if child.process]
        began = time.monotonic()
        self.stop()
        took = time.monotonic() - began
        assert {process.returncode for process in running} == {0}, self.tail()
        assert not self.logged("child_killed"), self.tail()
        assert took < self._grace_s
        return took

    def poll(self) -> None:
        """Start again what crashed."""
        self._supervisor.poll()

    def logged(self, event: str) -> int:
        """How often the workers have said `event`."""
        return self.log().count(f'"{event}"')

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def tail(self) -> str:
        """The end of what the workers said."""
        return "\n".join(self.log().splitlines()[-40:])

    def process(self, name: str) -> psutil.Process:
        """The Celery process of that name, such as `email-1`; `beat` is beat."""
        for child in self._supervisor._children:
            if child.process is not None:
                parent = psutil.Process(child.process.pid)
                for each in (parent, *parent.children()):
                    if any(part.startswith(f"{name}@") for part in each.cmdline()):
                        return each
                if child.command.name == name:
                    return parent
        raise LookupError(name)
