"""Child processes that belong together: started, started again when they crash, ended in order."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

import structlog

log = structlog.get_logger()

# A child that lives shorter than this has not come up; after so many in a row we give up.
COMES_UP_WITHIN_S = 10.0
GIVE_UP_AFTER = 4
LONGEST_BACKOFF_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Command:
    """One child: its name in our logs, its command line, and what its environment has more."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class ChildFailed(Exception):
    """A child does not come up; the text names it, its exit status and its command line."""


@dataclass(slots=True)
class _Child:
    command: Command
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0


class Supervisor:
    """Keeps children running. Times are in seconds.

    Children write where we write, or to the file `output`. On Linux the kernel ends them when we
    are killed. `stop` ends them by pid: first asks, and kills those that outlast `grace_s`.
    """

    def __init__(
        self, commands: Sequence[Command], *, grace_s: float = 45, output: Path | None = None
    ) -> None:
        self._children = [_Child(command) for command in commands]
        self._grace_s = grace_s
        self._output_path = output
        self._output: IO[bytes] | None = None
        self._signals = 0

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

    def start(self) -> None:
        """Start every child."""
        if self._output_path is not None:
            # Its owner's alone: it says whose messages went where, in other words than theirs.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._output = os.fdopen(os.open(self._output_path, flags, 0o600), "ab")
        for child in self._children:
            self._spawn(child)

    def poll(self) -> None:
        """Start again what crashed, with growing pauses; raises `ChildFailed` for a hopeless one.

        To be called often; never waits.
        """
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.due:
                    self._spawn(child)
                continue
            status = child.process.poll()
            if status is not None:
                self._crashed(child, status, now)

    def run(self, meanwhile: Generator[object, None, None] | None = None) -> int:
        """Keep everything running until SIGINT, SIGTERM or SIGHUP; return the exit status.

        `meanwhile` is work in small steps, one between any two looks at the children; once it is
        used up, everything is ended. It is closed before the children are. A second signal kills
        what is still there at once.
        """
        previous = {
            each: signal.signal(each, self._on_signal)
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            self.start()
            for _ in repeat(None) if meanwhile is None else meanwhile:
                if self._signals:
                    break
                self.poll()
                time.sleep(POLL_S)
        except ChildFailed as error:
            log.error("child_failed", reason=str(error))  # noqa: TRY400  # the text is the reason
            return 1
        finally:
            if meanwhile is not None:
                meanwhile.close()
            self.stop()
            for each, handler in previous.items():
                signal.signal(each, handler)
        return 0

    def stop(self) -> None:
        """Ask every child to end, last started first, and wait; may be called twice."""
        running = [
            (child.command.name, child.process)
            for child in reversed(self._children)
            if child.process is not None
        ]
        for _, process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + self._grace_s
        asked = self._signals
        for name, process in running:
            while process.poll() is None:
                if time.monotonic() > deadline or self._signals > max(asked, 1):
                    log.warning("child_killed", child=name, pid=process.pid)
                    process.kill()
                    process.wait()
                    break
                time.sleep(POLL_S / 5)
        for child in self._children:
            child.process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signals += 1

    def _spawn(self, child: _Child) -> None:
        child.process = subprocess.Popen(  # noqa: S603  # our own command line, no shell
            child.command.argv,
            env={**os.environ, **child.command.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            # Ctrl-C in the terminal is ours to pass on; a session of its own keeps it from them.
            start_new_session=True,
            preexec_fn=_end_with_parent,  # no thread of ours holds a lock here
        )
        child.started = time.monotonic()
        log.debug("child_started", child=child.command.name, pid=child.process.pid)

    def _crashed(self, child: _Child, status: int, now: float) -> None:
        came_up = now - child.started >= COMES_UP_WITHIN_S
        child.failures = 1 if came_up else child.failures + 1
        child.process = None
        if child.failures >= GIVE_UP_AFTER:
            raise ChildFailed(
                f"{child.command.name} does not come up (exit status {status}): "
                + " ".join(child.command.argv)
            )
        pause = min(LONGEST_BACKOFF_S, 0.5 * 2 ** (child.failures - 1))
        child.due = now + pause
        log.warning("child_crashed", child=child.command.name, status=status, again_in_s=pause)


def _parent_death_signal() -> Callable[[], None] | None:
    """What a child on Linux calls first, so that it does not outlive a parent that was killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    set_parent_death_signal, wanted = 1, int(signal.SIGTERM)  # PR_SET_PDEATHSIG, see prctl(2)

    def call() -> None:
        prctl(set_parent_death_signal, wanted)

    return call


_end_with_parent = _parent_death_signal()
