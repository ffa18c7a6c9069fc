"""What is kept of a customer: given out, erased and noted, over HTTP and by command."""

import json
import stat
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from app.cli import audited, context, privacy
from app.cli.commands import run
from app.usecases.operating.keys import create_key
from tests.e2e.api import Site, intent

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """Run a command of `converge` on the ledger of `site`: (exit status, output, errors)."""
    for module in (audited, context, privacy):
        monkeypatch.setattr(module, "runtime", lambda: site.house.runtime)

    def said(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["converge", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return said


def mailed(site: Site, key: str = "991") -> None:
    content = {"subject": "Order {{ n }}", "text": "It is on its way."}
    assert site.post("/v1/intents", intent(key=key, content=content, data={"n": key})).ok
    site.house.run()


def test_the_export_is_one_file_with_everything(site: Site, command: Said, tmp_path: Path) -> None:
    mailed(site)
    answer = site.get("/v1/customers/ada/export")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == 'attachment; filename="customer.json"'
    told = answer.json()
    assert told["intents"][0]["said"] == {
        "subject": "Order 991",
        "text": "It is on its way.",
        "actions": [],
    }
    assert told["intents"][0]["deliveries"][0]["address"] == "ada@example.com"
    folder = tmp_path / "out"
    folder.mkdir()
    file = folder / "ada.json"
    assert command("customers", "export", "ada", "--output", str(file))[0] == 0
    assert json.loads(file.read_bytes())["intents"] == told["intents"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(folder.iterdir()) == [file], "no half of one is left"
    status, _, errors = command("customers", "export", "nobody", "--output", str(folder / "x"))
    assert (status, "no customer 'nobody'" in errors) == (2, True)
    assert list(folder.iterdir()) == [file]
    _, audit, _ = command("audit", "--json")
    noted = [one for one in json.loads(audit) if one["action"] == "customer.export"]
    assert len(noted) == 2
    assert noted[1]["actor"].startswith("key ")
    assert "ada" not in audit.replace(noted[0]["actor"], "")
    site.put("/v1/customers/ada", {"email": "ada@example.org"})
    _, audit, _ = command("audit", "--customer", "ada", "--json")
    first, *others = json.loads(audit)
    assert (first["actor"], first["action"]) == (noted[1]["actor"], "customer.change")
    assert first["subject"]["changed"] == ["email"]
    assert others == noted
    status, _, errors = command("audit", "--customer", "nobody")
    assert (status, "no customer 'nobody'" in errors) == (2, True)


def test_a_customer_is_erased_by_command_once_it_was_confirmed(
    site: Site, command: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailed(site)
    monkeypatch.setattr("sys.stdin", StringIO(""))
    status, _, _ = command("customers", "erase", "ada")
    assert status == 1
    assert site.get("/v1/customers/ada").status_code == 200, "nobody said yes"
    assert command("customers", "erase", "ada", "--yes")[:2] == (0, "Erased.\n")
    assert site.get("/v1/customers/ada").status_code == 404
    assert command("customers", "erase", "ada", "--yes")[0] == 2
    status, shown, _ = command("audit", "--since", "1h")
    assert status == 0
    assert "customer.erase" in shown


def test_only_a_key_that_reaches_all_of_it_gives_out_or_erases(site: Site) -> None:
    runtime = site.house.runtime
    for key in (
        create_key(runtime, "demo", test=True),
        create_key(runtime, "demo", senders=["store"]),
    ):
        for call in (("GET", "/v1/customers/ada/export"), ("DELETE", "/v1/customers/ada")):
            site.problem(site.call(*call, key=key), 403, "Authorization")
    other = site.other_brand()
    for call in (("GET", "/v1/customers/ada/export"), ("DELETE", "/v1/customers/ada")):
        site.problem(site.call(*call, key=other), 404, "ref")
    assert site.get("/v1/customers/ada").status_code == 200


def test_activity_is_noted_by_brands_and_by_what_people_do(site: Site) -> None:
    def active() -> dict[str, Any]:
        rows = site.house.rows("SELECT channel, at FROM activity")
        return {row.channel: row.at.isoformat() for row in rows}

    path = "/v1/customers/ada/activity"
    told = site.post(path, {"channel": "chat", "at": "2026-01-02T00:00:00Z"})
    assert (told.status_code, told.content) == (204, b"")
    assert active() == {"chat": "2026-01-02T00:00:00+00:00"}
    site.post(path, {"channel": "chat", "at": "2026-01-01T00:00:00Z"})
    assert active() == {"chat": "2026-01-02T00:00:00+00:00"}, "the latest stands"
    site.post(path, {"channel": "sms"})
    assert set(active()) == {"chat", "sms"}
    site.problem(site.post(path, {"channel": "fax"}), 422, "channel")
    site.problem(site.post(path, {"channel": None}), 422, "channel")
    site.problem(site.post(path, {}), 422, "channel")
    site.problem(site.post(path, []), 422, "body")
    site.problem(site.post(path, {"channel": "sms", "at": "2999-01-01T00:00:00Z"}), 422, "at")
    site.problem(site.post(path, {"channel": "sms", "at": "yesterday"}), 422, "at")
    site.problem(site.post(path, {"channel": "sms", "where": "home"}), 422, "where")
    site.problem(site.post("/v1/customers/eve/activity", {"channel": "sms"}), 404, "ref")
    key = create_key(site.house.runtime, "demo", test=True)
    site.problem(site.post(path, {"channel": "sms"}, key=key), 404, "ref")
