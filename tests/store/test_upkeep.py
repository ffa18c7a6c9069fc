"""Upkeep: what has served its time goes, what somebody waits for stays."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from app.domain.caps import LONGEST_S, SLOTS, Cap
from app.store import persons
from app.store.inbox import Arrival, keep_arrivals
from app.store.persons import count
from app.usecases.operating.upkeep import upkeep
from tests.store.conftest import House, customer, intent
from tests.store.test_permission import declare

NOTHING = {
    "bodies": 0,
    "texts": 0,
    "cap_counts": 0,
    "tallies_folded": 0,
    "processes": 0,
    "strangers": 0,
    "suppressions": 0,
}


def test_old_things_go_and_what_is_waited_for_stays(house: House) -> None:
    with house.runtime.engine.begin() as connection:
        for name in ("read", "waits", "new"):
            keep_arrivals(connection, [Arrival("relay", name, b"body")])
    house.execute("UPDATE inbox SET due_at = NULL WHERE external_id <> 'waits'")
    house.execute(
        "UPDATE inbox SET received_at = now() - interval '8 days' WHERE external_id <> 'new'"
    )
    house.accept(intent("nobody"), keep_refusals=True)
    assert upkeep(house.runtime) == {"inbox": 1, "refusal_documents": 0, **NOTHING}
    assert {row[0] for row in house.rows("SELECT external_id FROM inbox")} == {"waits", "new"}
    house.execute("UPDATE refusals SET refused_at = now() - interval '8 days'")
    assert upkeep(house.runtime) == {"inbox": 0, "refusal_documents": 1, **NOTHING}
    assert upkeep(house.runtime) == {"inbox": 0, "refusal_documents": 0, **NOTHING}


def test_counts_stay_as_long_as_the_longest_cap_asks_for_them(house: House) -> None:
    declare(house, caps={"quarter": {"most": 1, "within": LONGEST_S}})
    house.accept(intent(customer()))
    [ada] = house.rows("SELECT id FROM customers")
    now = datetime.now(UTC)
    cap = Cap("quarter", 1, LONGEST_S)
    alive = now - timedelta(seconds=LONGEST_S * (1 + 1 / SLOTS)) + timedelta(minutes=5)
    assert cap.free_at({alive: 1}, now) is not None
    with house.runtime.engine.begin() as connection:
        rows = [
            {"customer_id": ada.id, "cap": "quarter", "slot": slot, "n": 1}
            for slot in (alive, alive - timedelta(minutes=10))
        ]
        count(connection, rows)
    assert upkeep(house.runtime)["cap_counts"] == 1
    [left] = house.rows("SELECT slot FROM cap_counts")
    assert left.slot == alive


def test_a_part_that_fails_is_told_and_keeps_no_other_from_its_work(house: House) -> None:
    house.accept(intent("nobody"), keep_refusals=True)
    house.execute("UPDATE refusals SET refused_at = now() - interval '8 days'")
    house.execute(
        "INSERT INTO workers (id, name, queues, release, state, seen_at) VALUES"
        " (gen_random_uuid(), 'gone', '{}', '1', 'running', now() - interval '2 days')"
    )

    def too_slow(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "DELETE FROM cap_counts" in statement:
            raise OperationalError(statement, {}, RuntimeError("statement timeout"))

    event.listen(house.runtime.engine, "before_cursor_execute", too_slow)
    try:
        with pytest.raises(OperationalError):
            upkeep(house.runtime)
    finally:
        event.remove(house.runtime.engine, "before_cursor_execute", too_slow)
    assert house.rows("SELECT FROM refusals WHERE document IS NOT NULL") == []
    assert house.rows("SELECT FROM workers") == []


def test_a_run_looks_through_a_part_of_many_counts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persons, "PART_PAGES", 1)
    house.accept(intent(customer()))
    house.execute(
        "INSERT INTO cap_counts SELECT id, 'daily', now() - make_interval(days => 3, secs => n), 1"
        " FROM customers, generate_series(1, 500) n"
    )
    pages = house.rows("SELECT count(DISTINCT (ctid::text::point)[0]) AS n FROM cap_counts")[0].n
    assert pages > 2
    for part in range(pages):
        by_part = replace(house.runtime, jitter=lambda part=part: (part + 0.5) / pages)
        assert 0 < upkeep(by_part)["cap_counts"] < 300
    assert house.rows("SELECT FROM cap_counts") == []


def test_only_counts_that_a_cap_asks_for_are_read(house: House) -> None:
    house.accept(intent(customer()))
    [ada] = house.rows("SELECT id FROM customers")
    now = datetime.now(UTC)
    slots = [now - timedelta(hours=hours) for hours in (1, 24, 26)]
    with house.runtime.engine.begin() as connection:
        count(
            connection,
            [{"customer_id": ada.id, "cap": "daily", "slot": slot, "n": 1} for slot in slots],
        )
        found = persons.cap_counts(connection, [ada.id], 25 * 3600)
    assert found == {ada.id: {"daily": dict.fromkeys(slots[:2], 1)}}
