"""What goes wrong between a claim and the first byte: nothing was tried, and nothing is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from app.content.message import Skeleton
from app.usecases.delivering import settling
from app.usecases.delivering.claiming import ClaimUnanswered
from tests.store.conftest import House
from tests.store.test_permission import MARKETING, ada, declare, offer, says

__all__ = ["ada"]

UNREAD = {"subject": "News", "text": "What no worker has read yet."}


@pytest.fixture
def offers(ada: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Ada agreed to marketing, which is never sent again after a doubt; a cap counts it."""
    monkeypatch.setattr(settling, "AGAIN_S", 0.01)
    daily = {"most": 9, "within": 86_400.0}
    declare(ada, marketing_quiet_hours=None, caps={"daily": daily})
    ada.execute("DELETE FROM cap_counts")
    says(ada, True, MARKETING)
    return ada


@contextmanager
def at_statement(house: House, part: str, act: Callable[[], None]) -> Iterator[None]:
    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if part in statement:
            act()

    event.listen(house.runtime.engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(house.runtime.engine, "before_cursor_execute", before)


def away() -> None:
    raise OperationalError("", {}, RuntimeError("the ledger is away"))


def stands(house: House) -> list[tuple[Any, ...]]:
    rows = house.rows(
        "SELECT d.state, d.attempts, d.losses, d.reason FROM deliveries d"
        " JOIN intents i ON i.id = d.intent_id WHERE i.kind = 'marketing' ORDER BY d.id"
    )
    return [tuple(row) for row in rows]


def counted(house: House) -> int:
    return sum(row.n for row in house.rows("SELECT n FROM cap_counts"))


def test_a_fault_after_the_claim_hands_back_what_was_claimed(offers: House) -> None:
    offers.accept(offer(key="one", content=UNREAD), offer(key="two", content=UNREAD))
    offers.tick()
    with at_statement(offers, "document FROM contents", away), pytest.raises(OperationalError):
        offers.work()
    assert stands(offers) == [("planned", 0, 0, "put_back")] * 2
    assert counted(offers) == 0
    offers.hints.deliveries.clear()
    offers.execute("UPDATE deliveries SET due_at = now() WHERE state = 'planned'")
    assert offers.run() == {"sent": 2}
    assert counted(offers) == 2


def test_a_claim_whose_commit_went_unanswered_is_handed_back(
    offers: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers.accept(offer(key="one", content=UNREAD), offer(key="two", content=UNREAD))
    offers.tick()
    dialect, claims = offers.runtime.engine.dialect, []
    commit = dialect.do_commit

    def unanswered(connection: Any) -> None:
        commit(connection)
        if claims:
            claims.clear()
            raise psycopg.OperationalError("the answer to COMMIT was lost")

    monkeypatch.setattr(dialect, "do_commit", unanswered)
    with (
        at_statement(offers, "INSERT INTO cap_counts", lambda: claims.append(True)),
        pytest.raises(ClaimUnanswered),
    ):
        offers.work()
    assert stands(offers) == [("planned", 0, 0, "put_back")] * 2
    assert counted(offers) == 0
    offers.hints.deliveries.clear()
    offers.execute("UPDATE deliveries SET due_at = now() WHERE state = 'planned'")
    assert offers.run() == {"sent": 2}


def test_a_ledger_that_is_away_hears_later_what_was_handed_back(offers: House) -> None:
    offers.accept(offer(content=UNREAD))
    offers.tick()
    left = iter(range(3))

    def away_for_a_while() -> None:
        if next(left, None) is not None:
            away()

    with (
        at_statement(offers, "document FROM contents", away),
        at_statement(offers, "SET state = 'planned', due_at = r.due_at", away_for_a_while),
        pytest.raises(OperationalError),
    ):
        offers.work()
    assert stands(offers) == [("planned", 0, 0, "put_back")]


def test_a_fault_of_ours_in_one_message_spoils_no_other(
    offers: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers.accept(*(offer(key=f"offer-{number}") for number in range(3)))
    offers.tick()
    [(_, _, _, ids)] = offers.hints.deliveries
    render = Skeleton.render

    def faulty(self: Skeleton[Any], personal: Any) -> Any:
        if personal.delivery_id == min(ids):
            raise TypeError("a fault of ours")
        return render(self, personal)

    monkeypatch.setattr(Skeleton, "render", faulty)
    assert offers.work() == {"sent": 2, "rejected": 1}
    assert sorted(stands(offers)) == [
        ("failed", 1, 0, "render_fault"),
        ("sent", 1, 0, None),
        ("sent", 1, 0, None),
    ]
    assert counted(offers) == 2
