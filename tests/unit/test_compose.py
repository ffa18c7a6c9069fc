"""docker-compose.yml against what it starts: queues, settings, commands, secrets, grace."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from celery.bin.celery import celery
from click import Context
from typer.core import TyperGroup
from typer.main import get_command

from app.cli.commands import application
from app.embedded import Source, redis
from app.embedded.binaries import find_redis
from config.settings import Settings
from converge_producer.queues import QUEUES
from workers.__main__ import GRACE_BEYOND_S
from workers.fleets import BEAT, FLEETS, fleet_commands

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: each for name, each in SERVICES.items() if each["command"][0] == "converge"}
WORKERS = {name: each for name, each in OURS.items() if each["command"][1] == "worker"}


def _seconds(value: str) -> int:
    found = re.fullmatch(r"(\d+)s", value)
    assert found is not None, value
    return int(found[1])


def test_everything_that_runs_is_there() -> None:
    assert {"postgres", "redis", "migrate", "api", "beat", "flower"} <= SERVICES.keys()
    assert len(WORKERS) == len(FLEETS) - 1, "a service per fleet; `all` is for one machine"


def test_every_queue_has_a_consumer() -> None:
    settings = Settings()
    served = [
        queue
        for service in WORKERS.values()
        for worker in FLEETS[service["command"][2]](settings)
        for queue in worker.queues
    ]
    assert sorted(served) == sorted(QUEUES)


def test_every_variable_is_a_setting() -> None:
    known = {f"CONVERGE_{name.upper()}" for name in Settings.model_fields}
    used = {name for service in OURS.values() for name in service["environment"]}
    # These two are read by uvicorn and by OpenTelemetry's SDK.
    assert used <= known | {"FORWARDED_ALLOW_IPS", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    example = (ROOT / ".env.example").read_text()
    offered = set(re.findall(r"^(\w+)=", example, flags=re.MULTILINE))
    assert {name for name in offered if name.startswith("CONVERGE_")} <= known
    wanted = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert wanted <= offered, "what must be set is in the example"
    assert set(re.findall(r"\$\{(\w+)", TEXT)) - {"CONVERGE_VERSION"} <= offered


def test_what_providers_want_of_the_environment_reaches_every_process_of_ours() -> None:
    """`env:NAME` in providers.toml: where the name is not there, no runtime is built."""
    for name, service in OURS.items():
        assert service["env_file"] == [{"path": "providers.env", "required": False}], name
    asked = set(re.findall(r'= "env:(\w+)"', (ROOT / "config/providers.toml").read_text()))
    offered = (ROOT / "providers.env.example").read_text()
    assert asked
    assert asked - {"CONVERGE_PUBLIC_URL"} <= set(re.findall(r"^# (\w+)=$", offered, re.MULTILINE))
    for ignored in (".gitignore", ".dockerignore"):
        assert "providers.env" in (ROOT / ignored).read_text().splitlines(), ignored


def test_no_secret_has_a_default() -> None:
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|AUTH)\w*)([^}]*)\}", TEXT)
    assert {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "CONVERGE_SECRET"} <= {one[0] for one in secrets}
    for name, rest in secrets:
        assert rest.startswith(":?"), name
    example = (ROOT / ".env.example").read_text()
    for name, value in re.findall(
        r"^(\w*(?:PASSWORD|SECRET|AUTH)\w*)=(.*)$", example, re.MULTILINE
    ):
        assert value == "", name


def test_no_secret_stands_in_a_command_line() -> None:
    for name, each in SERVICES.items():
        line = " ".join([*each["command"], *each.get("healthcheck", {}).get("test", [])])
        assert not re.search(r"(?<!\$)\$\{?\w*(PASSWORD|SECRET|AUTH)", line), name


def test_redis_starts_with_its_password_from_standard_input(tmp_path: Path) -> None:
    shell, option, script = SERVICES["redis"]["command"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    program = find_redis(Source.ANY)
    # As compose writes it, on a port of our own.
    here = script.replace("$$", "$").replace("redis-server -", f"{program} - --port {port}", 1)
    environment = {"REDISCLI_AUTH": "hush-_1", "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [shell, option, here], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + 20
            while not redis.ping(port, "hush-_1"):
                assert server.poll() is None
                assert time.monotonic() < deadline
            assert not redis.ping(port, "other")
            assert "hush" not in " ".join(psutil.Process(server.pid).cmdline())
        finally:
            server.terminate()
            assert server.wait(20) == 0


@pytest.mark.parametrize("words", sorted({tuple(each["command"]) for each in OURS.values()}))
def test_every_command_is_one_of_the_cli(words: tuple[str, ...]) -> None:
    program, name, *arguments = words
    assert program == "converge"
    group = get_command(application)
    assert isinstance(group, TyperGroup)
    # Raises what a user would be told of arguments that it does not take.
    group.commands[name].make_context(name, arguments)


def test_every_celery_command_line_parses() -> None:
    settings = Settings()
    commands = [BEAT, *(each for name in FLEETS for each in fleet_commands(name, settings))]
    group = Context(celery)
    for command in commands:
        # python -m celery --quiet -A workers NAME ...
        name, *arguments = command.argv[6:]
        subcommand = celery.commands[name]
        _, left, _ = subcommand.make_parser(Context(subcommand, parent=group)).parse_args(arguments)
        assert left == []


def test_flower_needs_no_more_of_a_folder_of_declarations(tmp_path: Path) -> None:
    settings = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SECRET": "s" * 40,
        "CONFIG_DIR": str(tmp_path),
    }
    printed = subprocess.run(
        [sys.executable, "-m", "workers", "flower", "--print"],
        env=os.environ | {f"CONVERGE_{name}": value for name, value in settings.items()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (configuration,) = re.findall(r"--conf=(\S+)", printed.stdout)
    assert Path(configuration).is_file()


def test_everything_is_watched_and_comes_back() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        if name == "migrate":
            continue
        assert service["healthcheck"]["test"][0] == "CMD", name
        words = service["healthcheck"]["test"][1:]
        if "workers" in words:
            assert words == ["python", "-m", "workers", *words[3:4], "--ping"]
            assert words[3] == service["command"][-1], name


def test_the_stop_grace_is_longer_than_the_soft_shutdown() -> None:
    for name, service in WORKERS.items():
        soft = int(service["environment"]["CONVERGE_SOFT_SHUTDOWN_SECONDS"])
        assert _seconds(service["stop_grace_period"]) > soft + GRACE_BEYOND_S, name


def test_doors_open_to_this_machine_alone() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_nothing_starts_on_an_old_schema() -> None:
    for name, service in OURS.items():
        if name != "migrate":
            assert service["depends_on"]["migrate"] == {
                "condition": "service_completed_successfully"
            }


def test_the_broker_forgets_nothing() -> None:
    line = " ".join(SERVICES["redis"]["command"])
    assert "--maxmemory-policy noeviction" in line
    assert "--appendonly yes --appendfsync everysec" in line
