"""One-click unsubscribing: from the header of a mail that arrived to what goes out no more."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import pytest

from app.api import create
from app.domain.consent import Scope
from app.domain.tokens import Purpose
from app.domain.vocabulary import Kind
from app.store.session import make_engine
from app.usecases.operating.apply import apply
from tests.e2e.api import Site, intent, serving
from tests.statements import Statement, record
from tests.store.conftest import DECLARED

ONE_CLICK = "List-Unsubscribe=One-Click"


def mailed(site: Site, kind: str = "conversational", **more: Any) -> Any:
    """Send a mail of a kind; return it as it arrived."""
    taken = site.post("/v1/intents", intent(kind=kind, policy="email-only", **more))
    assert taken.status_code == 201, taken.text
    site.house.run()
    return message_from_bytes(site.house.sink.messages[-1].mime, policy=policy.default)


def link(mail: Any) -> str:
    found = re.fullmatch(
        r"<https://converge\.example(/u/[\w-]{36})>", mail["List-Unsubscribe"].strip()
    )
    assert found, mail["List-Unsubscribe"]
    assert mail["List-Unsubscribe-Post"] == ONE_CLICK
    return found[1]


def consents(site: Site) -> list[tuple[Any, ...]]:
    rows = site.house.rows(
        "SELECT o.kind, s.name, o.allow, o.own, o.source FROM consents o"
        " LEFT JOIN senders s ON s.id = o.sender_id ORDER BY o.id"
    )
    return [tuple(row) for row in rows]


def says_yes(site: Site, kind: Kind, *, own: bool = True) -> None:
    [ada] = site.house.rows("SELECT id, brand_id FROM customers")
    yes = Statement(ada.id, Scope(kind=kind), True, "preferences", own=own)
    record(site.house.runtime, ada.brand_id, [yes])


NO = ("conversational", None, False, True, "one_click")


def test_every_mail_but_transactional_ones_has_the_headers(site: Site) -> None:
    says_yes(site, Kind.MARKETING)
    assert "List-Unsubscribe" not in mailed(site, "transactional", key="1")
    assert link(mailed(site, "conversational", key="2"))
    assert link(mailed(site, "marketing", key="3"))


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"data": b""},
        {"data": b"\xff" * 10_000, "headers": {"Content-Type": "image/png"}},
    ],
    ids=["urlencoded", "multipart", "empty", "anything"],
)
def test_a_post_acts_at_once_and_its_repeat_says_the_same(site: Site, more: Any) -> None:
    path = link(mailed(site))
    site.post("/v1/intents", intent(kind="conversational", policy="email-only", key="queued"))
    site.house.tick()  # hinted, not claimed
    answers = [site.call("POST", path, key="", **more) for _ in range(3)]
    assert {one.status_code for one in answers} == {200}
    assert {one.text for one in answers} == {answers[0].text}
    assert "You will get no more messages of this kind from Demo." in answers[0].text
    assert not any("Set-Cookie" in one.headers or "Location" in one.headers for one in answers)
    assert consents(site) == [NO]
    [event] = site.house.rows("SELECT type, source FROM events")
    assert tuple(event) == ("unsubscribed", "tracking")
    mails = len(site.house.sink.messages)
    site.house.work()
    site.house.run()
    assert len(site.house.sink.messages) == mails
    mailed(site, "transactional", key="receipt")
    assert len(site.house.sink.messages) == mails + 1


def test_to_follow_the_link_changes_nothing(site: Site) -> None:
    path = link(mailed(site))
    for method in ("GET", "HEAD", "GET"):
        answer = site.fetch(path, method)
        assert answer.status_code == 200
        assert "Set-Cookie" not in answer.headers
    assert consents(site) == []
    assert site.house.rows("SELECT FROM events") == []
    page = site.fetch(path)
    assert '<form method="post">' in page.text
    assert "<button>Unsubscribe</button>" in page.text
    assert re.search(r'href="https://converge\.example/p/[\w-]{36}">All your choices', page.text)
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    assert "script" not in page.text
    for method in ("PUT", "DELETE"):
        assert site.call(method, path, key="").status_code == 405


def test_the_page_speaks_the_customers_language(site: Site) -> None:
    site.put("/v1/customers/ada", {"email": "ada@example.com", "locale": "de-AT"})
    path = link(mailed(site))
    page = site.fetch(path).text
    assert '<html lang="de"' in page
    assert "Sie erhalten dann keine Nachrichten dieser Art mehr von Demo." in page
    assert "Abbestellt" in site.call("POST", path, key="").text


def test_a_forged_token_is_no_link(site: Site) -> None:
    token = link(mailed(site))[3:]
    sign = site.house.runtime.words.signer.sign
    forged = [token[:-1] + ("A" if token[-1] != "A" else "B"), token[::-1], "x", "x" * 36]
    forged += [sign(purpose, 1) for purpose in Purpose if purpose is not Purpose.UNSUBSCRIBE]
    forged += [sign(Purpose.UNSUBSCRIBE, 999_999)]
    for one in forged:
        for method in ("GET", "POST"):
            answer = site.call(method, f"/u/{one}", key="")
            assert (answer.status_code, answer.headers["Content-Type"]) == (
                404,
                "text/html; charset=utf-8",
            )
            assert "This link leads nowhere" in answer.text
    german = {"Accept-Language": "de-CH, en;q=0.5"}
    assert "Dieser Link" in site.call("POST", "/u/x", key="", headers=german).text
    assert consents(site) == []


def test_who_was_erased_is_told_that_the_link_is_over_and_nothing_is_kept(site: Site) -> None:
    path = link(mailed(site))
    assert site.call("DELETE", "/v1/customers/ada").status_code == 204
    for method in ("GET", "POST"):
        answer = site.call(method, path, key="")
        assert (answer.status_code, "unsubscribed" in answer.text) == (410, False)
        assert "has been erased" in answer.text
        assert "newer message" not in answer.text
    assert consents(site) == []


def test_a_token_works_for_ever(site: Site) -> None:
    path = link(mailed(site))
    site.house.execute("UPDATE intents SET accepted_at = '2020-01-01', expires_at = '2020-01-02'")
    late = site.house.runtime.words.signer.read(
        path[3:], Purpose.UNSUBSCRIBE, datetime(2200, 1, 1, tzinfo=UTC)
    )
    assert late.expires_at is None
    assert site.call("POST", path, key="").status_code == 200
    assert consents(site) == [NO]


def test_the_old_link_counts_again_after_a_yes(site: Site) -> None:
    path = link(mailed(site))
    for _ in range(2):
        site.call("POST", path, key="")
        says_yes(site, Kind.CONVERSATIONAL)
        mailed(site, key=str(len(consents(site))))  # it goes out again
    site.call("POST", path, key="")
    site.call("POST", path, key="")
    assert [row[2] for row in consents(site)] == [False, True, False, True, False]


def test_a_brands_own_yes_does_not_lift_it(site: Site) -> None:
    path = link(mailed(site))
    site.call("POST", path, key="")
    says_yes(site, Kind.CONVERSATIONAL, own=False)
    before = len(site.house.sink.messages)
    site.post("/v1/intents", intent(kind="conversational", policy="email-only", key="2"))
    site.house.run()
    assert len(site.house.sink.messages) == before


def test_a_brand_may_let_it_mean_the_sender_alone(site: Site) -> None:
    brand = DECLARED.brands["demo"]
    narrow = replace(brand, settings={**brand.settings, "opt_out": "sender"})
    apply(site.house.runtime, replace(DECLARED, brands={"demo": narrow}))
    path = link(mailed(site))
    assert "from Demo Store." in site.call("POST", path, key="").text
    assert consents(site) == [("conversational", "store", False, True, "one_click")]
    assert link(mailed(site, sender="billing", key="2")) != path


def test_a_ledger_that_is_away_says_so_and_promises_nothing(site: Site) -> None:
    path = link(mailed(site))
    away = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with serving(create(replace(site.house.runtime, engine=away))) as url:
        answer = replace(site, url=url).call("POST", path, key="")
    away.dispose()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "unsubscribed" not in answer.text
