"""What customers' machines fetch: recorded, judged, and never led anywhere but where it was meant.

The links are taken from mails that really arrived.
"""

import email
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import policy
from typing import Any

import pytest

from app.api import create
from app.content.layout import PAGE_CSP
from app.domain.tokens import Purpose
from app.store.session import make_engine
from app.usecases.deciding.decide import decide_intents
from tests.e2e.api import Site, intent, serving
from tests.e2e.conftest import wait_for

NOW = datetime.now(UTC)
CONTENT = {
    "subject": "Order 991",
    "text": "Hello **{{ name }}**, see [terms](https://shop.example/terms?q={{ name }}).",
    "actions": [{"label": "Track it", "url": "https://shop.example/t/991?a=1&b=2"}],
}


def mailed(site: Site, **more: Any) -> dict[str, str]:
    """Send a mail; return its links: o, c0 (the action), c1 (in the text), m; and its intent."""
    document = intent(content=CONTENT, data={"name": "Ada & Co"}, **more)
    taken = site.post("/v1/intents", document)
    assert taken.status_code == 201, taken.text
    site.house.run()
    # A person cannot have opened it within seconds.
    site.house.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 minute'")
    html = _html(site.house.sink.messages[-1].mime)
    found = re.findall(r"https://converge\.example(/([ocm])/[\w-]{36})", html)
    links: dict[str, str] = {"intent": taken.json()["id"]}
    for path, letter in dict.fromkeys(found):
        links[f"c{sum(name[0] == 'c' for name in links)}" if letter == "c" else letter] = path
    assert {"o", "c0", "c1", "m"} <= links.keys(), links
    return links


def _html(mime: bytes) -> str:
    message = email.message_from_bytes(mime, policy=policy.default)
    body = message.get_body(("html",))
    assert body is not None
    return str(body.get_content())


def targets(site: Site, links: dict[str, str]) -> set[str]:
    """Where the links of a mail lead."""
    return {site.fetch(links[name]).headers["Location"] for name in ("c0", "c1")}


def state(site: Site, links: dict[str, str]) -> tuple[str, str | None]:
    shown = site.get(f"/v1/intents/{links['intent']}").json()
    return shown["state"], shown["seen_as"]


def kept(site: Site) -> int:
    """Fetches in the inbox; each was kept before this answers (the note follows the answer)."""
    site.get("/healthz")
    return int(site.house.rows("SELECT count(*) FROM inbox")[0][0])


def wait_kept(site: Site, number: int) -> None:
    wait_for(lambda: kept(site) >= number, f"{number} fetches are kept", 10)


def test_an_open_marks_it_seen_and_cancels_the_next_channel(site: Site) -> None:
    links = mailed(site)
    site.house.execute(
        "UPDATE deliveries SET handed_over_at = now() - interval '31 minutes', due_at = now()"
    )
    site.house.tick()
    decisions, site.house.hints.decisions = site.house.hints.decisions, []
    decide_intents(site.house.runtime, decisions)
    rows = site.house.rows("SELECT channel, state FROM deliveries ORDER BY step")
    assert [tuple(row) for row in rows] == [("email", "sent"), ("sms", "planned")]
    hints = site.house.hints.inbox
    answer = site.fetch(links["o"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/gif")
    assert answer.content.startswith(b"GIF89a")
    assert answer.headers["Cache-Control"] == "no-store"
    wait_kept(site, 1)
    assert site.read_feedback()["seen"] == 1
    wait_for(lambda: site.house.hints.inbox == hints + 1, "the hint follows the commit")
    assert state(site, links) == ("seen", "opened")
    rows = site.house.rows("SELECT channel, state FROM deliveries ORDER BY step")
    assert [tuple(row) for row in rows] == [("email", "delivered"), ("sms", "cancelled")]


def test_a_click_leads_where_the_message_says(site: Site) -> None:
    links = mailed(site)
    where = site.fetch(links["c0"]).headers["Location"]
    assert where == "https://shop.example/terms?q=Ada%20%26%20Co"
    wait_kept(site, 1)
    assert site.house.rows("SELECT due_at > received_at FROM inbox")[0][0], "it waits for others"
    site.read_feedback()
    assert state(site, links) == ("seen", "clicked")


def test_who_follows_all_links_at_once_is_no_person(site: Site) -> None:
    links = mailed(site)
    assert targets(site, links) == {
        "https://shop.example/t/991?a=1&b=2",
        "https://shop.example/terms?q=Ada%20%26%20Co",
    }
    site.fetch(links["o"])
    wait_kept(site, 3)
    site.read_feedback()
    assert state(site, links) == ("open", None)
    shown = site.get(f"/v1/intents/{links['intent']}").json()
    assert {(one["type"], one["reason"]) for one in shown["events"]} == {
        ("opened_by_machine", "burst")
    }


def test_nothing_a_request_carries_changes_where_a_link_leads(site: Site) -> None:
    links = mailed(site)
    wanted = site.fetch(links["c0"]).headers["Location"]
    evil = "https://evil.example/"
    for query in (f"?url={evil}", f"?next={evil}", f"?to={evil}#x", "?" + "x" * 5000):
        assert site.fetch(links["c0"] + query).headers["Location"] == wanted
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example"}):
        answer = site.call("GET", links["c0"], key="", headers=headers)
        assert answer.headers["Location"] == wanted
    token = links["c0"][3:]
    forged = ["x", token[:-1], token + "A", token[::-1], token[:-1] + chr(ord(token[-1]) ^ 1)]
    forged += [evil, "//evil.example", "%2F%2Fevil.example", "..%2F..%2Fv1%2Fintents"]
    for one in forged:
        answer = site.fetch(f"/c/{one}")
        assert answer.status_code == 404, one
        assert "Location" not in answer.headers
        assert "evil" not in answer.text


def test_a_token_opens_its_own_door_alone(site: Site) -> None:
    links = mailed(site)
    assert site.fetch("/c/" + links["o"][3:]).status_code == 404
    assert site.fetch("/m/" + links["c0"][3:]).status_code == 404
    signer = site.house.runtime.words.signer
    for index in (7, 4_000, 65_535):  # no such link in the message
        path = f"/c/{signer.sign(Purpose.CLICK, 1, index, NOW + timedelta(days=1))}"
        assert site.fetch(path).status_code == 404
    gone = signer.sign(Purpose.CLICK, 2**60, 0, NOW + timedelta(days=1))
    assert site.fetch(f"/c/{gone}").status_code == 404


def test_who_was_erased_is_told_so_by_the_links_of_messages(site: Site) -> None:
    links = mailed(site)
    assert site.call("DELETE", "/v1/customers/ada").status_code == 204
    for name in ("m", "c0"):
        answer = site.fetch(links[name])
        assert (answer.status_code, "has been erased" in answer.text) == (410, True)
        assert "newer message" not in answer.text


def test_old_and_bad_links_get_a_plain_page_and_pixels_a_picture(site: Site) -> None:
    mailed(site)
    signer = site.house.runtime.words.signer
    for purpose in (Purpose.CLICK, Purpose.MESSAGE):
        old = signer.sign(purpose, 1, 0, NOW - timedelta(days=1))
        answer = site.fetch(f"/{purpose}/{old}")
        assert answer.status_code == 410
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "expired" in answer.text
        assert old not in answer.text
        nowhere = site.call("GET", f"/{purpose}/x", key="", headers={"Accept-Language": "de"})
        assert (nowhere.status_code, "Dieser Link führt ins Leere" in nowhere.text) == (404, True)
    for token in (signer.sign(Purpose.OPEN, 1, 0, NOW - timedelta(days=1)), "nonsense"):
        answer = site.fetch(f"/o/{token}")
        assert (answer.status_code, answer.content[:3]) == (200, b"GIF")
    assert kept(site) == 0


@pytest.mark.parametrize(
    ("method", "agent", "reason"),
    [
        ("HEAD", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "method"),
        ("GET", "Mozilla/5.0", "apple_prefetch"),
        ("GET", "Mozilla/5.0 (compatible; Barracuda)", "scanner"),
    ],
)
def test_a_machine_is_answered_but_has_not_seen_it(
    site: Site, method: str, agent: str, reason: str
) -> None:
    links = mailed(site)
    for number, name in enumerate(("o", "c0", "m"), 1):
        answer = site.fetch(links[name], method=method, agent=agent)
        assert answer.status_code == (302 if name == "c0" else 200)
        wait_kept(site, number)
    site.read_feedback()
    assert state(site, links) == ("open", None)
    shown = site.get(f"/v1/intents/{links['intent']}").json()
    assert {(one["type"], one["reason"]) for one in shown["events"]} == {
        ("opened_by_machine", reason)
    }


def test_the_hosted_message_is_a_page_without_scripts_and_counts_as_a_click(site: Site) -> None:
    links = mailed(site)
    answer = site.fetch(links["m"])
    assert answer.status_code == 200
    assert "Hello <strong>Ada &amp; Co</strong>" in answer.text
    assert answer.headers["Content-Security-Policy"] == PAGE_CSP
    assert answer.headers["Cache-Control"] == "no-store"
    assert "<script" not in answer.text
    wait_kept(site, 1)
    site.read_feedback()
    assert state(site, links) == ("seen", "clicked")


def test_a_repeated_fetch_is_one_event(site: Site) -> None:
    links = mailed(site)
    for number in range(1, 4):
        site.fetch(links["o"])
        wait_kept(site, number)
    site.read_feedback()
    assert site.house.rows("SELECT count(*) FROM events")[0][0] == 1


@pytest.mark.slow
def test_with_the_ledger_away_pictures_still_come_and_links_ask_for_patience(site: Site) -> None:
    links = mailed(site)
    away = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with serving(create(replace(site.house.runtime, engine=away))) as url:
        broken = replace(site, url=url)
        assert broken.fetch(links["o"]).content[:3] == b"GIF"
        for name in ("c0", "m"):
            answer = broken.fetch(links[name])
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "Location" not in answer.headers
        site.problem(broken.get("/v1/intents"), 503, None)
        ready = broken.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["redis"]) == (503, "ok")
        assert broken.get("/healthz").status_code == 200
    away.dispose()
