"""`converge demo`: from nothing to a report, by itself, and nothing is left of it."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from app.cli.demo import LONGEST_S
from tests.e2e.conftest import CONVERGE, ROOT, environment


def _left(folder: Path) -> list[str]:
    """Processes that work in a folder, or for what is in it."""
    left = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        told = " ".join(process.info["cmdline"] or ()) + str(process.info["environ"])
        if str(folder) in told and process.pid != os.getpid():
            left.append(told[:200])
    return left


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_the_demo_ends_by_itself_with_a_report() -> None:
    with tempfile.TemporaryDirectory(prefix="converge-test-") as home:
        Path(home).chmod(0o711)
        began = time.monotonic()
        done = subprocess.run(
            [CONVERGE, "demo"],
            # What is configured on the machine is neither read nor touched.
            env=environment(DATABASE_URL="postgresql://nobody@127.0.0.1:1/x") | {"TMPDIR": home},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        took = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(Path(home).iterdir()) == [], "nothing is left of it"
        assert _left(Path(home)) == []
    told = done.stdout
    for part in ("Reached", "Escalated", "Time to seen", "Limits", "One of them", "Try next"):
        assert part in told
    reached = int(told.partition("Reached")[2].partition("(")[2].partition("%")[0])
    whole = took < LONGEST_S  # else it was cut short, on a very slow machine
    assert (75 if whole else 1) <= reached <= 100, told
    assert done.stderr == ""


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("begun", "with_signal"),
    [
        ("starts its own", signal.SIGTERM),
        pytest.param("s  30 intents", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_demo_cleans_up(begun: str, with_signal: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="converge-test-") as home:
        Path(home).chmod(0o711)
        with subprocess.Popen(
            [CONVERGE, "demo"],
            env=environment() | {"TMPDIR": home, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                if begun in line:
                    break
            demo.send_signal(with_signal)
            output, _ = demo.communicate(timeout=90)
        assert demo.returncode == 130, output
        assert "Everything was stopped and removed." in output
        assert list(Path(home).iterdir()) == []
        assert _left(Path(home)) == []
