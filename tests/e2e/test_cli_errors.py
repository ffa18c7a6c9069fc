"""What the commands say when something around them is wrong: a line or two, with the way out."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import empty_database
from tests.e2e.conftest import ROOT, Inside, run_converge

SECRET = "a secret of the tests alone and long enough"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the declarations, to be spoilt."""
    folder = tmp_path / "config"
    shutil.copytree(ROOT / "config", folder)
    monkeypatch.setenv("CONVERGE_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
def empty(postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Servers of one's own, with nothing in them yet."""
    with empty_database(postgres_url) as url:
        with psycopg.connect(url) as database:
            database.execute("DROP SCHEMA public CASCADE")
            database.execute("CREATE SCHEMA public")
        monkeypatch.setenv("CONVERGE_DATABASE_URL", url)
        monkeypatch.setenv("CONVERGE_REDIS_URL", redis_url)
        monkeypatch.setenv("CONVERGE_SECRET", SECRET)
        yield url


@pytest.mark.parametrize(
    "command",
    [
        "queues",
        "why somebody",
        "keys list --json",
        "failed list",
        "refused list",
        "enqueue examples/intents.jsonl",
        "customers import examples/customers.csv",
        "apply --yes",
        "migrate",
        "pause --channel sms --reason x",
        "status 0f8fad5b-d9cb-469f-a165-70867728950e",
    ],
)
def test_without_servers_each_command_says_how_to_have_them(
    in_process: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(tmp_path / "data"))
    status, output, errors = in_process(*command.split())
    assert (status, output) == (1, "")
    assert errors.startswith(f"Error: No servers run in {tmp_path / 'data'}.")
    assert "`converge up`" in errors
    assert "CONVERGE_DATABASE_URL" in errors


def test_processes_say_so_too(tmp_path: Path) -> None:
    for command in (["worker", "email"], ["beat"], ["flower"], ["api"]):
        done = run_converge(*command, DATA_DIR=tmp_path)
        assert done.returncode == 1, command
        assert "`converge up`" in done.stderr


def test_wrong_settings_are_named(in_process: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVERGE_API_PORTS", "8000")
    status, _, errors = in_process("queues")
    assert (status, errors) == (
        1,
        "Error: CONVERGE_API_PORTS is not a setting; did you mean CONVERGE_API_PORT?\n",
    )
    monkeypatch.delenv("CONVERGE_API_PORTS")
    monkeypatch.setenv("CONVERGE_API_PORT", "many")
    assert "CONVERGE_API_PORT: must be a whole number" in in_process("up")[2]


def test_a_ledger_that_does_not_answer(in_process: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("CONVERGE_DATABASE_URL", f"postgresql://u:hidden@127.0.0.1:{port}/x")
    monkeypatch.setenv("CONVERGE_REDIS_URL", f"redis://:hidden@127.0.0.1:{port}/0")
    monkeypatch.setenv("CONVERGE_SECRET", SECRET)
    status, _, errors = in_process("queues")
    assert status == 1
    assert "The ledger (Postgres) cannot be used" in errors
    assert "CONVERGE_DATABASE_URL" in errors
    assert "hidden" not in errors
    status, output, _ = in_process("doctor")
    assert status == 1
    for line in ("✗ ledger", "✗ redis", "✗ broker", "✓ declarations"):
        assert line in output
    assert "hidden" not in output


def test_from_an_empty_database_to_a_house_in_order(in_process: Inside, empty: str) -> None:
    for command in (["queues"], ["apply", "--yes"], ["up"]):
        status, _, errors = in_process(*command)
        assert status == 1, command
        assert "run `converge migrate`" in errors, command
    assert "✗ ledger" in in_process("doctor")[1]

    assert in_process("migrate")[1].startswith("Done: ")
    assert in_process("migrate")[1].startswith("Nothing to do: the ledger is at schema 0")
    status, _, errors = in_process("enqueue", "examples/intents.jsonl")
    assert status == 2
    assert "`converge apply`" in errors

    status, output, _ = in_process("apply", "--dry-run")
    assert status == 0
    assert "+ brand demo\n+ sender demo/store\n" in output
    assert "nothing was changed" in output
    status, output, _ = in_process("doctor")
    assert status == 1
    assert "Run `converge apply`." in output
    assert in_process("apply")[0] == 2, "nobody is there to ask"
    assert "Done: " in in_process("apply", "--yes")[1]
    assert "Nothing to do" in in_process("apply", "--yes")[1]
    status, output, _ = in_process("doctor")
    assert status == 0, output


def test_wrong_declarations_are_told_by_place(in_process: Inside, empty: str, config: Path) -> None:
    in_process("migrate")
    policies = config / "policies.toml"
    policies.write_text('[notify]\nexpires_after = "soon"\nsteps = []\n')
    for command in (["apply", "--yes"], ["policies", "check"]):
        status, _, errors = in_process(*command)
        assert status == 1
        assert "policies.toml: [notify] expires_after: must be a time" in errors
    _, output, _ = in_process("doctor")
    faults = output.partition("✗ declarations ")[2].splitlines()[:2]
    assert "[notify] expires_after: must be a time" in faults[0]
    assert faults[1].startswith(" " * 15), "each fault stands below the one before"
    assert "[notify] steps: " in faults[1]
    policies.write_text("[notify\n")
    assert "is not TOML" in in_process("apply", "--yes")[2]


def test_a_channel_whose_accounts_are_the_sandboxs_alone_is_told_beside_a_live_one(
    in_process: Inside, config: Path
) -> None:
    with (config / "providers.toml").open("a") as providers:
        providers.write(
            '[gateway]\nchannel = "sms"\nprovider = "sandbox"\n'
            'url = "http://127.0.0.1:1"\nsecret = "s"\n'
        )
    told = "no account is declared for email, but for the sandbox, where live messages never go"
    status, output, _ = in_process("policies", "check")
    assert status == 1
    assert f"bad email-only\n    step 1: {told}; add one to providers.toml\n" in output
    assert f"\n    steps 2 and 3: {told}; add" in output.partition("bad urgent")[2]
    assert "ok  sms-only\n" in output
    findings = json.loads(in_process("doctor", "--json")[1])
    (channels,) = (one for one in findings if one["what"] == "channels")
    assert channels["state"] == "note"
    assert "no account is declared for chat, email" in channels["text"]
    assert "email-only" in channels["text"]
    assert "sms-only" not in channels["text"]


def test_a_policy_that_can_never_see_is_told(in_process: Inside, config: Path) -> None:
    assert in_process("policies", "check")[0] == 0
    brands = config / "brands.toml"
    brands.write_text(brands.read_text().replace('tracking = "all"', 'tracking = "off"'))
    status, output, _ = in_process("policies", "check")
    assert status == 1
    assert "bad notify" in output
    assert "email can never show 'opened' for demo/store" in output
    assert "turn it on in brands.toml" in output

    providers = config / "providers.toml"
    providers.write_text(providers.read_text().replace('channel = "chat"', 'channel = "social"'))
    output = in_process("policies", "check")[1]
    assert "step 2: no account is declared for chat; add one to providers.toml" in output
    providers.write_text('[relay]\nchannel = "email"\nprovider = "smtpd"\n')
    assert in_process("policies", "check")[2].startswith("Error: providers.toml: [relay] provider:")
