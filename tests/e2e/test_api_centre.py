"""The preference centre over HTTP, as a browser without scripts uses it."""

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from app.api.pages import CSP
from app.domain.tokens import Purpose
from app.usecases.consent.preferences import read_preferences
from app.usecases.consent.statements import say_by_names
from app.usecases.consent.voices import Named, Voice
from tests.e2e.api import Site
from tests.store.conftest import intent

NOW = datetime.now(UTC)
MORE = {"kind": "marketing", "policy": "email-only"}
IN_PERSON = Voice("text", own=True, actor="customer")


class Visitor:
    """A person with the link to their preferences."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.runtime = site.house.runtime
        (row,) = site.house.rows("SELECT id, brand_id FROM customers WHERE ref = 'ada'")
        self.ada = Named(row.brand_id, "ada")
        self.path = "/p/" + self.token(row.id)

    def token(self, key: int, purpose: Purpose = Purpose.PREFERENCES, days: float = 1) -> str:
        signer = self.runtime.words.signer
        return signer.sign(purpose, key, expires_at=NOW + timedelta(days=days))

    def get(self, path: str = "", **headers: str) -> requests.Response:
        answer: requests.Response = self.site.call(
            "GET", path or self.path, key="", headers=headers
        )
        return answer

    def send(self, **form: Any) -> requests.Response:
        answer: requests.Response = self.site.call("POST", self.path, key="", data=form)
        return answer

    def act(self, **form: Any) -> str:
        """Send a form that must be taken; return the page that it leads to."""
        answer = self.send(**form)
        assert answer.status_code == 303, answer.text
        assert answer.content == b""
        there = urljoin(self.site.url + self.path, answer.headers["Location"])
        assert there.startswith(self.site.url + self.path + "?done=")
        page = requests.get(there, timeout=20)
        assert page.status_code == 200
        return page.text

    def now(self) -> dict[str, Any]:
        return read_preferences(self.runtime, self.ada)


@pytest.fixture
def ada(site: Site) -> Visitor:
    return Visitor(site)


def test_a_mail_leads_to_the_page_and_the_page_changes_what_may_be_sent(
    site: Site, ada: Visitor
) -> None:
    assert site.post("/v1/intents", intent(kind="transactional")).status_code == 201
    site.house.run()
    mime = site.house.sink.messages[-1].mime.decode()
    found = re.search(r"https://converge\.example(/p/[\w-]{36})", mime)
    assert found
    ada.path = found[1]
    page = ada.get()
    assert page.status_code == 200
    assert page.headers["Content-Security-Policy"] == CSP
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in page.headers
    assert "<script" not in page.text
    assert "Your orders" in page.text
    assert "Saved." in ada.act(**{"do": "topics", "topic.orders": "no", "was.topic.orders": ""})
    assert ada.now()["topics"] == {"orders": False}
    (kept,) = site.get("/v1/customers/ada/consents").json()["consents"]
    assert (kept["source"], kept["by"], kept["actor"]) == ("preferences", "customer", "customer")
    site.post("/v1/intents", intent())
    site.house.run()
    assert len(site.house.sink.messages) == 1, "nothing more about orders"


def test_everything_on_the_page_can_be_changed(ada: Visitor) -> None:
    ada.act(do="mute", sender="billing", **{"for": "week"})
    week = datetime.now(UTC) + timedelta(weeks=1)
    until = ada.now()["senders"]["billing"]["until"]
    assert abs((until - week).total_seconds()) < 60
    ada.act(do="mute", sender="billing", **{"for": "hour"})
    assert ada.now()["senders"]["billing"]["until"] < week - timedelta(days=6)
    ada.act(do="mute", sender="billing", **{"for": "end"})
    assert not ada.now()["senders"]["billing"]["muted"]
    page = ada.act(do="pause", **{"for": "good"})
    assert "Everything is paused" in page
    assert ada.now()["everything"] == {"muted": True, "until": None}
    ada.act(do="pause", **{"for": "end"})
    assert "Others have their own order" in page, "no more is promised than the wish does"
    ada.act(do="channels", channel=["sms", "", "sms", "email"])
    assert ada.now()["channels"] == ["sms", "email"]
    ada.act(do="quiet", zone="Europe/Berlin", **{"from": "21:00", "to": "08:00"})
    assert ada.now()["quiet_hours"] == {"from": "21:00", "to": "08:00"}
    assert ada.now()["timezone"] == "Europe/Berlin"
    ada.act(do="quiet", quiet="none", zone="Europe/Berlin", **{"from": "21:00", "to": "08:00"})
    assert ada.now()["quiet_hours"] is None
    mail, phone = ada.now()["addresses"]
    assert "new@example.com" in ada.act(do="correct", id=mail["id"], address=" new@example.com ")
    asked = ada.send(do="remove", id=phone["id"])
    assert asked.status_code == 200
    assert "Remove this address?" in asked.text
    assert len(ada.now()["addresses"]) == 2
    ada.act(do="remove-surely", id=phone["id"])
    assert [one["address"] for one in ada.now()["addresses"]] == ["new@example.com"]
    ada.act(do="topics", marketing="yes", **{"was.marketing": ""})
    assert ada.now()["marketing"] is True


def test_what_was_stopped_elsewhere_is_shown_and_can_be_allowed_again(ada: Visitor) -> None:
    stop = {"scope": {"address": "+12025550101"}, "allow": False}
    say_by_names(ada.runtime, ada.ada, stop, IN_PERSON)
    page = ada.get().text
    assert "Also switched off" in page
    (no,) = ada.now()["off"]
    assert "Also switched off" not in ada.act(do="allow", id=no["id"])
    assert ada.now()["off"] == []


def test_who_unsubscribed_gets_what_they_choose_again(site: Site, ada: Visitor) -> None:
    unsubscribed = {"scope": {"kind": "marketing"}, "allow": False}
    say_by_names(ada.runtime, ada.ada, unsubscribed, IN_PERSON)
    page = ada.get().text
    assert "A yes counts for advertising about it, too." in page
    assert "You still get it about" not in page
    form = {"topic.orders": "yes", "was.topic.orders": "", "marketing": "no", "was.marketing": "no"}
    page = ada.act(do="topics", **form)
    assert "With advertising." in page
    assert "You still get it about: Your orders." in page
    offer = intent(**MORE)
    assert site.post("/v1/intents", offer).status_code == 201
    assert 'name="was.marketing" value=""' in page, "the no can be said again"
    form = {"topic.orders": "yes", "was.topic.orders": "yes", "was.marketing": ""}
    ada.act(do="topics", **form)
    assert site.post("/v1/intents", intent(**MORE)).status_code == 201, "nobody said no"
    page = ada.act(do="topics", marketing="no", **form)
    assert "You still get it about" not in page
    assert site.post("/v1/intents", intent(**MORE)).status_code == 422


def test_the_page_says_what_comes_in_spite_of_a_pause(site: Site, ada: Visitor) -> None:
    ada.act(do="pause", **{"for": "good"})
    form = {"do": "topics", "topic.orders": "yes", "was.topic.orders": ""}
    page = ada.act(**form)
    assert "You get nothing from us" not in page
    assert "You have said yes since to messages about: Your orders." in page
    page = ada.act(do="pause", **{"for": "good"})
    assert "You get nothing from us until you say otherwise." in page
    site.post("/v1/intents", intent())
    site.house.run()
    assert not site.house.sink.messages


def test_an_old_page_does_not_undo_what_was_said_since(ada: Visitor) -> None:
    form = {"do": "topics", "topic.orders": "yes", "was.topic.orders": "yes", "marketing": "no"}
    say_by_names(ada.runtime, ada.ada, {"scope": {"topic": "orders"}, "allow": False}, IN_PERSON)
    ada.act(**form, **{"was.marketing": ""})
    assert (ada.now()["topics"]["orders"], ada.now()["marketing"]) == (False, False)


def test_a_form_sent_twice_at_once_counts_once(ada: Visitor) -> None:
    form = {"do": "topics", "topic.orders": "no", "was.topic.orders": ""}
    threads = [threading.Thread(target=ada.act, kwargs=form) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ada.site.house.rows("SELECT count(*) FROM consents")[0][0] == 1


def test_looking_changes_nothing_whoever_looks(ada: Visitor) -> None:
    before = ada.now()
    for query in ("", "?do=pause&for=good", "?done=topics", "?done=<script>"):
        page = ada.get(ada.path + query)
        assert page.status_code == 200
        assert "<script>" not in page.text
    assert ada.site.call("HEAD", ada.path, key="").status_code == 200
    assert ada.now() == before


def test_bad_forms_are_told_on_the_page_and_change_nothing(ada: Visitor) -> None:
    before = ada.now()
    mail, phone = before["addresses"]
    bad: list[tuple[dict[str, Any], str]] = [
        ({"do": "quiet", "from": "21:00", "to": "21:00"}, "two different times"),
        ({"do": "quiet", "from": "21:00", "to": ""}, "two different times"),
        ({"do": "quiet", "from": "", "to": "", "zone": "Mars/Olympus"}, "time zone from the list"),
        ({"do": "correct", "id": mail["id"], "address": "<b>nobody"}, "not an email address"),
        ({"do": "correct", "id": phone["id"], "address": "x"}, "not a phone number"),
        ({"do": "correct", "id": mail["id"], "address": " "}, "not an email address"),
        ({"do": "correct", "id": "999999999", "address": "a@example.com"}, "changed meanwhile"),
        ({"do": "remove", "id": "x"}, "changed meanwhile"),
        ({"do": "remove-surely", "id": "0"}, "changed meanwhile"),
        ({"do": "mean", "id": "1" * 30}, "changed meanwhile"),
        ({"do": "mute", "sender": "nobody", "for": "good"}, "did not work"),
        ({"do": "mute", "sender": "store", "for": "ever"}, "did not work"),
        ({"do": "pause"}, "did not work"),
        ({"do": "channels", "channel": "pigeon"}, "did not work"),
        ({"do": "topics", "topic.weather": "yes"}, "did not work"),
        ({"do": "everything"}, "did not work"),
        ({}, "did not work"),
        ({f"field{n}": "x" for n in range(600)}, "did not work"),
    ]
    for form, words in bad:
        answer = ada.send(**form)
        assert answer.status_code == 422, form
        assert words in answer.text, form
        assert "<b>" not in answer.text
        assert 'role="alert"' in answer.text
    garbage = ada.site.call("POST", ada.path, key="", data=b"\xff\x00%zz&do=\xc3\x28")
    assert garbage.status_code == 422
    assert ada.now() == before


def test_forged_expired_and_other_tokens_get_a_clear_page_without_detail(
    ada: Visitor, site: Site
) -> None:
    (key,) = site.house.rows("SELECT id FROM customers WHERE ref = 'ada'")[0]
    good = ada.path[3:]
    forged = [good[:-1], good[:-1] + chr(ord(good[-1]) ^ 1), "x" * 36]
    forged += [ada.token(key, purpose) for purpose in Purpose if purpose is not Purpose.PREFERENCES]
    for token in forged:
        for method in ("GET", "POST"):
            answer = site.call(method, f"/p/{token}", key="", data={"do": "pause", "for": "good"})
            assert answer.status_code == 404, token
            assert "This link leads nowhere" in answer.text
            assert token not in answer.text
    old = site.call("POST", f"/p/{ada.token(key, days=-1)}", key="", data={"do": "pause"})
    assert (old.status_code, "expired" in old.text) == (410, True)
    german = ada.get("/p/x", **{"Accept-Language": "de-CH, en;q=0.5"})
    assert "Dieser Link führt ins Leere" in german.text
    assert 'lang="de"' in german.text
    assert site.call("DELETE", "/v1/customers/ada").status_code == 204
    erased = ada.get(**{"Accept-Language": "de"})
    assert (erased.status_code, "wurden gelöscht" in erased.text) == (410, True)


def test_the_customers_language_comes_before_the_browsers(ada: Visitor, site: Site) -> None:
    assert "Quiet hours" in ada.get(**{"Accept-Language": "fr"}).text
    assert "Ruhezeit" in ada.get(**{"Accept-Language": "fr, de;q=0.5"}).text
    site.put("/v1/customers/ada", {"locale": "de-AT"})
    page = ada.get(**{"Accept-Language": "en"})
    assert "Ruhezeit" in page.text
    assert page.headers["Content-Language"] == "de"


def test_names_are_escaped(ada: Visitor, site: Site) -> None:
    site.house.execute("UPDATE topics SET title = '<i>\"Orders\"</i>'")
    site.house.execute("""UPDATE senders SET settings = '{"name": "<u>Store"}'""")
    ada.runtime.catalog.forget()
    page = ada.get().text
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
    assert "<u>" not in page
