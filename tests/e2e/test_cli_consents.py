"""`converge customers consent` and `preferences`."""

import json
import re
from pathlib import Path

import pytest

from app.cli.screen import out
from tests.e2e.conftest import Inside
from tests.e2e.test_cli_controls import SECRET

WHY = ("--reason", "a call to the shop")


@pytest.fixture
def ada(
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    in_process: Inside,
    tmp_path: Path,
) -> str:
    """A ledger that knows brand demo and a customer of it."""
    monkeypatch.setenv("CONVERGE_DATABASE_URL", database_url)
    monkeypatch.setenv("CONVERGE_REDIS_URL", redis_url)
    monkeypatch.setenv("CONVERGE_SECRET", SECRET)
    file = tmp_path / "customers.jsonl"
    file.write_text('{"ref": "ada", "email": "ada@example.com", "phone": "+12025550101"}\n')
    assert in_process("apply", "--yes")[0] == 0
    assert in_process("customers", "import", str(file))[0] == 0
    return "ada"


def test_what_a_customer_says_is_kept_and_shown(ada: str, in_process: Inside) -> None:
    done = in_process("customers", "consent", ada, "--allow", "--kind", "marketing", *WHY)
    assert done[:2] == (0, "ada allows kind marketing.\n")
    done = in_process(
        "customers", "consent", ada, "--deny", "--address", "+1 202 555 0101", "--in-person", *WHY
    )
    assert done[0] == 0
    assert "0101" in done[1]
    assert "+12025550101" not in done[1]
    done = in_process(
        "customers", "consent", ada, "--deny", "--sender", "store", "--for", "1h", *WHY
    )
    assert " until " in done[1]
    shown = in_process("customers", "preferences", ada)[1]
    assert "muted until" in shown
    assert "(cli, by the customer" in shown
    told = json.loads(in_process("customers", "preferences", ada, "--json")[1])
    assert told["marketing"] is True
    assert "ada@example.com" not in json.dumps(told)
    assert "+12025550101" not in json.dumps(told)


def test_a_no_in_person_is_lifted_in_person_alone(ada: str, in_process: Inside) -> None:
    no = ("customers", "consent", ada, "--deny", "--in-person", *WHY)
    assert in_process(*no)[:2] == (0, "ada forbids everything.\n")
    yes = ("customers", "consent", ada, "--allow", *WHY)
    status, told, _ = in_process(*yes)
    assert status == 1
    assert "--in-person" in told
    assert in_process(*yes, "--in-person")[:2] == (0, "ada allows everything.\n")


def test_bad_words_are_told_with_the_option(ada: str, in_process: Inside) -> None:
    def refused(*options: str) -> str:
        status, told, error = in_process("customers", "consent", *options)
        assert (status, told) == (2, ""), options
        return error

    assert "--allow or --deny" in refused(ada, *WHY)
    assert "say why" in refused(ada, "--deny", "--reason", " ")
    assert "not both" in refused(ada, "--deny", "--for", "1h", "--until", "2030-01-01", *WHY)
    assert "--topic: there is no such topic; known: " in refused(
        ada, "--deny", "--topic", "weather", *WHY
    )
    assert "--until: is over" in refused(ada, "--deny", "--until", "2020-01-01", *WHY)
    assert "--until 'soon'" in refused(ada, "--deny", "--until", "soon", *WHY)
    assert "--address: is none of" in refused(ada, "--deny", "--address", "+12025550177", *WHY)
    assert "no customer 'nobody'" in refused("nobody", "--deny", *WHY)
    assert in_process("customers", "preferences", "nobody")[0] == 2


def test_a_link_to_the_preference_centre_is_printed_and_audited(
    ada: str, in_process: Inside
) -> None:
    status, url, errors = in_process("customers", "link", ada, "--reason", "on the phone")
    assert status == 0, errors
    assert re.fullmatch(r"http://\S+/p/[\w-]{36}\n", url)
    assert errors.startswith("Good until ")
    told = json.loads(in_process("customers", "link", ada, "--hours", "24", "--json")[1])
    assert set(told) == {"url", "expires_at"}
    changes = json.loads(in_process("audit", "--json")[1])
    assert [one["reason"] for one in changes if one["action"] == "preferences.link"] == [
        "",
        "on the phone",
    ]
    assert in_process("customers", "link", ada, "--hours", "25")[0] == 2
    no_one = "Error: There is no customer 'eve' of brand demo."
    for command in ("link", "preferences", "export"):
        status, _, errors = in_process("customers", command, "eve")
        assert (status, errors.startswith(no_one)) == (2, True), command


def test_the_audit_fits_a_screen_and_names_what_was_said(
    ada: str, in_process: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "she called the shop on a rainy day and asked for it, twice, in so many words"
    said = ("--allow", "--kind", "marketing", "--channel", "sms", "--reason", why)
    assert in_process("customers", "consent", ada, *said)[0] == 0
    monkeypatch.setattr(out, "width", 120)
    status, shown, errors = in_process("audit")
    assert status == 0, errors
    assert max(map(len, shown.splitlines())) <= 120
    monkeypatch.setattr(out, "width", 400)
    shown = in_process("audit")[1]
    assert re.search(r"customer \d+, allowed marketing messages by SMS ", shown), shown
    assert re.search(r" \d+ changes ", shown), "what `apply` did is counted"
    assert "[" not in shown
    [row] = [o for o in json.loads(in_process("audit", "--json")[1]) if "scopes" in o["subject"]]
    assert row["subject"]["scopes"] == [{"kind": "marketing", "channel": "sms"}]
