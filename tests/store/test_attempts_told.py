"""What is said of a batch: one line of counts, and one for each of the first tries that failed."""

import logging
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.usecases.deciding.decide import decide_intents
from app.usecases.delivering.attempts import LINES
from app.usecases.observing import IDS_TOLD
from tests.store.conftest import House, customer, intent

FAILING = LINES + 3
PRIVATE = ("@example.com", "991", "Order")


def _told(house: House) -> list[dict[str, Any]]:
    """Send a good message and some that no mail server takes; return what was logged of it."""
    house.accept(intent(customer("ada"), key="good"))
    for n in range(FAILING):
        house.accept(intent(customer(f"c{n}", email=f"full{n}@example.com"), key=f"bad{n}"))
    house.execute("UPDATE endpoints SET address = 'no-address' WHERE address LIKE 'full%'")
    with capture_logs() as lines:
        house.run()
    for line in lines:
        assert not any(word in str(line) for word in PRIVATE), line
    return [dict(line) for line in lines]


def test_one_line_for_a_batch_and_some_for_what_failed(house: House) -> None:
    lines = _told(house)
    failed = [line for line in lines if line["event"] == "attempt_failed"]
    assert len(failed) == LINES
    known = {
        (row.id, str(row.intent_id))
        for row in house.rows("SELECT id, intent_id FROM deliveries WHERE state <> 'sent'")
    }
    assert {(line["delivery_id"], line["intent_id"]) for line in failed} <= known
    assert {line["account"] for line in failed} == {"relay"}
    assert all(line["outcome"] == "rejected" and line["reason"] for line in failed)
    (batch,) = [line for line in lines if line["event"] == "delivered"]
    [good] = house.rows("SELECT id, intent_id FROM deliveries WHERE state = 'sent'")
    assert batch == {
        "event": "delivered", "log_level": "info", "account": "relay",
        "sent": 1, "rejected": FAILING,
        "delivery_ids": [good.id], "intent_ids": [str(good.intent_id)],
    }  # fmt: skip
    assert not [line for line in lines if line["event"] == "attempt"]


def test_what_goes_well_is_named_on_its_whole_way_and_no_more_of_it_than_ten(
    house: House,
) -> None:
    with capture_logs() as lines:
        for n in range(IDS_TOLD + 3):
            house.accept(*[intent(customer(f"c{n}"), key=f"order-{n}")] * (1 if n else 2))
        many = [intent(customer(f"m{n}"), key=f"many-{n}") for n in range(IDS_TOLD + 3)]
        house.accept(*many, intent("nobody"))
        house.run()
        decide_intents(house.runtime, [row.id for row in house.rows("SELECT id FROM intents")])
    known = {str(row.id) for row in house.rows("SELECT id FROM intents")}
    accepted = [line["intent_ids"] for line in lines if line["event"] == "accepted"]
    assert len(accepted[0]) == 1, "the second time it was there"
    assert len(accepted[-1]) == IDS_TOLD
    delivered, decided = ([one for one in lines if one["event"] == event] for event in TOLD)
    for batch in (*accepted, *(line["intent_ids"] for line in (*delivered, *decided))):
        assert set(batch) <= known
        assert 0 < len(batch) <= IDS_TOLD
    assert decided


TOLD = ("delivered", "decided")


def test_at_debug_level_every_try_has_its_line(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "app.usecases.delivering.attempts")
    lines = _told(house)
    assert sum(line["event"] == "attempt_failed" for line in lines) == FAILING
    assert sum(line["event"] == "attempt" for line in lines) == 1
