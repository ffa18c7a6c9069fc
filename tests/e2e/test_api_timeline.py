"""One customer's timeline over all channels: over HTTP, on the command line, for every key."""

from typing import Any
from uuid import uuid4

from app.domain.consent import Scope
from app.domain.vocabulary import Kind
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.keys import create_key
from tests.e2e.api import Site, intent
from tests.e2e.test_api_reading import seen
from tests.statements import Statement, record

PATH = "/v1/customers/ada/timeline"


def says(site: Site, allow: bool, scope: Scope, source: str = "text", **more: Any) -> None:
    [row] = site.house.rows("SELECT id, brand_id FROM customers WHERE ref = 'ada'")
    record(site.house.runtime, row.brand_id, [Statement(row.id, scope, allow, source, **more)])


def wrote(site: Site, key: str | None = None) -> None:
    """A text of Ada's, in answer to the message of an intent, or to nothing."""
    site.house.execute(
        """
        INSERT INTO inbound_messages (account, external_id, channel, from_address, text, brand_id,
                                      customer_id, delivery_id, at)
        SELECT 'texts', :name, 'sms', '+12025550101', 'Where is it?', brand_id, id,
               (SELECT d.id FROM deliveries d JOIN intents i ON i.id = d.intent_id
                 WHERE i.key = :key), now()
          FROM customers WHERE ref = 'ada'""",
        name=uuid4().hex,
        key=key,
    )


def all_of(site: Site, **query: Any) -> list[dict[str, Any]]:
    """The timeline page by page."""
    key = query.pop("key", None)
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = site.get(PATH, key=key, params={**query, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items


def test_everything_is_there_in_order_however_it_is_paged(site: Site) -> None:
    seen(site, "991")
    wrote(site, "991")
    [sender] = site.house.rows("SELECT id FROM senders WHERE name = 'store'")
    says(site, False, Scope(sender_id=sender.id, kind=Kind.CONVERSATIONAL))
    site.post("/v1/intents", intent(key="992"))
    items = all_of(site)
    assert [one["at"] for one in items] == sorted((one["at"] for one in items), reverse=True)
    assert [(one["what"], one["key"]) for one in items[:5]] == [
        ("decided", "992"),
        ("accepted", "992"),
        ("consent", None),
        ("message", "991"),
        ("ended", "991"),
    ]
    assert {one["what"] for one in items} >= {"accepted", "decided", "attempt", "event", "ended"}
    for limit in (1, 2, 3):
        assert all_of(site, limit=limit) == items
    out = [one for one in items if one["direction"] == "out"]
    assert [(one["channel"], one["address"], one["outcome"]) for one in out] == [
        ("email", "a***@example.com", "accepted")
    ]
    message = items[3]
    assert (message["direction"], message["address"]) == ("in", "+1•••0101")
    assert message["text"] == (
        "The customer wrote by SMS from +1•••0101, in answer to what was sent."
    )
    said = items[2]
    assert said["text"] == (
        "The customer forbade conversational messages from store, in a message to us."
    )
    assert said["statement"]["scope"]["sender"] == "store"
    assert "Where is it?" not in str(items)
    assert "ada@example.com" not in str(items)


def test_what_happened_at_one_time_is_paged_without_gap_or_repeat(site: Site) -> None:
    submission = Submission("demo", uuid4())
    accept(site.house.runtime, submission, [intent(key=f"k{n}") for n in range(4)])
    site.house.execute("UPDATE intents SET accepted_at = '2026-01-01T00:00Z'")
    site.house.execute("UPDATE decisions SET at = '2026-01-01T00:00Z'")
    items = all_of(site)
    assert len(items) == 8
    assert all_of(site, limit=1) == items
    assert [one["what"] for one in items] == ["decided", "accepted"] * 4


def test_a_key_sees_what_is_its_own(site: Site) -> None:
    site.post("/v1/intents", intent(key="991"))
    site.post("/v1/intents", intent(key="bill", sender="billing"))
    site.house.run()
    wrote(site, "991")
    wrote(site)
    ids = {row.name: row.id for row in site.house.rows("SELECT name, id FROM senders")}
    says(site, False, Scope(sender_id=ids["store"]))
    says(site, True, Scope(kind=Kind.MARKETING), "preferences")
    runtime = site.house.runtime
    billing = create_key(runtime, "demo", senders=["billing"])
    mine = all_of(site, key=billing)
    assert {one["key"] for one in mine} == {"bill", None}
    assert [one["what"] for one in mine if one["key"] is None] == ["consent"]
    assert "marketing" in mine[0]["text"]
    test = create_key(runtime, "demo", test=True)
    site.problem(site.get(PATH, key=test), 404, "ref")
    whole = all_of(site)
    assert sum(one["what"] == "message" for one in whole) == 2
    assert sum(one["what"] == "consent" for one in whole) == 2
    site.problem(site.get(PATH, key=site.other_brand()), 404, "ref")


def test_a_cursor_that_is_none_is_refused(site: Site) -> None:
    for cursor in ("x", "MSAyIDMgNA", "MjAyNi0wMS0wMSAgMCA"):
        site.problem(site.get(PATH, params={"cursor": cursor}), 422, "cursor")


def test_nobody_has_no_timeline(site: Site) -> None:
    site.problem(site.get("/v1/customers/eve/timeline"), 404, "ref")
    assert site.get(PATH).json() == {"customer": "ada", "items": [], "next": None}
