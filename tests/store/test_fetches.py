"""Fetches of one message are judged together: who follows everything at once has read nothing."""

import orjson
import pytest

from app.domain.evidence import Suspicion
from app.domain.vocabulary import EventType
from app.store.inbox import TRACKING, Arrival, keep_arrivals
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.backlog import summary
from tests.store.conftest import House, customer, intent

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
BURST_S = Suspicion().burst_s


@pytest.fixture
def mailed(house: House) -> House:
    """A house that mailed something an hour ago."""
    house.accept(intent(customer()))
    house.run()
    house.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 hour'")
    return house


def fetch(
    house: House, name: str, *, ago: float = 60.0, links: int | None = 5, agent: str = BROWSER
) -> None:
    """A fetch that came in so many seconds ago: `o`, or the number of a link. It is due."""
    [delivery] = house.rows("SELECT id FROM deliveries ORDER BY id LIMIT 1")
    event = EventType.OPENED if name == "o" else EventType.CLICKED
    note = {
        "delivery": delivery.id,
        "event": event.value,
        "index": 0 if name == "o" else int(name),
        "links": None if name == "o" else links,
        "agent": agent,
        "ip": "192.0.2.1",
        "method": "GET",
    }
    unique = f"{name}:{ago}:{agent[:9]}"
    arrival = Arrival(TRACKING, unique, orjson.dumps(note), delivery_id=delivery.id)
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [arrival])
    house.execute(
        "UPDATE inbox SET received_at = now() - make_interval(secs => :ago)"
        " WHERE external_id = :name",
        ago=ago,
        name=unique,
    )


def told(house: House) -> set[tuple[str, str]]:
    return {(row[0], row[1]) for row in house.rows("SELECT type, reason FROM events")}


def state(house: House) -> str:
    return str(house.rows("SELECT state FROM intents")[0][0])


MACHINE = ("opened_by_machine", "burst")


def test_a_person_opens_and_follows_one_link(mailed: House) -> None:
    fetch(mailed, "o", ago=61)
    fetch(mailed, "0", ago=60)
    read_feedback(mailed.runtime)
    assert told(mailed) == {("opened", "person"), ("clicked", "person")}
    assert state(mailed) == "seen"


def test_a_scanner_follows_all_and_neither_its_opens_nor_its_clicks_count(mailed: House) -> None:
    for n, name in enumerate(("o", "0", "1", "2", "3", "4")):
        fetch(mailed, name, ago=60 - n / 10)
    read_feedback(mailed.runtime)
    assert told(mailed) == {MACHINE}
    assert state(mailed) == "open"
    assert mailed.rows("SELECT FROM activity") == [], "no person was there"


def test_links_followed_one_after_the_other_are_a_persons(mailed: House) -> None:
    for n in range(5):
        fetch(mailed, str(n), ago=60 - 2 * n * BURST_S)
    read_feedback(mailed.runtime)
    assert told(mailed) == {("clicked", "person")}


def test_what_is_read_in_different_batches_is_judged_together_all_the_same(mailed: House) -> None:
    """The first is judged while the others wait, the last when the others were read."""
    for n in range(3):
        fetch(mailed, str(n), ago=60 - n / 10)
    mailed.execute("UPDATE inbox SET due_at = now() + interval '1 hour' WHERE external_id !~ '^0'")
    read_feedback(mailed.runtime)
    assert told(mailed) == {MACHINE}
    mailed.execute("UPDATE inbox SET due_at = now() WHERE external_id ~ '^1'")
    read_feedback(mailed.runtime)
    mailed.execute("UPDATE inbox SET due_at = now() WHERE external_id ~ '^2'")
    assert read_feedback(mailed.runtime)["opened_by_machine"] == 1
    assert told(mailed) == {MACHINE}


def test_a_person_who_comes_after_the_scanner_is_heard(mailed: House) -> None:
    for n in range(5):
        fetch(mailed, str(n), ago=600 - n / 10)
    fetch(mailed, "1", ago=60)
    read_feedback(mailed.runtime)
    assert told(mailed) == {MACHINE, ("clicked", "person")}
    assert state(mailed) == "seen"


def test_two_links_are_all_of_two_and_not_of_five(mailed: House) -> None:
    fetch(mailed, "0", ago=60, links=5)
    fetch(mailed, "1", ago=60.5, links=5)
    read_feedback(mailed.runtime)
    assert told(mailed) == {("clicked", "person")}
    other = intent(customer("bob"), key="two")
    mailed.execute("DELETE FROM deliveries")
    mailed.execute("DELETE FROM intents")
    mailed.accept(other)
    mailed.run()
    mailed.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 hour'")
    fetch(mailed, "0", ago=30, links=2)
    fetch(mailed, "1", ago=30.5, links=2)
    read_feedback(mailed.runtime)
    assert told(mailed) == {MACHINE}


def test_what_a_person_does_says_where_they_are(mailed: House) -> None:
    fetch(mailed, "o", ago=90)
    fetch(mailed, "0", ago=60)
    read_feedback(mailed.runtime)
    [row] = mailed.rows("SELECT channel, now() - at AS ago FROM activity")
    assert row.channel == "email"
    assert 55 < row.ago.total_seconds() < 75, "the latest"


def test_reach_counts_people(mailed: House) -> None:
    brand = mailed.runtime.catalog().brands["demo"].id
    mailed.execute(
        "UPDATE intents SET state = 'seen', seen_as = 'delivered', ended_at = now(),"
        " decide_at = NULL, seen_delivery_id = (SELECT id FROM deliveries)"
    )
    found = summary(mailed.runtime, brand)
    assert (found["states"], found["reached"]) == ({"seen": 1}, 0)
    assert found["channels"][0]["reached"] == 0
    mailed.execute("UPDATE intents SET seen_as = 'opened'")
    found = summary(mailed.runtime, brand)
    assert (found["reached"], found["channels"][0]["reached"]) == (1, 1)
