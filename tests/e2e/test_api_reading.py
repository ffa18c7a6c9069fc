"""What became of intents, over HTTP and from the read side that the CLI shares."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.control import Operator, Target, pause
from app.usecases.telling import inspect
from tests.e2e.api import Site, intent
from tests.store.conftest import House


def seen(site: Site, key: str, **more: Any) -> str:
    """An intent that was mailed and opened; its id."""
    taken = site.post("/v1/intents", intent(key=key, **more)).json()["id"]
    site.house.run()
    site.house.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 minute'")
    site.house.execute(
        """
        INSERT INTO inbox (source, external_id, body)
        SELECT 'tracking', :name, convert_to(json_build_object('delivery', id, 'event', 'opened',
               'index', 0, 'agent', 'Mozilla/5.0 (X11) Firefox/140.0', 'ip', '127.0.0.1',
               'method', 'GET')::text, 'UTF8')
          FROM deliveries WHERE intent_id = CAST(:id AS uuid)""",
        name=uuid4().hex,
        id=taken,
    )
    site.read_feedback()
    return str(taken)


def test_the_story_of_an_intent_is_told_whole(site: Site) -> None:
    shown = site.get(f"/v1/intents/{seen(site, '991')}").json()
    assert (shown["state"], shown["seen_as"], shown["seen_on"]) == ("seen", "opened", "email")
    assert (shown["customer"], shown["sender"], shown["policy"]) == ("ada", "store", "notify")
    [delivery] = shown["deliveries"]
    assert (delivery["step"], delivery["state"]) == (1, "delivered")
    assert delivery["address"] == "a***@example.com"
    assert [one["outcome"] for one in delivery["attempts"]] == ["accepted"]
    [decision] = shown["decisions"]
    assert [(one["channel"], one["why"]) for one in decision["considered"]] == [("email", "chosen")]
    assert [one["what"] for one in shown["timeline"]] == [
        "accepted",
        "decided",
        "attempt",
        "event",
        "ended",
    ]
    times = [datetime.fromisoformat(one["at"]) for one in shown["timeline"]]
    assert times == sorted(times)
    assert shown["next"]["at"] is None
    assert "ada@example.com" not in str(shown)


def test_what_happens_next_is_said_with_its_time(site: Site) -> None:
    path = site.post("/v1/intents", intent(key="991")).headers["Location"]
    assert "leaves" in site.get(path).json()["next"]["text"]
    site.house.run()
    shown = site.get(path).json()
    assert shown["next"]["at"] == shown["deliveries"][0]["due_at"]
    assert "step 2 (chat or SMS)" in shown["next"]["text"]
    later = intent(
        key="later", send_after="2999-01-01T00:00:00Z", expires_at="2999-02-01T00:00:00Z"
    )
    waiting = site.get(site.post("/v1/intents", later).headers["Location"]).json()
    assert datetime.fromisoformat(waiting["next"]["at"]).year == 2999


def test_a_conflict_over_the_broker_is_part_of_the_story(house: House) -> None:
    [taken] = house.accept(intent({"ref": "ada", "email": "ada@example.com"}, key="991"))
    house.accept(intent("ada", key="991", campaign="x"), keep_refusals=True)
    assert taken.id is not None
    shown = inspect.show_intent(house.runtime, taken.id)
    assert shown is not None
    assert [one["code"] for one in shown["refusals"]] == ["conflict"]
    assert "refused" in [one["what"] for one in shown["timeline"]]


def test_a_refused_intent_shows_why(site: Site) -> None:
    submission = Submission("demo", uuid4(), keep_refusals=True)
    [verdict] = accept(site.house.runtime, submission, [intent(to="stranger", key="lost")])
    shown = site.get(f"/v1/intents/{verdict.id}").json()
    assert (shown["state"], shown["field"], shown["code"]) == ("refused", "to", "unknown_customer")
    assert shown["key"] == "lost"
    site.problem(site.get(f"/v1/intents/{verdict.id}", key=site.other_brand()), 404, "id")


def test_lists_go_page_by_page_and_by_filter(site: Site) -> None:
    site.put("/v1/customers/bob", {"email": "bob@example.com"})
    for n in range(5):
        site.post("/v1/intents", intent(key=f"k{n}", campaign="spring" if n % 2 else None))
    site.post("/v1/intents", intent(to="bob", key="bobs", sender="billing"))
    pages: list[list[str]] = []
    cursor = None
    while cursor is not None or not pages:
        page = site.get("/v1/intents", params={"limit": 2, "cursor": cursor}).json()
        pages.append([row["key"] for row in page["intents"]])
        cursor = page["next"]
    assert pages == [["bobs", "k4"], ["k3", "k2"], ["k1", "k0"]]

    def keys(**filters: str) -> list[str]:
        rows = site.get("/v1/intents", params=filters).json()["intents"]
        return [row["key"] for row in rows]

    assert keys(campaign="spring") == ["k3", "k1"]
    assert keys(customer="bob") == ["bobs"]
    assert keys(sender="billing") == ["bobs"]
    assert keys(key="k2") == ["k2"]
    assert keys(key="bobs") == ["bobs"]
    assert keys(key="bobs", sender="store") == []
    assert keys(state="seen") == []
    assert keys(sender="nobody") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=gone", "state"),
        ("cursor=x", "cursor"),
        ("limit=0", "limit"),
        ("custmer=a", "custmer"),
    ],
)
def test_a_bad_filter_is_named(site: Site, query: str, field: str) -> None:
    site.problem(site.get(f"/v1/intents?{query}"), 422, field)


def test_a_bad_limit_is_told_in_our_own_words(site: Site) -> None:
    for limit, told in (("0", "must be 1 or more"), ("x", "must be a whole number")):
        assert site.get(f"/v1/intents?limit={limit}").json()["detail"] == told


def test_cancel_stops_what_has_not_left(site: Site) -> None:
    path = site.post("/v1/intents", intent(key="991")).headers["Location"]
    for _ in range(2):
        answer = site.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    site.house.run()
    assert site.house.sink.messages == []
    done = seen(site, "992")
    assert site.problem(site.post(f"/v1/intents/{done}/cancel"), 409, None)["state"] == "seen"
    site.problem(site.post("/v1/intents/not-an-id/cancel"), 404, "id")


def test_a_customer_is_kept_read_and_removed(site: Site) -> None:
    ada = site.get("/v1/customers/ada").json()
    assert [one["address"] for one in ada["endpoints"]] == ["ada@example.com", "+12025550101"]
    assert site.put("/v1/customers/ada", {"phone": None, "name": "Ada"}).json()["status"] == "kept"
    ada = site.get("/v1/customers/ada").json()
    assert ([one["channel"] for one in ada["endpoints"]], ada["name"]) == (["email"], "Ada")
    new = {"name": "New", "as_of": "2026-01-02T00:00:00Z"}
    old = {"name": "Old", "as_of": "2026-01-01T00:00:00Z"}
    told = [site.put("/v1/customers/ada", one).json()["status"] for one in (new, old)]
    assert told == ["kept", "stale"]
    site.problem(site.put("/v1/customers/ada", {"email": "no"}), 422, "email")
    site.problem(site.put("/v1/customers/ada", {"ref": "eve"}), 422, "ref")
    site.problem(site.put("/v1/customers/ada", {"attributes": {"a": "\0"}}), 422, "body")
    assert site.put("/v1/customers/a%2Fb", {"email": "ab@example.com"}).json()["ref"] == "a/b"
    assert site.get("/v1/customers/a%2Fb").json()["ref"] == "a/b"


def test_removing_a_customer_leaves_history_without_the_person(site: Site) -> None:
    done = seen(site, "991", data={"name": "Ada"})
    open_one = site.post("/v1/intents", intent(key="992")).json()["id"]
    assert site.call("DELETE", "/v1/customers/ada").status_code == 204
    site.problem(site.get("/v1/customers/ada"), 404, "ref")
    site.problem(site.call("DELETE", "/v1/customers/ada"), 404, "ref")
    assert site.get(f"/v1/intents/{done}").json()["state"] == "seen"
    shown = site.get(f"/v1/intents/{open_one}").json()
    assert (shown["state"], shown["reason"]) == ("cancelled", "customer_removed")
    assert shown["deliveries"][0]["address"] == "(removed)"
    site.house.run()
    assert len(site.house.sink.messages) == 1
    for table in ("customers", "endpoints", "intents", "decisions", "deliveries"):
        for row in site.house.rows(f"SELECT t::text FROM {table} t"):
            assert "ada" not in row[0].lower()
    # Without a history nothing stays, and a ref may be used again.
    site.put("/v1/customers/bob", {"email": "bob@example.com"})
    site.call("DELETE", "/v1/customers/bob")
    assert len(site.house.rows("SELECT FROM customers")) == 1
    assert site.put("/v1/customers/ada", {"email": "ada@example.com"}).status_code == 200


@pytest.mark.parametrize("who", ["ada", "ada@example.com", "ada@EXAMPLE.com", "+1 202 555 0101"])
def test_why_finds_by_ref_and_by_address(site: Site, who: str) -> None:
    seen(site, "991")
    submission = Submission("demo", uuid4(), keep_refusals=True)
    accept(site.house.runtime, submission, [intent(key="bad", topic="nobody-knows")])
    told = inspect.why(site.house.runtime, who)
    assert [one["key"] for one in told["intents"]] == ["991"]
    assert [one["field"] for one in told["refusals"]] == ["topic"]
    assert [one["ref"] for one in told["customers"]] == ["ada"]
    assert "Seen: opened on email" in told["customers"][0]["timeline"][0]["text"]
    assert "ada@example.com" not in str(told).lower()
    assert "2025550101" not in str(told)
    assert inspect.why(site.house.runtime, who, key="none")["intents"] == []


def test_why_finds_refusals_of_people_who_are_not_known(house: House) -> None:
    to = {"ref": "eve", "email": "eve@example.com"}
    house.accept(intent(to, key="a", topic="unknown"), intent("fay", key="b"), keep_refusals=True)
    assert [one["key"] for one in inspect.why(house.runtime, "eve")["refusals"]] == ["a"]
    assert [one["key"] for one in inspect.why(house.runtime, "eve@example.com")["refusals"]] == [
        "a"
    ]
    assert [one["key"] for one in inspect.why(house.runtime, "fay")["refusals"]] == ["b"]
    rows, cursor = inspect.refused(house.runtime, limit=1)
    assert ([one["key"] for one in rows], cursor is None) == (["b"], False)
    rows, cursor = inspect.refused(house.runtime, limit=1, cursor=cursor)
    assert ([one["key"] for one in rows], cursor) == (["a"], None)


def test_queues_say_what_waits_and_what_is_held(house: House) -> None:
    people = [{"ref": f"c{n}", "email": f"c{n}@example.com"} for n in range(3)]
    house.accept(*(intent(one, campaign="spring") for one in people))
    house.accept(intent("c0", urgency="bulk"), intent("c1", urgency="bulk"))
    later = "2999-01-01T00:00:00Z"
    house.accept(intent("c0", send_after=later, expires_at="2999-02-01T00:00:00Z"))
    pause(house.runtime, Target(campaign="spring"), Operator("ops", "wrong price"))
    state = inspect.queue_state(house.runtime)
    lanes = {(one["channel"], one["lane"]): one for one in state["lanes"]}
    normal, bulk = lanes["email", "normal"], lanes["email", "bulk"]
    assert (normal["due"], normal["held"], normal["held_why"]) == (0, 3, ["wrong price"])
    assert (bulk["due"], bulk["held"], bulk["hinted"]) == (2, 0, 0)
    assert bulk["oldest_due_s"] >= 0
    assert [one["reason"] for one in state["pauses"]] == ["wrong price"]
    house.tick()
    hinted = {(o["channel"], o["lane"]): o for o in inspect.queue_state(house.runtime)["lanes"]}
    assert hinted["email", "bulk"]["hinted"] == 2
    pause(house.runtime, Target(account="relay"), Operator("ops", "relay is down"))
    house.execute("UPDATE deliveries SET state = 'planned', due_at = now()")
    held = {(o["channel"], o["lane"]): o for o in inspect.queue_state(house.runtime)["lanes"]}
    assert held["email", "bulk"]["held_why"] == ["relay is down"]


def test_counts_of_waiting_work_stop_at_a_bound(house: House) -> None:
    house.accept(intent({"ref": "ada", "email": "ada@example.com"}))
    house.execute(
        """
        INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
                                state, due_at)
        SELECT intent_id, brand_id, sender_id, -n, step, channel, lane, state, due_at
          FROM deliveries, generate_series(1, 12000) n"""
    )
    [lane] = inspect.queue_state(house.runtime)["lanes"]
    assert lane["due"] == inspect.COUNT_BOUND
    assert inspect.told(lane["due"]) == ">= 10000"
    assert inspect.told(9_999) == "9999"


def test_dead_letters_and_tasks_lead_to_messages(house: House) -> None:
    people = [{"ref": f"c{n}", "email": f"c{n}@example.com"} for n in range(3)]
    house.accept(*(intent(one, policy="email-only", key=one["ref"]) for one in people))
    house.run()
    house.execute("UPDATE deliveries SET state = 'failed', reason = 'smtp_550', due_at = NULL")
    rows, cursor = inspect.failed(house.runtime, limit=2)
    rest, end = inspect.failed(house.runtime, limit=2, cursor=cursor)
    assert end is None
    ids = [one["id"] for one in rows + rest]
    assert ids == sorted(ids, reverse=True)
    assert {one["key"] for one in rows + rest} == {"c0", "c1", "c2"}
    assert rows[0]["address"] == "c***@example.com"
    assert rows[0]["replayable"] is True
    one = inspect.failed_one(house.runtime, rows[0]["id"])
    assert one is not None
    assert [tried["outcome"] for tried in one["tries"]] == ["accepted"]
    task = UUID(str(one["tries"][0]["task"]))
    assert {each["key"] for each in inspect.by_task(house.runtime, task)} == {"c0", "c1", "c2"}
    assert inspect.failed_one(house.runtime, 0) is None
    assert inspect.by_task(house.runtime, uuid4()) == []


def test_a_summary_counts_what_was_reached(site: Site) -> None:
    seen(site, "991")
    site.post("/v1/intents", intent(key="992"))
    [brand] = site.house.rows("SELECT id FROM brands")
    told = inspect.summary(site.house.runtime, brand.id)
    assert (told["intents"], told["reached"]) == (2, 1)
    assert told["states"] == {"seen": 1, "open": 1}
    assert told["channels"] == [{"channel": "email", "deliveries": 2, "sent": 1, "reached": 1}]
    assert told["time_to_seen_s"]["p50"] > 0
    assert (told["attempts"], told["retries"], told["escalated"]) == ({"accepted": 1}, 0, 0)
    now = site.house.rows("SELECT now()")[0][0]
    assert inspect.summary(site.house.runtime, brand.id, since=now)["intents"] == 0
