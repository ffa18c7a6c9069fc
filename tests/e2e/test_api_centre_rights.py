"""Two links to the preference centre: one in every message, which chooses; one that may do all."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.tokens import Purpose, Rights
from tests.e2e.api import Site
from tests.e2e.test_api_centre import Visitor
from tests.store.conftest import intent

PATH = r"https://converge\.example(/p/[\w-]{36})"


@pytest.fixture
def ada(site: Site) -> Visitor:
    """Ada, who came by the link of an ordinary mail."""
    visitor = Visitor(site)
    assert site.post("/v1/intents", intent()).status_code == 201
    site.house.run()
    visitor.path = link_in(site)
    return visitor


def link_in(site: Site) -> str:
    """The link to the preference centre in the last mail."""
    found = re.search(PATH, site.house.sink.messages[-1].mime.decode())
    assert found
    return found[1]


def full(site: Site, visitor: Visitor) -> bool:
    """Whether the visitor sees whole addresses."""
    page = visitor.get()
    assert page.status_code == 200
    return "ada@example.com" in page.text and "Erase my data" in page.text


def test_the_link_of_a_mail_chooses_and_shows_no_address(ada: Visitor, site: Site) -> None:
    page = ada.get().text
    assert not full(site, ada)
    assert "ada@example.com" not in page
    assert "a***@example.com" in page
    assert "2025550101" not in page
    ada.act(**{"do": "topics", "topic.orders": "no", "was.topic.orders": ""})
    ada.act(do="mute", sender="billing", **{"for": "hour"})
    ada.act(do="quiet", zone="Europe/Berlin", **{"from": "21:00", "to": "08:00"})
    ada.act(do="channels", channel=["sms"])
    ada.act(do="pause", **{"for": "day"})
    assert ada.now()["everything"]["muted"]
    (mail, _) = ada.now()["addresses"]
    for form in (
        {"do": "correct", "id": mail["id"], "address": "eve@example.com"},
        {"do": "remove", "id": mail["id"]},
        {"do": "remove-surely", "id": mail["id"]},
        {"do": "mean", "id": mail["id"]},
        {"do": "download"},
        {"do": "erase"},
        {"do": "erase-surely"},
    ):
        answer = ada.send(**form)
        assert answer.status_code == 403, form
        assert "This link cannot do that" in answer.text
        assert "ada@example.com" not in answer.text
    assert [one["address"] for one in ada.now()["addresses"]] == ["ada@example.com", "+12025550101"]


def test_what_was_stopped_is_shown_without_the_address(ada: Visitor, site: Site) -> None:
    no = {"scope": {"address": "+12025550101"}, "allow": False, "by": "customer"}
    assert site.post("/v1/customers/ada/consents", no).status_code == 201
    page = ada.get().text
    assert "Also switched off" in page
    assert "+1•••0101" in page
    assert "2025550101" not in page


def test_the_page_sends_the_link_that_may_do_all_to_an_address_of_ones_own(
    ada: Visitor, site: Site
) -> None:
    (mail, phone) = ada.now()["addresses"]
    page = ada.act(do="send-link", id=mail["id"])
    assert "We have sent it there" in page
    site.house.work()
    assert len(site.house.sink.messages) == 2
    assert site.house.sink.messages[-1].recipients == ("ada@example.com",)
    ada.act(do="send-link", id=mail["id"])
    site.house.run()
    assert len(site.house.sink.messages) == 2, "once an hour"
    weak, ada.path = ada.path, re.findall(PATH, site.house.sink.messages[-1].mime.decode())[0]
    assert full(site, ada)
    ada.act(do="remove-surely", id=phone["id"])
    ada.path = weak
    for key in (phone["id"], 10**9, "x"):
        answer = ada.send(do="send-link", id=key)
        assert answer.status_code == 422
        assert "cannot send it there now" in answer.text


def test_a_link_that_did_not_go_is_sent_once_more_and_then_none_is_promised(
    ada: Visitor, site: Site
) -> None:
    (mail, _) = ada.now()["addresses"]
    faults = site.house.sink.faults
    faults.refuse = {"ada@example.com": "554 5.6.0 not that content"}
    ada.act(do="send-link", id=mail["id"])
    site.house.work()
    faults.refuse = {}
    ada.act(do="send-link", id=mail["id"])
    ada.act(do="send-link", id=mail["id"])
    site.house.run()
    assert len(site.house.sink.messages) == 2
    ada.act(do="send-link", id=mail["id"])
    site.house.execute("UPDATE deliveries SET state = 'failed', handed_over_at = NULL")
    answer = ada.send(do="send-link", id=mail["id"])
    assert answer.status_code == 422
    assert "cannot send it there now" in answer.text


def test_nothing_is_sent_where_the_customer_said_no(ada: Visitor, site: Site) -> None:
    (mail, _) = ada.now()["addresses"]
    ada.act(do="pause", **{"for": "good"})
    assert "Send me the link" not in ada.get().text
    assert ada.send(do="send-link", id=mail["id"]).status_code == 422
    site.house.run()
    assert len(site.house.sink.messages) == 1


def test_rights_that_there_are_not_open_nothing(ada: Visitor, site: Site) -> None:
    (key,) = site.house.rows("SELECT id FROM customers WHERE ref = 'ada'")[0]
    token = ada.runtime.words.signer.sign(Purpose.PREFERENCES, key, max(Rights) + 1)
    assert ada.get(f"/p/{token}").status_code == 404


def audited(site: Site) -> list[Any]:
    return [
        tuple(row)
        for row in site.house.rows("SELECT action, reason FROM audit WHERE action LIKE '%link'")
    ]


def test_a_key_asks_for_a_link_that_may_do_all(site: Site) -> None:
    visitor = Visitor(site)
    hour = datetime.now(UTC) + timedelta(hours=1)
    answer = site.post("/v1/customers/ada/preferences/link")
    assert answer.status_code == 201, answer.text
    told = answer.json()
    found = re.fullmatch(PATH, told["url"])
    assert found
    visitor.path = found[1]
    assert full(site, visitor)
    assert hour <= datetime.fromisoformat(told["expires_at"]) <= hour + timedelta(hours=1)
    assert audited(site) == [("preferences.link", "")]
    longer = site.post("/v1/customers/ada/preferences/link", {"hours": 24}).json()
    assert longer["expires_at"] > told["expires_at"]
    for hours in (0, 25, "1", True, 1.5):
        bad = site.post("/v1/customers/ada/preferences/link", {"hours": hours})
        site.problem(bad, 422, "hours")
    site.problem(site.post("/v1/customers/ada/preferences/link", {"days": 1}), 422, "days")
    site.problem(site.post("/v1/customers/eve/preferences/link"), 404, "ref")
    assert site.get("/v1/customers/ada/preferences/link").status_code == 405
