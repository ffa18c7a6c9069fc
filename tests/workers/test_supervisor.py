"""Child processes: kept running, given up when hopeless, ended by pid and on time."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.supervisor import ChildFailed, Command, Supervisor


def _wait(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)


def _child(name: str, code: str) -> Command:
    return Command(name, (sys.executable, "-c", code), {"WHO": name})


def _writing(path: Path, then: str = "time.sleep(60)") -> str:
    """A child that appends its pid to `path` and goes on."""
    return f"import os, signal, time; open({str(path)!r}, 'a').write(f'{{os.getpid()}}\\n'); {then}"


def _pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_crashed_child_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    steady, frail = tmp_path / "steady", tmp_path / "frail"
    with Supervisor([_child("a", _writing(steady)), _child("b", _writing(frail))]) as supervisor:
        _wait(lambda: _pids(steady) and _pids(frail))
        os.kill(_pids(frail)[0], signal.SIGKILL)

        def back() -> bool:
            supervisor.poll()
            return len(_pids(frail)) == 2

        _wait(back)
        assert len(_pids(steady)) == 1
    assert not any(psutil.pid_exists(pid) for pid in _pids(steady) + _pids(frail))


def test_a_child_that_never_comes_up_is_given_up_by_name() -> None:
    def poll_for_long(supervisor: Supervisor) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            supervisor.poll()
            time.sleep(0.01)

    with (
        Supervisor([_child("broken", "raise SystemExit(3)")]) as supervisor,
        pytest.raises(ChildFailed, match=r"broken does not come up \(exit status 3\)"),
    ):
        poll_for_long(supervisor)


def test_a_child_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    code = _writing(deaf, "time.sleep(60)").replace(
        "open(", "signal.signal(signal.SIGTERM, signal.SIG_IGN); open("
    )
    supervisor = Supervisor([_child("deaf", code)], grace_s=0.3)
    supervisor.start()
    _wait(lambda: _pids(deaf))
    supervisor.stop()
    assert not psutil.pid_exists(_pids(deaf)[0])


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with Supervisor(
        [_child("a", "print('said', flush=True); import time; time.sleep(60)")], output=path
    ):
        _wait(lambda: path.exists() and "said" in path.read_text())


RUN = """
    import sys
    from app.supervisor import Command, Supervisor
    code = sys.argv[1]
    sys.exit(Supervisor([Command("child", (sys.executable, "-c", code))]).run())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "told"
    script = [sys.executable, "-c", textwrap.dedent(RUN), _writing(told)]
    with subprocess.Popen(script) as parent:
        _wait(lambda: _pids(told))
        parent.send_signal(number)
        assert parent.wait(20) == 0
    assert not psutil.pid_exists(_pids(told)[0])


def test_a_hopeless_child_makes_the_status_1() -> None:
    script = [sys.executable, "-c", textwrap.dedent(RUN), "raise SystemExit(3)"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "child_failed" in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(RUN), _writing(told)]) as parent:
        _wait(lambda: _pids(told))
        parent.kill()
    (pid,) = _pids(told)
    _wait(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )
