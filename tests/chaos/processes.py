"""The processes of a fleet, kept running as an init system does: whatever ends is started again."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from app.supervisor import ChildFailed, Command, Supervisor

GRACE_S = 30.0


class Processes:
    """Children by name, each with a supervisor of its own, so that none is ever given up."""

    def __init__(self, commands: Sequence[Command], log: Path) -> None:
        self.log = log
        self._commands = {command.name: command for command in commands}
        self._supervisors = {command.name: self._supervisor(command) for command in commands}
        self.starts = 0

    def start(self) -> None:
        for supervisor in self._supervisors.values():
            supervisor.start()

    def poll(self) -> None:
        """Start again what has ended; to be called often."""
        for supervisor in self._supervisors.values():
            with suppress(ChildFailed):  # it is tried again at the next look
                supervisor.poll()

    def find(self, name: str) -> psutil.Process | None:
        """The process of that name, unless it is just being started again."""
        child = self._supervisors[name]._children[0].process
        if child is None or child.poll() is not None:
            return None
        return psutil.Process(child.pid)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Send a signal; say whether somebody was there to get it."""
        with suppress(psutil.NoSuchProcess):
            if process := self.find(name):
                process.send_signal(number)
                return True
        return False

    def kill_client(self, local_port: int, server_port: int) -> str | None:
        """Kill the process at the other end of a connection, if it is ours; return its name."""
        pids = {
            each.pid
            for each in psutil.net_connections("tcp4")
            if each.laddr
            and each.raddr
            and (each.laddr.port, each.raddr.port) == (local_port, server_port)
        }
        for name in self._commands:
            process = self.find(name)
            if process is not None and process.pid in pids:
                process.kill()
                return name
        return None

    def start_with(self, name: str, environment: Mapping[str, str]) -> None:
        """Kill a process and start it with more variables in its environment, or with no more."""
        self.send(name, signal.SIGKILL)
        self._supervisors[name].stop()
        command = self._commands[name]
        more = {**command.environment, **environment}
        self._supervisors[name] = self._supervisor(replace(command, environment=more))
        self._supervisors[name].start()

    def stop(self) -> None:
        """End all of them; they are asked together, so that they need not wait for each other."""
        for name in self._commands:
            self.send(name, signal.SIGCONT)
            self.send(name, signal.SIGTERM)
        for supervisor in self._supervisors.values():
            supervisor.stop()

    def logged(self, event: str) -> int:
        """How often they have said `event`."""
        return self.log.read_text(errors="replace").count(f'"{event}"')

    def said(self, lines: int) -> str:
        """The end of what they said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _supervisor(self, command: Command) -> Supervisor:
        return Supervisor([command], grace_s=GRACE_S, output=self.log)


def faketime_library() -> Path | None:
    """The library that shows a process another clock, where it is installed."""
    known = (
        "/usr/lib/*/faketime/libfaketime.so.1",
        "/usr/lib*/faketime/libfaketime.so.1",
        "/usr/local/lib/faketime/libfaketime.so.1",
    )
    return next((path for each in known for path in sorted(Path("/").glob(each[1:]))), None)


def clock_environment(library: Path, offset_s: int) -> dict[str, str]:
    """Variables under which a process sees the time of day off by so many seconds.

    Its monotonic clock goes right, as it does on a machine whose clock was set wrong.
    """
    shim = Path(__file__).with_name("wrong_clock")
    return {
        "LD_PRELOAD": " ".join(filter(None, (str(library), os.environ.get("LD_PRELOAD")))),
        "FAKETIME": f"{offset_s:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(shim), os.environ.get("PYTHONPATH")))),
    }
