"""What `converge why`, `status` and `policies try` print, on a ledger where a lot happened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli import context, look, trying
from app.cli.commands import run
from app.domain.consent import Scope
from tests.e2e.api import Site, intent
from tests.e2e.test_api_reading import seen
from tests.e2e.test_api_timeline import says, wrote

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """Run a command of `converge` on the ledger of `site`: (exit status, output, errors)."""
    for module in (context, look, trying):
        monkeypatch.setattr(module, "runtime", lambda: site.house.runtime)
    monkeypatch.setenv("COLUMNS", "160")

    def said(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["converge", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return said


def flat(told: str) -> str:
    return " ".join(told.split())


def test_why_tells_the_customers_timeline_as_the_api_has_it(site: Site, command: Said) -> None:
    seen(site, "order-991-shipped")
    wrote(site, "order-991-shipped")
    says(site, False, Scope(), "text")
    waiting = site.post("/v1/intents", intent(key="refund-1299")).json()["id"]
    status, shown, _ = command("why", "ada")
    assert status == 0
    items = site.get("/v1/customers/ada/timeline").json()["items"]
    sentences = [one["text"] for one in reversed(items)]
    assert [flat(shown).count(one) > 0 for one in sentences] == [True] * len(sentences)
    assert shown.index("Accepted") < shown.index("Seen:") < shown.index("forbade")
    assert f"(converge status {waiting})" in flat(shown)
    assert "no_consent" not in shown
    found = json.loads(command("why", "ada", "--json")[1])
    assert [one["text"] for one in found["customers"][0]["timeline"]] == sentences[::-1]
    _, one, _ = command("why", "ada", "--key", "refund-1299")
    _, same, _ = command("status", waiting)
    assert same in one
    assert "Decided on arrival: wait until" in flat(one)
    assert "order-991-shipped" not in one


def test_a_state_has_its_reason_in_words(site: Site, command: Said) -> None:
    taken = site.post("/v1/intents", intent(key="991")).json()["id"]
    site.post(f"/v1/intents/{taken}/cancel")
    assert "cancelled (somebody asked for it)" in command("status", taken)[1]


POLICY = """
[both]
expires_after = "1d"
[[both.steps]]
channels = ["email"]
unless_seen_within = "30m"
[[both.steps]]
channels = ["sms"]
"""


def test_a_policy_is_tried_and_nothing_is_sent(site: Site, command: Said, tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(POLICY)
    site.put("/v1/customers/ada", {"timezone": "Europe/Berlin"})
    site.house.execute(
        """UPDATE customers SET wishes = '{"quiet":{"from":"21:00","to":"08:00"}}'"""
    )
    asked = ("policies", "try", str(file), "--customer", "ada", "--at")
    status, shown, errors = command(*asked, "2030-01-31T20:45 Europe/Berlin")
    assert (status, errors) == (0, "")
    told = flat(shown)
    assert "2030-01-31 19:45:00Z (Thu 20:45 there) send Decided on arrival: step 1" in told
    assert "To a***@example.com." in told
    assert "it is in quiet hours until 2030-02-01 07:00 UTC" in told
    assert "2030-02-01 07:00:00Z (Fri 08:00 there) send Decided again: step 2, by SMS." in told
    assert "Assumed: nothing is seen;" in told
    site.house.run()
    assert site.house.sink.messages == []
    assert site.house.rows("SELECT FROM intents") == []
    found: dict[str, Any] = json.loads(command(*asked, "now", "--json")[1])
    assert found["steps"][-1]["verdict"] == "stop"
    _, refused, _ = command("policies", "try", "notify", "--customer", "ada", "--kind", "marketing")
    assert "It would not be taken: marketing needs the customer's consent" in refused


BAD = (
    (("notify", "--customer", "eve"), "Customer: brand demo knows nobody by this ref"),
    (("nonsense", "--customer", "ada"), "'nonsense' is not declared; known: email-only"),
    (("nowhere.toml", "--customer", "ada"), "nowhere.toml cannot be read"),
    (("notify", "--customer", "ada", "--at", "noon"), "--at 'noon': write"),
    (("notify", "--customer", "ada", "--brand", "acme"), "There is no brand 'acme'"),
    (("notify", "--customer", "ada", "--topic", "x"), "'x' is not declared; known: orders"),
    (("notify", "--customer", "ada", "--kind", "x"), "'x' is not one of"),
)


def test_what_cannot_be_tried_is_told(command: Said) -> None:
    for arguments, problem in BAD:
        status, shown, errors = command("policies", "try", *arguments)
        assert (status in (1, 2), shown) == (True, "")
        assert problem.lower() in flat(errors).lower()
