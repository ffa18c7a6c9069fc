"""Preferences and consents over HTTP."""

from datetime import UTC, datetime, timedelta

from app.usecases.operating.keys import create_key
from tests.e2e.api import Site

ADA = "/v1/customers/ada"


def test_what_is_got_can_be_put_back_and_partly_too(site: Site) -> None:
    told = site.get(f"{ADA}/preferences")
    assert told.status_code == 200
    before = told.json()
    assert before["topics"] == {"orders": None}
    assert site.put(f"{ADA}/preferences", before).json() == before
    until = (datetime.now(UTC) + timedelta(days=7)).isoformat()
    wanted = {
        "marketing": True,
        "senders": {"billing": {"muted": True, "until": until}},
        "channels": ["sms", "email"],
        "quiet_hours": {"from": "21:00", "to": "08:00"},
        "timezone": "Europe/Berlin",
        "by": "customer",
        "evidence": "call 4711",
    }
    after = site.put(f"{ADA}/preferences", wanted)
    assert after.status_code == 200, after.text
    shown = after.json()
    assert shown["senders"]["billing"]["muted"]
    assert (shown["timezone"], shown["marketing"]) == ("Europe/Berlin", True)
    assert site.put(f"{ADA}/preferences", shown).json() == shown
    assert site.get(f"{ADA}/preferences").json() == shown
    said = site.get(f"{ADA}/consents").json()
    assert [one["evidence"] for one in said["consents"]] == ["call 4711"] * 2
    assert {one["actor"].split()[0] for one in said["consents"]} == {"key"}


def test_the_brand_cannot_take_back_what_the_customer_said_in_person(site: Site) -> None:
    no = {"scope": {"topic": "orders"}, "allow": False, "by": "customer"}
    said = site.post(f"{ADA}/consents", no)
    assert said.status_code == 201, said.text
    yes = {"topics": {"orders": True}}
    refused = site.problem(site.put(f"{ADA}/preferences", yes), 409, "topics.orders")
    assert '"by": "customer"' in refused["detail"]
    assert site.put(f"{ADA}/preferences", {**yes, "by": "customer"}).status_code == 200


def test_statements_are_all_taken_or_none_and_once_by_their_key(site: Site) -> None:
    yes = {"scope": {"kind": "marketing", "channel": "email"}, "allow": True, "key": "form-1"}
    no = {"scope": {"sender": "nobody"}, "allow": False}
    site.problem(site.post(f"{ADA}/consents", [yes, no]), 422, "[1].scope.sender")
    assert site.get(f"{ADA}/consents").json()["consents"] == []
    assert site.post(f"{ADA}/consents", [yes]).status_code == 201
    again = site.post(f"{ADA}/consents", yes)
    first = site.get(f"{ADA}/consents").json()
    assert (again.status_code, again.json()) == (200, {"consents": first["consents"]})
    site.problem(site.post(f"{ADA}/consents", {**yes, "allow": False}), 409, "key")
    for number in range(3):
        site.post(f"{ADA}/consents", {**yes, "key": f"form-{number}"})
    first = site.get(f"{ADA}/consents?limit=2").json()
    assert len(first["consents"]) == 2
    rest = site.get(f"{ADA}/consents?limit=2&cursor={first['next']}").json()
    assert (len(rest["consents"]), rest["next"]) == (1, None)
    site.problem(site.get(f"{ADA}/consents?cursor=x"), 422, "cursor")


def test_a_zone_that_does_not_exist_and_the_like_are_refused_with_the_field(site: Site) -> None:
    put = f"{ADA}/preferences"
    site.problem(site.put(put, {"timezone": "Mars/Olympus"}), 422, "timezone")
    same = {"from": "21:00", "to": "21:00"}
    site.problem(site.put(put, {"quiet_hours": same}), 422, "quiet_hours")
    site.problem(site.put(put, {"by": "me"}), 422, "by")
    site.problem(site.put(put, {"topics": {"x": True}}), 422, "topics.x")
    site.problem(site.put(put, []), 422, "body")
    site.problem(site.get("/v1/customers/nobody/preferences"), 404, "ref")
    site.problem(site.put("/v1/customers/nobody/preferences", {}), 404, "ref")


def test_a_key_reaches_its_own_brand_senders_and_test_customers_alone(site: Site) -> None:
    other = site.other_brand()
    site.problem(site.get(f"{ADA}/preferences", key=other), 404, "ref")
    narrow = create_key(site.house.runtime, "demo", senders=["billing"])
    answer = site.put(f"{ADA}/preferences", {"marketing": True}, key=narrow)
    site.problem(answer, 403, "Authorization")
    yes = {"scope": {"kind": "marketing"}, "allow": True}
    site.problem(site.post(f"{ADA}/consents", yes, key=narrow), 422, "scope.sender")
    yes["scope"]["sender"] = "billing"  # type: ignore[index]  # a dict in a dict
    assert site.post(f"{ADA}/consents", yes, key=narrow).status_code == 201
    test = create_key(site.house.runtime, "demo", test=True)
    site.problem(site.post(f"{ADA}/consents", yes, key=test), 404, "ref")
    site.problem(site.put(f"{ADA}/preferences", {}, key=test), 404, "ref")
