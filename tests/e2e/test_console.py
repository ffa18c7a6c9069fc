"""The console's pages: who may see them, what they show, and that they can do no harm."""

import base64
import re
from typing import Any
from uuid import uuid4

import pytest

from app.domain.consent import Scope
from app.domain.vocabulary import Channel
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.keys import create_key, revoke
from tests.e2e.api import Site, intent
from tests.e2e.test_api_reading import seen
from tests.e2e.test_api_timeline import says, wrote


def look(site: Site, path: str, key: str | None = None, status: int = 200) -> Any:
    """Open a page as a browser does that was given a key."""
    signed = base64.b64encode(f"ops:{key or site.key}".encode()).decode()
    answer = site.call("GET", path, key="", headers={"Authorization": f"Basic {signed}"})
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return answer


def words_of(page: Any) -> str:
    """What a page says, without its marks."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def test_an_intent_is_told_as_the_api_tells_it(site: Site) -> None:
    done = seen(site, "991")
    page = look(site, f"/console/intents/{done}")
    told = words_of(page)
    for entry in site.get(f"/v1/intents/{done}").json()["timeline"]:
        assert entry["text"] in told
    assert "/console/customers/ada" in page.text
    assert "ada@example.com" not in page.text


def test_a_customers_page_has_everything_over_all_channels(site: Site) -> None:
    seen(site, "991")
    wrote(site, "991")
    says(site, False, Scope())
    says(site, False, Scope(channel=Channel.CHAT))
    site.post("/v1/intents", intent(key="992"))
    page = look(site, "/console/customers/ada")
    told = words_of(page)
    for entry in site.get("/v1/customers/ada/timeline").json()["items"]:
        assert entry["text"] in told
    assert "a***@example.com" in told
    assert "ada@example.com" not in page.text
    assert "The customer forbade all messages, in a message to us." in told
    assert "Muted everything, for good" in told
    assert "Marketing no consent given" in told
    assert "Other opt-outs The customer forbade" in told
    assert "the customer may still allow it" in told, "what happens next of what is open"


def test_a_long_timeline_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.console.PAGE", 3)
    seen(site, "991")
    path: str | None = "/console/customers/ada"
    stories: list[str] = []
    while path is not None:
        page = look(site, path).text
        stories += re.findall(r'<li class="(\w+)">', page)
        older = re.search(r'href="(\?cursor=[^"]+)"', page)
        path = f"/console/customers/ada{older[1]}" if older else None
    assert stories == ["ended", "event", "attempt", "decided", "accepted"]


def test_without_a_key_nothing_is_shown(site: Site) -> None:
    taken = site.post("/v1/intents", intent(key="991")).json()["id"]
    paths = (f"/console/intents/{taken}", "/console/customers/ada", "/console")
    for given in ("", "Basic", "Basic !!!", "Basic eA==", "Bearer x", "Basic /w=="):
        for path in paths:
            headers = {"Authorization": given} if given else {}
            answer = site.call("GET", path, key="", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert "991" not in answer.text


def test_a_key_opens_what_it_reaches_and_no_more(site: Site) -> None:
    site.post("/v1/intents", intent(key="991"))
    bill = site.post("/v1/intents", intent(key="bill", sender="billing")).json()["id"]
    runtime = site.house.runtime
    store = create_key(runtime, "demo", senders=["store"])
    test = create_key(runtime, "demo", test=True)
    for key in (store, test, site.other_brand()):
        look(site, f"/console/intents/{bill}", key, 404)
    look(site, f"/console/intents/{bill}")
    mine = words_of(look(site, "/console/customers/ada", store))
    assert "991" in mine
    assert "bill" not in mine
    look(site, "/console/customers/ada", test, 404)
    look(site, "/console?find=ada", test, 404)
    look(site, "/console/customers/ada", site.other_brand(), 404)
    gone = create_key(runtime, "demo")
    revoke(runtime, gone.split("_")[2])
    look(site, "/console/customers/ada", gone, 401)


def test_what_is_looked_for_is_found(site: Site) -> None:
    site.put("/v1/customers/a%2Fb%3F", {"email": "ab@example.com"})
    taken = site.post("/v1/intents", intent(key="991 x")).json()["id"]
    for sought, path in (
        (taken, f"/console/intents/{taken}"),
        ("991 x", f"/console/intents/{taken}"),
        ("ada", "/console/customers/ada"),
        (" a/b? ", "/console/customers/a%2Fb%3F"),
    ):
        signed = {"Authorization": _basic(site.key)}
        answer = site.call("GET", "/console", key="", params={"find": sought}, headers=signed)
        assert (answer.status_code, answer.headers["Location"]) == (303, path)
        assert look(site, path)
    assert "nowhere" in look(site, "/console?find=nowhere", status=404).text
    look(site, "/console")
    for path, sought in (("intents/nonsense", "nonsense"), ("customers/eve", "eve")):
        page = look(site, f"/console/{path}", status=404).text
        assert f"has the id, key or ref <strong>{sought}</strong>" in page
    look(site, "/console/customers/ada?cursor=x", status=404)


def _basic(key: str) -> str:
    return "Basic " + base64.b64encode(f":{key}".encode()).decode()


def test_a_page_can_do_no_harm(site: Site) -> None:
    evil = "<script>alert(1)</script>"
    site.put("/v1/customers/ada", {"phone": "+12025550101", "chat": "x:" + evil})
    taken = site.post("/v1/intents", intent(key=evil, campaign=evil)).json()["id"]
    for path in (f"/console/intents/{taken}", "/console/customers/ada", f"/console?find={evil}"):
        answer = site.call("GET", path, key="", headers={"Authorization": _basic(site.key)})
        assert evil not in answer.text
        if answer.status_code == 303:
            continue
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "style=" not in answer.text
        assert "<script" not in answer.text
    for method in ("POST", "PUT", "DELETE"):
        answer = site.call(method, "/console", key="", headers={"Authorization": _basic(site.key)})
        assert answer.status_code == 405


def test_what_was_refused_has_a_page(site: Site) -> None:
    submission = Submission("demo", uuid4(), keep_refusals=True)
    [verdict] = accept(site.house.runtime, submission, [intent("lost", key="lost")])
    told = words_of(look(site, f"/console/intents/{verdict.id}"))
    assert "no customer has this ref" in told
    assert "Mend it and enqueue it again" in told
