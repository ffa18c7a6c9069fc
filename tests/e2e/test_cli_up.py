"""`converge up`: everything starts, works, stops without a trace, and finds its data again."""

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, open_folder, run_converge, running, wait_for

USUAL_PORTS = (8000, 5555, 1025, 8025)


def _declarations_alone(folder: Path) -> Path:
    """What CONVERGE_CONFIG_DIR must hold, and nothing of ours that is code."""
    folder.mkdir()
    for name in ("brands.toml", "policies.toml", "providers.toml"):
        shutil.copy(ROOT / "config" / name, folder)
    shutil.copytree(ROOT / "config/templates", folder / "templates")
    return folder


@contextmanager
def _usual_ports_taken() -> Iterator[None]:
    with ExitStack() as taken:
        for port in USUAL_PORTS:
            with suppress(OSError):  # by another program, which does as well
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.mark.timeout(300)
def test_a_stop_leaves_no_process_and_a_second_start_finds_the_data() -> None:
    with open_folder() as folder:
        # With the usual ports taken it chooses some that nobody else takes between the two starts.
        with _usual_ports_taken(), running(folder) as first:
            key, ports = first.key, first.addresses
            wait_for(lambda: key in first.output.read_text(), "the key is printed")
            (verdict,) = first.enqueue(
                {
                    "to": {"ref": "kept", "email": "ignore@sandbox.example"},
                    "topic": "orders",
                    "content": {"text": "Hello"},
                }
            )
            assert verdict["status"] == "accepted"
            family = first.family()
            assert len(family) > 8
            again = run_converge("up", DATA_DIR=folder / "data")
            assert again.returncode == 1
            assert "belongs to another running Converge" in again.stderr
            assert first.stop(signal.SIGTERM) == 0
            assert "Stopped." in first.output.read_text()
            assert [one for one in family if one.is_running() and one.status() != "zombie"] == []
        config = _declarations_alone(folder / "config")
        with running(folder, CONFIG_DIR=config) as second:
            assert second.key == key
            assert second.addresses == ports, "links that were sent still lead here"
            assert second.intent(verdict["id"], customer="kept"), "key and data are there"
            assert second.stop(signal.SIGINT) == 0


def _why(settings: dict[str, str]) -> str:
    return run_converge("why", "a", "--json", **settings).stdout


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_with_servers_of_ones_own_it_starts_none(database_url: str, redis_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET": "s" * 40}
    assert run_converge("apply", "--yes", **settings).returncode == 0
    with open_folder() as folder, running(folder, **settings) as converge:
        told = converge.output.read_text()
        assert "cvk_" not in told, "keys are made with `converge keys create`"
        family = psutil.Process(converge.process.pid).children(recursive=True)
        assert not {"postgres", "redis-server"} & {one.name() for one in family}
        assert sorted(path.name for path in (folder / "data").iterdir()) == ["converge.log"]
        intent = (
            '{"to": {"ref": "a", "email": "open@sandbox.example"}, "topic": "orders",'
            ' "content": {"text": "Hello"}}'
        )
        assert run_converge("enqueue", "-", stdin=intent, **settings).returncode == 0
        wait_for(lambda: '"state": "seen"' in _why(settings), "it was seen", 60)
        assert converge.stop(signal.SIGTERM) == 0


def test_a_port_set_by_hand_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_converge("up", DATA_DIR=tmp_path / "data", API_PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} (the API) is taken" in done.stderr
    assert "CONVERGE_API_PORT" in done.stderr
    assert not (tmp_path / "data").exists()
