"""The commands beside a running Converge: a message's whole way, and what may go wrong."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.embedded import EmbeddedServers
from converge_producer import Producer
from tests.e2e.conftest import Converge, Inside, run_converge, wait_for

pytestmark = pytest.mark.timeout(300)  # commands are processes, and slow where others run too
NOBODYS_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ORDER = {"topic": "orders", "policy": "email-only", "content": {"text": "Your order is here."}}


@pytest.fixture
def inside(converge: Converge, monkeypatch: pytest.MonkeyPatch, in_process: Inside) -> Inside:
    """Run a command beside it in this process, which is quick."""
    monkeypatch.setenv("CONVERGE_DATA_DIR", str(converge.folder / "data"))
    return in_process


def _intent(**parts: Any) -> dict[str, Any]:
    return {"key": uuid4().hex, **ORDER, **parts}


def _to(ref: str, **parts: Any) -> dict[str, Any]:
    return {"ref": ref, "email": f"ignore+{ref}@sandbox.example", **parts}


def _refusals(verdicts: list[dict[str, Any]]) -> dict[int, tuple[str | None, str]]:
    return {one["line"]: (one["field"], one["reason"]) for one in verdicts if one["reason"]}


def test_a_message_goes_its_whole_way(converge: Converge, inside: Inside, tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text("ref,name,email\nwhole-way,Ada Byron,open+whole-way@sandbox.example\n")
    done = converge.run("customers", "import", people)
    assert (done.returncode, done.stdout) == (0, "1 customer: 1 kept.\n")

    (verdict,) = converge.enqueue(
        _intent(
            to="whole-way",
            content={
                "subject": "Order {{ order }} is on its way",
                "text": "Hello {{ name }}, it comes **today**.",
                "actions": [{"label": "Track it", "url": "https://shop.example/t/991"}],
            },
            data={"name": "Ada", "order": "991"},
        )
    )
    assert verdict["status"] == "accepted"
    (mail,) = wait_for(
        lambda: converge.screen("open+whole-way@sandbox.example"), "the mail arrived by SMTP"
    )
    assert mail["channel"] == "email"
    assert mail["subject"] == "Order 991 is on its way"
    assert "Hello Ada" in mail["text"]

    wait_for(lambda: converge.intent(verdict["id"], state="seen"), "the mail was opened", 60)
    told = converge.json("status", verdict["id"])
    assert told["state"] == "seen"
    assert told["seen_on"] == "email"
    assert told["deliveries"][0]["address"] == "o***@sandbox.example"
    shown = inside("status", verdict["id"])[1]
    assert "seen" in shown
    assert "Nothing more is sent" in shown

    (attempt,) = told["deliveries"][0]["attempts"]
    by_task = json.loads(inside("status", "--task", attempt["task"], "--json")[1])
    assert verdict["id"] in [one["intent"] for one in by_task]
    for who in ("whole-way", "open+whole-way@sandbox.example"):
        found = json.loads(inside("why", who, "--json")[1])
        assert [one["id"] for one in found["intents"]] == [verdict["id"]]
    assert json.loads(inside("why", "whole-way", "--key", "another", "--json")[1])["intents"] == []
    assert "Track it" not in inside("why", "whole-way")[1], "no body is shown"


def test_each_bad_line_is_told_and_the_others_go_on(converge: Converge, tmp_path: Path) -> None:
    key = uuid4().hex
    good = [_intent(to=_to("bad-lines"), key=key), _intent(to="bad-lines")]
    bad: list[tuple[str | dict[str, Any], str | None, str]] = [
        ('{"to": "bad-lines", "topic": ', None, "cannot be read as JSON"),
        ("[1, 2]", None, "must be a JSON object"),
        ('"text"', None, "must be a JSON object"),
        (_intent(to="bad-lines", text="x"), "text", "did you mean content.text"),
        (_intent(to="bad-lines", policy="nonsense"), "policy", "not declared; known:"),
        (_intent(to="bad-lines", sender="nobody"), "sender", "not declared; known: store"),
        (_intent(to="bad-lines", topic="gossip"), "topic", "not declared; known:"),
        (
            _intent(to="bad-lines", content={"template": "order-shiped"}),
            "content.template",
            "did you mean 'order-shipped'?",
        ),
        (_intent(to="nobody-knows"), "to", "no customer has this ref"),
        (_intent(to={"ref": "no-endpoint", "phone": None}), "to", "cannot be reached"),
        (_intent(to={"ref": "x", "email": "ada@@example"}), "to.email", "mail address"),
        (_intent(to={"ref": "x", "phone": "+1 5"}), "to.phone", "phone number"),
        (_intent(to="bad-lines", expires_at="2020-01-01T00:00Z"), "expires_at", "passed"),
        (
            _intent(to="bad-lines", content={"subject": "a\r\nBcc: b", "text": "x"}),
            "content.subject",
            "line breaks",
        ),
        (_intent(to={"ref": "x", "email": "a@example.com\r\nb"}), "to.email", "line breaks"),
        (
            _intent(
                to="bad-lines",
                content={"text": "x", "actions": [{"label": "x", "url": "javascript:alert(1)"}]},
            ),
            "content.actions[0].url",
            "http",
        ),
        (_intent(to="bad-lines", content={"text": "{{ name"}), "content.text", ""),
        (_intent(to="bad-lines", content={"text": "{{ name }}"}), "data.name", "lacks it"),
        (_intent(to="bad-lines", kind="marketing"), "kind", "consent"),
        (_intent(to="bad-lines", content={"text": "x" * 300_000}), "content.text", "at most"),
        (_intent(to="bad-lines", key=key, content={"text": "Other"}), "key", "other content"),
    ]
    lines = [good[0], *(line for line, _, _ in bad), good[1]]
    file = tmp_path / "intents.jsonl"
    file.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )

    done = converge.run("enqueue", file, "--json")
    assert done.returncode == 1
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["line"] for one in verdicts] == list(range(1, len(lines) + 1))
    assert [verdicts[0]["status"], verdicts[-1]["status"]] == ["accepted", "accepted"]
    refused = _refusals(verdicts)
    for number, (_, field, reason) in enumerate(bad, start=2):
        assert number in refused, lines[number - 1]
        told_field, told_reason = refused[number]
        assert told_field in (field, ""), (lines[number - 1], refused[number])
        assert reason in told_reason, (lines[number - 1], refused[number])
    assert "alert(1)" not in done.stdout + done.stderr, "a refusal quotes nothing"

    again = converge.run("enqueue", file)
    assert again.returncode == 1
    assert "line 2: cannot be read as JSON" in again.stderr
    assert "line 6: policy: " in again.stderr
    assert f"{len(lines)} intents: 2 known already, {len(bad)} refused." in again.stdout


def test_a_line_without_end_and_one_that_is_no_text_are_told(converge: Converge) -> None:
    good = json.dumps(_intent(to=_to("long-lines"))).encode()
    huge = b'{"to": "' + b"x" * 10_000_000 + b'"}'
    lines = b"\xef\xbb\xbf" + good + b"\n\n" + huge + b"\n\xff\xfe\n" + huge
    done = converge.run("enqueue", "-", "--json", stdin=lines)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["status"]) for one in verdicts] == [
        (1, "accepted"),
        (3, "refused"),
        (4, "refused"),
        (5, "refused"),
    ]
    assert "longer than" in verdicts[1]["reason"]
    assert "cannot be read as JSON" in verdicts[2]["reason"]


def test_an_empty_file_and_a_missing_one(inside: Inside, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert inside("enqueue", str(empty)) == (0, "0 intents: the file holds none.\n", "")
    assert inside("enqueue", "nowhere.jsonl") == (
        2,
        "",
        "Error: nowhere.jsonl cannot be read: No such file or directory.\n",
    )
    status, _, errors = inside("enqueue", str(empty), "--brand", "acme")
    assert status == 2
    assert "There is no brand 'acme' (known: demo)" in errors


def test_customers_from_csv_and_json_lines(converge: Converge, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(
        "ref,name,email,phone,timezone,attributes.tier\n"
        "csv-1,Ada,ada@example.com,+12025550123,Europe/Berlin,gold\n"
        "csv-2,Bob,bob@@example,,,\n"
        ",Nameless,c@example.com,,,\n"
        "csv-4,Dan,dan@example.com,12,,\n"
        "csv-5,Eve,eve@example.com,,Mars/Olympus,\n"
        "csv-6,Fay,fay@example.com,,,,surplus\n"
        '"csv-7,"Gil",gil@example.com,,,\n'
        "\n"
        "csv-8,Hal,,,,\n",
        encoding="utf-8",
    )
    done = converge.run("customers", "import", file, "--json")
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    refused = _refusals(verdicts)
    assert done.returncode == 1
    assert {line: field for line, (field, _) in refused.items()} == {
        3: "email",
        4: "ref",
        5: "phone",
        6: "timezone",
        7: None,
        8: None,
    }
    assert "has 7 cells" in refused[7][1]
    assert "is not CSV" in refused[8][1]
    assert [one["ref"] for one in verdicts if one["status"] == "kept"] == ["csv-1", "csv-8"]
    assert "bob@@example" not in done.stdout + done.stderr

    lines = '{"ref": "csv-1", "email": null}\n{"ref": "csv-9", "phone": "+12025550123"}\nnull\n'
    done = converge.run("customers", "import", "-", stdin=lines)
    assert done.returncode == 1
    assert "line 3: must be a JSON object" in done.stderr
    assert "3 customers: 2 kept, 1 refused." in done.stdout
    endpoints = converge.json("why", "csv-1")["customers"][0]["endpoints"]
    assert {one["channel"] for one in endpoints if one["state"] == "active"} == {"sms"}


def test_a_rehearsal_has_customers_of_its_own(inside: Inside, tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text("ref,email\nrehearsed,ignore+rehearsed@sandbox.example\n")
    file = tmp_path / "intents.jsonl"
    file.write_text(json.dumps(_intent(to="rehearsed")))
    assert inside("customers", "import", str(people), "--test")[:2] == (
        0,
        "1 customer: 1 kept.\n",
    )
    assert inside("enqueue", str(file), "--test")[:2] == (0, "1 intent: 1 accepted.\n")
    assert inside("enqueue", str(file))[0] == 1, "a live intent is for live customers"

    assert inside("customers", "import", str(people))[:2] == (0, "1 customer: 1 kept.\n")
    assert inside("enqueue", str(file))[:2] == (0, "1 intent: 1 accepted.\n")
    status, _, errors = inside("enqueue", str(file), "--test")
    assert status == 1
    assert "to: no test customer has this ref" in errors
    status, output, _ = inside("customers", "import", str(people), "--test")
    assert (status, output) == (
        0,
        "1 customer: 1 older than what is known, or of live customers.\n",
    )


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("name,email", "no column ref"),
        ("ref,e-mail", "unknown column 'e-mail'; did you mean email?"),
        ("ref,tier", "call it attributes.tier?"),
        ("ref,email,email", "email twice"),
        ("", "it is empty"),
    ],
)
def test_a_bad_header_is_told(inside: Inside, tmp_path: Path, header: str, told: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text(header)
    status, _, errors = inside("customers", "import", str(file))
    assert status == 2
    assert told in errors


def test_keys_are_made_listed_and_revoked(inside: Inside) -> None:
    _, output, _ = inside(
        "keys",
        "create",
        "--test",
        "--sender",
        "store",
        "--label",
        "a test",
        "--rate",
        "2.5",
        "--json",
    )
    made = json.loads(output)
    assert made["key"].startswith("cvt_demo_")
    _, output, _ = inside("keys", "list", "--json")
    mine = [one for one in json.loads(output) if one["prefix"] == made["prefix"]]
    assert (mine[0]["senders"], mine[0]["test"], mine[0]["label"]) == (["store"], True, "a test")
    assert mine[0]["rate"] == 2.5
    table = inside("keys", "list")[1]
    assert "2.5/s" in table
    assert made["key"].split("_", 3)[3] not in table
    assert inside("keys", "revoke", made["prefix"])[0] == 0
    status, _, errors = inside("keys", "revoke", made["key"])
    assert status == 1
    assert "No key in force" in errors
    assert made["key"] not in errors
    for wrong, named in (("--sender", "nobody"), ("--rate", "0")):
        status, _, errors = inside("keys", "create", wrong, named)
        assert status == 2
        assert named in errors


def test_pause_holds_and_resume_lets_go(converge: Converge, inside: Inside) -> None:
    address = "ignore+paused@sandbox.example"
    assert inside("pause", "--campaign", "held", "--reason", "a typo")[0] == 0
    try:
        pauses = json.loads(inside("queues", "--json")[1])["pauses"]
        assert [one["reason"] for one in pauses if one["campaign"] == "held"] == ["a typo"]
        (verdict,) = converge.enqueue(_intent(to=_to("paused"), campaign="held"))
        (after,) = converge.enqueue(_intent(to=_to("not-paused")))
        wait_for(lambda: converge.screen("ignore+not-paused@sandbox.example"), "others go out")
        assert converge.screen(address) == []
        assert "a typo" in inside("queues")[1]
    finally:
        assert inside("resume", "--campaign", "held")[0] == 0
    wait_for(lambda: converge.screen(address), "it goes out once resumed")
    assert converge.intent(verdict["id"], state="open")
    done = inside("cancel", verdict["id"], after["id"], "--reason", "enough")
    assert done[:2] == (0, "Cancelled 2 intents.\n")
    assert converge.intent(verdict["id"], state="cancelled")
    status, _, errors = inside("cancel", verdict["id"], "--reason", "enough")
    assert status == 1
    assert verdict["id"] in errors


def test_what_bounced_is_listed_and_shown(converge: Converge, inside: Inside) -> None:
    (verdict,) = converge.enqueue(_intent(to={"ref": "gone", "email": "bounce@sandbox.example"}))

    wait_for(lambda: converge.intent(verdict["id"], state="exhausted"), "nothing is left to try")
    rows = json.loads(inside("failed", "list", "--json")[1])
    (row,) = (one for one in rows if one["intent"] == verdict["id"])
    shown = json.loads(inside("failed", "show", str(row["id"]), "--json")[1])
    assert shown["tries"][0]["outcome"] == "rejected"
    assert "5.1.1" in shown["reason"]
    assert "rejected" in inside("failed", "show", str(row["id"]))[1]
    assert row["address"] != "bounce@sandbox.example", "addresses are masked"
    replayed = converge.run("failed", "replay", str(row["id"]), "999999999", "--reason", "mended")
    assert replayed.stdout == "1 delivery will be tried again.\n"
    assert replayed.returncode == 1
    assert replayed.stderr == "No delivery 999999999 has failed.\n"


def test_refusals_of_the_broker_are_listed(converge: Converge) -> None:
    found = EmbeddedServers(converge.folder / "data").find()
    assert found is not None
    key = uuid4().hex
    producer = Producer(found.redis_url, sender="store")
    producer.enqueue(_intent(to=_to("over-the-broker"), key=key, topic="gossip"))

    def refused() -> dict[str, Any] | None:
        rows = converge.json("refused", "list")
        return next((row for row in rows if row["key"] == key), None)

    row = wait_for(refused, "the refusal is a row")
    assert (row["field"], row["code"]) == ("topic", "unknown_topic")
    assert key[:20] in converge.run("refused", "list").stdout


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["status"], "Name an intent"),
        (["status", "991"], "is no id"),
        (["status", "--task", "991"], "is no id"),
        (["why", "whole-way", "--since", "yesterday"], "--since"),
        (["pause", "--reason", "x"], "name a channel, an account, a sender or a campaign"),
        (["pause", "--channel", "fax", "--reason", "x"], "email, sms, chat, social"),
        (["pause", "--account", "relay-9", "--reason", "x"], "sandbox-mail"),
        (["pause", "--channel", "sms", "--reason", " "], "say why"),
        (["pause", "--channel", "sms"], "--reason"),
        (["cancel", "--channel", "fax", "--reason", "x"], "email, sms, chat, social"),
        (["cancel", "x", "--reason", "x"], "is no id"),
        (["worker", "faxes"], "There is no fleet"),
        (["failed", "show", "x"], "Invalid value"),
        (["failed", "show", str(2**63)], "Invalid value"),
        (["failed", "replay", "5", str(2**63), "--reason", "x"], "Invalid value"),
        (["inbox", "retry", str(2**63), "--reason", "x"], "Invalid value"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_wrong_question_is_answered_with_the_way_out(
    inside: Inside, command: list[str], told: str
) -> None:
    status, output, errors = inside(*command)
    assert status == 2
    assert told in errors
    assert output == ""


@pytest.mark.parametrize(
    "command",
    [
        ["status", NOBODYS_ID],
        ["status", "--task", NOBODYS_ID],
        ["why", "nobody-at-all"],
        ["failed", "show", "999999999"],
        ["cancel", NOBODYS_ID, "--reason", "x"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_said(inside: Inside, command: list[str]) -> None:
    status, output, errors = inside(*command)
    assert status == 1
    assert errors.startswith(("Error: ", "Not open, or not known: "))
    assert output in ("", "Cancelled 0 intents.\n")


def test_a_healthy_house_has_nothing_wrong(inside: Inside) -> None:
    status, output, _ = inside("doctor", "--json")
    findings = json.loads(output)
    assert status == 0
    assert {one["what"] for one in findings} >= {"settings", "ledger", "redis", "broker", "api"}
    assert [one for one in findings if one["state"] == "wrong"] == []
    assert "All is well." in inside("doctor")[1]
    assert all(row["ok"] for row in json.loads(inside("policies", "check", "--json")[1]))
    assert "Nothing to do" in inside("apply", "--yes")[1]


def test_it_tells_its_version() -> None:
    done = run_converge("--version")
    assert (done.returncode, done.stdout) == (0, f"converge {version('converge')}\n")
