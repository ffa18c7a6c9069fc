"""What a key sees of a customer: of its own senders, and of its own world, tests or live."""

from typing import Any, Final

import pytest

from app.usecases.operating.keys import create_key
from tests.e2e.api import Site, intent
from tests.e2e.test_console import _basic

ADA: Final = "/v1/customers/ada"
READS: Final = (ADA, f"{ADA}/preferences", f"{ADA}/consents", f"{ADA}/timeline")
NUMBER: Final = "+12025550101"
PRIVATE: Final = (
    "ada@example.com", "2025550101", "loyal-4711", "form 4711", "bought a fridge",
)  # fmt: skip


@pytest.fixture
def known(site: Site) -> Site:
    """Ada, of whom the brand knows much; sender store, too."""
    facts = {"attributes": {"card": "loyal-4711"}, "name": "Ada Lovelace"}
    assert site.put(ADA, facts).status_code == 200
    said = [
        {"scope": {"kind": "marketing"}, "allow": True, "evidence": "form 4711"},
        {"scope": {"sender": "store", "topic": "orders"}, "allow": False, "by": "customer"},
        {"scope": {"sender": "store"}, "allow": False, "evidence": "bought a fridge"},
        {"scope": {"sender": "billing", "topic": "orders"}, "allow": False},
        {"scope": {"address": NUMBER}, "allow": False, "by": "customer"},
    ]
    assert site.post(f"{ADA}/consents", said).status_code == 201
    assert site.post("/v1/intents", intent(sender="billing", key="bill")).status_code == 201
    return site


def key_of(site: Site, **more: Any) -> str:
    return create_key(site.house.runtime, "demo", **more)


def test_a_key_for_some_senders_sees_what_is_theirs_and_no_address(known: Site) -> None:
    key = key_of(known, senders=["billing"])
    told = {path: known.get(path, key=key) for path in READS}
    assert {one.status_code for one in told.values()} == {200}
    signed = {"Authorization": _basic(key)}
    told["console"] = known.call("GET", "/console/customers/ada", key="", headers=signed)
    for path, answer in told.items():
        for private in PRIVATE:
            assert private not in answer.text, (path, private)
        assert "store" not in answer.text, path
        assert "+1•••0101" in answer.text or path.endswith("/timeline"), path
    chosen = told[f"{ADA}/preferences"].json()
    assert list(chosen["senders"]) == ["billing"]
    assert [one["scope"]["sender"] for one in chosen["off"]] == ["billing", None]
    assert chosen["now"], "it may ask whether it may speak"
    said = told[f"{ADA}/consents"].json()["consents"]
    assert [one["scope"]["sender"] for one in said] == [None, "billing", None]
    shown = told[ADA].json()
    assert (shown["name"], shown["attributes"]) == ("Ada Lovelace", {})
    page = known.get(f"{ADA}/consents?limit=2", key=key).json()
    rest = known.get(f"{ADA}/consents?limit=2&cursor={page['next']}", key=key).json()
    assert page["consents"] + rest["consents"] == said


def test_a_key_for_all_senders_sees_all_of_it(known: Site) -> None:
    told = "".join(known.get(path).text for path in READS)
    for private in PRIVATE:
        assert private in told, private


def test_tests_and_live_customers_are_not_there_for_each_other(known: Site) -> None:
    tests = key_of(known, test=True)
    assert known.put("/v1/customers/tess", {"email": "open@sandbox.example"}, key=tests).ok
    for path in READS:
        known.problem(known.get(path, key=tests), 404, "ref")
        assert known.get(path).status_code == 200
        other = path.replace("ada", "tess")
        known.problem(known.get(other), 404, "ref")
        assert known.get(other, key=tests).status_code == 200
    for path, body in (
        ("/consents", {"scope": {}, "allow": False}),
        ("/activity", {"channel": "sms"}),
    ):
        known.problem(known.post(ADA + path, body, key=tests), 404, "ref")
        known.problem(known.post("/v1/customers/tess" + path, body), 404, "ref")
    known.problem(known.put(f"{ADA}/preferences", {}, key=tests), 404, "ref")
    assert known.put(ADA, {"email": None}, key=tests).json()["status"] == "stale"
    assert known.put("/v1/customers/tess", {}).json()["status"] == "kept"
    assert known.get("/v1/customers/tess").status_code == 200, "live from now on"


def test_a_key_for_some_senders_takes_no_address_away(known: Site) -> None:
    key = key_of(known, senders=["billing"])
    for document in ({"email": None}, {"phone": []}, {"name": "X", "chat": None}):
        known.problem(known.put(ADA, document, key=key), 403, "Authorization")
    assert known.put(ADA, {"locale": "de", "email": "ada@example.com"}, key=key).ok
    shown = known.get(ADA).json()
    assert [one["address"] for one in shown["endpoints"]] == ["ada@example.com", NUMBER]
    assert (shown["name"], shown["locale"]) == ("Ada Lovelace", "de")
