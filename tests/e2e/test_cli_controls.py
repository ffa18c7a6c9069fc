"""Operators' commands: what they say, refuse and show; what they do is tested where it happens."""

import json

import psycopg
import pytest

from converge_producer.publishing import Publisher
from converge_producer.queues import INTENTS, TASK_ACCEPT
from tests.e2e.conftest import Inside

SECRET = "a secret of the tests alone and long enough"
BECAUSE = ("--reason", "the relay asked")


@pytest.fixture
def ledger(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger that knows what the configuration declares, without a worker."""
    monkeypatch.setenv("CONVERGE_DATABASE_URL", database_url)
    monkeypatch.setenv("CONVERGE_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERGE_SECRET", SECRET)
    return database_url


def add_worker(url: str, name: str, state: str, *queues: str) -> None:
    """A process that beat just now, and is there for as long as a test may take."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO workers (id, name, queues, state, seen_at) "
            "VALUES (gen_random_uuid(), %s, %s, %s, now() + interval '10 minutes')",
            (name, list(queues), state),
        )


def test_limits_are_set_shown_and_lifted(ledger: str, in_process: Inside) -> None:
    done = in_process("limits", "set", "sandbox-mail", "2.5", *BECAUSE, "--for", "2h")
    assert done[0] == 0
    assert done[1].startswith("The limit of sandbox-mail is set: 2.5 messages a second, until ")
    rows = {row["account"]: row for row in json.loads(in_process("limits", "show", "--json")[1])}
    assert rows["sandbox-mail"]["limit_per_s"] == 2.5
    assert rows["sandbox-mail"]["set"]["reason"] == "the relay asked"
    assert rows["sandbox-sms"]["set"] is None
    table = in_process("limits", "show")[1]
    assert "the relay asked" in table
    assert "no limit" in table
    assert "the relay asked" in in_process("queues")[1]
    for _ in range(2):
        assert in_process("limits", "set", "sandbox-mail", "4", *BECAUSE)[0] == 0
    assert "was so already: 4 " in in_process("limits", "set", "sandbox-mail", "4", *BECAUSE)[1]
    lifted = in_process("limits", "set", "sandbox-mail", "none", *BECAUSE)
    assert lifted[:2] == (0, "The limit of sandbox-mail is as declared again: no limit.\n")
    again = in_process("limits", "set", "sandbox-mail", "none", *BECAUSE)
    assert again[:2] == (0, "The limit of sandbox-mail was as declared already: no limit.\n")


def test_an_account_that_does_not_rest_is_not_tried_again(ledger: str, in_process: Inside) -> None:
    done = in_process("limits", "retry", "sandbox-mail", *BECAUSE)
    assert done[:2] == (0, "sandbox-mail did not rest.\n")
    status, _, errors = in_process("limits", "retry", "elsewhere", *BECAUSE)
    assert status == 2
    assert "sandbox-chat, sandbox-mail" in errors


NO_LIMITS = {
    ("sandbox-mail", "0"): "converge pause --account sandbox-mail",
    ("sandbox-mail", "-3"): "converge pause --account sandbox-mail",
    ("sandbox-mail", "nan"): "above 0",
    ("sandbox-mail", "fast"): "'fast' is no rate",
    ("elsewhere", "5"): "sandbox-chat, sandbox-mail",
    ("sandbox-mail", "5", "--for", "soon"): '"30m"',
    ("sandbox-mail", "5", "--for", "-2h"): '"30m"',
    ("sandbox-mail", "none", "--for", "2h"): "--for",
}


def test_what_is_no_limit_is_refused(ledger: str, in_process: Inside) -> None:
    for arguments, named in NO_LIMITS.items():
        status, output, errors = in_process("limits", "set", *arguments, *BECAUSE)
        assert (status, output) == (2, ""), arguments
        assert named in errors, arguments


def test_a_pause_that_fits_nothing_is_taken_and_said(ledger: str, in_process: Inside) -> None:
    status, output, errors = in_process("pause", "--campaign", "sprng", *BECAUSE)
    assert (status, output) == (0, "Paused campaign sprng.\n")
    assert "Nothing waits there now" in errors
    assert "Campaigns with messages to send: none." in errors
    status, output, _ = in_process("pause", "--campaign", "sprng", *BECAUSE)
    assert (status, output) == (0, "campaign sprng was paused already.\n")
    assert in_process("resume", "--campaign", "sprng", *BECAUSE)[0] == 0
    status, output, errors = in_process("resume", "--campaign", "sprng")
    assert (status, output) == (0, "campaign sprng was not paused.\n")
    assert "converge queues" in errors
    with psycopg.connect(ledger) as connection:
        noted = connection.execute("SELECT reason FROM audit WHERE action = 'resume'").fetchall()
    assert noted == [("the relay asked",)]
    assert in_process("cancel", "--channel", "email", *BECAUSE)[:2] == (
        0,
        "Cancelled 0 open intents of channel email.\n",
    )


def test_a_drain_names_the_workers_that_there_are(ledger: str, in_process: Inside) -> None:
    assert in_process("drain")[:2] == (0, "No worker is there.\n")
    for host in ("north", "south"):
        add_worker(ledger, f"email-1@{host}", "running", "email.normal")
    add_worker(ledger, "core-1@north", "running", "intents", "decisions", "feedback")
    add_worker(ledger, "api@north", "running")
    status, _, errors = in_process("drain", "sms-1")
    assert status == 2
    assert "there are: core-1@north, email-1@north, email-1@south." in errors
    status, _, errors = in_process("drain", "@east")
    assert (status, errors) == (
        2,
        "Error: No worker runs on a machine called 'east'; some run on: north, south.\n",
    )
    assert in_process("drain", "email-1")[0] == 2
    assert in_process("drain", "email-1@south", "--wait", "0")[:2] == (
        0,
        "email-1@south is asked to drain.\n",
    )
    assert in_process("drain", "email-1@south", "--wait", "0")[1].endswith("drain already.\n")
    north = in_process("drain", "@north", "--wait", "0")[1].splitlines()
    assert north == ["core-1@north is asked to drain.", "email-1@north is asked to drain."]
    status, _, errors = in_process("drain", "core-1", "--wait", "0.2")
    assert status == 1
    assert "core-1@north" in errors
    assert in_process("drain", "--undo", "--wait", "5")[0] == 0
    with psycopg.connect(ledger) as connection:
        actions = connection.execute("SELECT action, subject FROM audit ORDER BY id").fetchall()
    assert actions == [
        ("drain", {"workers": ["email-1@south"]}),
        ("drain", {"workers": ["core-1@north", "email-1@north"]}),
        ("undo_drain", {"workers": ["core-1@north", "email-1@north", "email-1@south"]}),
    ]


def test_queues_tell_what_waits_in_the_broker(
    ledger: str, in_process: Inside, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVERGE_BROKER_URL", redis_url)
    publisher = Publisher(redis_url)
    for queue in (INTENTS, INTENTS, INTENTS, "email.bulk"):
        publisher.publish(TASK_ACCEPT, {"v": 1}, queue, "<x>")
    publisher.close()
    assert json.loads(in_process("queues", "--json")[1])["broker"][INTENTS] == 3
    lines = [line.split() for line in in_process("queues")[1].splitlines()]
    assert ["intents", "-", "3", "none!"] in lines
    assert ["decisions", "0", "0", "none!"] in lines
    assert ["email.bulk", "-", "1", "none!"] in lines


def test_queues_say_so_where_the_broker_is_away(
    ledger: str, in_process: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVERGE_BROKER_URL", "redis://127.0.0.1:1/0")
    status, output, _ = in_process("queues")
    assert status == 0
    assert ["intents", "-", "?", "none!"] in [line.split() for line in output.splitlines()]
    assert json.loads(in_process("queues", "--json")[1])["broker"] is None


def test_queues_say_where_nobody_takes_work(ledger: str, in_process: Inside) -> None:
    add_worker(ledger, "core-1@north", "running", "intents", "decisions", "feedback")
    add_worker(ledger, "control-1@north", "drained", "control")
    state = json.loads(in_process("queues", "--json")[1])
    assert state["consumers"]["intents"] == 1
    assert state["consumers"]["control"] == 0
    assert [one["state"] for one in state["workers"]] == ["drained", "running"]
    output = in_process("queues")[1]
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}
    assert lines["control"][-1] == "none!"
    assert lines["decisions"][-1] == "1"
    assert lines["control-1@north"][1] == "drained"
