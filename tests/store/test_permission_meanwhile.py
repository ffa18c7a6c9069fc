"""What customers say while their messages are about to go out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from app.domain.consent import Scope
from app.domain.vocabulary import Channel
from app.usecases import rates, runtime
from app.usecases.delivering.deliver import Hand, deliver
from tests.store.conftest import House, customer, intent
from tests.store.interleaving import COMMIT, side_by_side
from tests.store.test_permission import ada, says, sender

__all__ = ["ada"]

CLAIM = "SET state = 'sending'"


@pytest.fixture
def at_once(ada: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Ada's house with a mail that is about to be claimed.

    Nobody reads copies again under a lock while somebody else must move first.
    """
    monkeypatch.setattr(runtime, "CATALOG_FRESH_S", 3600.0)
    monkeypatch.setattr(rates, "RATES_FRESH_S", 3600.0)
    ada.accept(intent(policy="email-only"))
    ada.tick()
    ada.runtime.catalog()
    ada.runtime.rates()
    return ada


def claim(house: House) -> Callable[[], object]:
    """What a worker does with the one hint that there is."""
    [(_, _, account, ids)] = house.hints.deliveries
    house.hints.deliveries.clear()
    return lambda: deliver(house.runtime, account, ids, Hand(uuid4()))


def no_mail(house: House) -> None:
    says(house, False, Scope(channel=Channel.EMAIL))


def test_a_no_that_comes_while_its_mail_is_claimed_waits_for_the_claim(
    at_once: House, database_url: str
) -> None:
    """Else it would be told as taken, and the mail would leave after it."""
    acts = {"worker": claim(at_once), "no": lambda: no_mail(at_once)}
    with side_by_side(at_once.runtime.engine, database_url, **acts) as both:
        both.go("worker", CLAIM)
        both.go("worker", COMMIT)
        assert not both.go("no"), "it waits"
        both.go("worker")
        assert both.go("no")
    assert len(at_once.sink.messages) == 1


def test_a_claim_that_comes_while_a_no_is_said_finds_nothing(
    at_once: House, database_url: str
) -> None:
    acts = {"worker": claim(at_once), "no": lambda: no_mail(at_once)}
    with side_by_side(at_once.runtime.engine, database_url, **acts) as both:
        both.go("no", "INSERT INTO consents")
        both.go("no", COMMIT)
        assert both.go("worker")
    at_once.run()
    assert at_once.sink.messages == []
    [row] = at_once.rows("SELECT state, reason FROM deliveries ORDER BY id DESC LIMIT 1")
    assert (row.state, row.reason) == ("cancelled", "no_consent")


def test_what_was_queued_when_less_was_allowed_goes_with_the_next_tick(at_once: House) -> None:
    says(at_once, False, Scope(channel=Channel.SMS))
    assert at_once.work() == {"claimed": 0}, "its hint came to nothing"
    assert at_once.run() == {"sent": 1}


def test_what_was_queued_when_more_was_allowed_goes_as_it_is(at_once: House) -> None:
    says(at_once, True, Scope(channel=Channel.EMAIL))
    assert at_once.work() == {"sent": 1}


def test_what_may_go_goes_though_the_withdrawal_beside_it_fails(ada: House) -> None:
    ada.accept(intent(policy="email-only"))
    ada.accept(intent(customer("bob"), policy="email-only", key="bobs"))
    ada.tick()
    says(ada, False, Scope(channel=Channel.EMAIL))

    def away(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "AS r(id, reason)" in statement:
            raise OperationalError(statement, {}, RuntimeError("the ledger is away"))

    event.listen(ada.runtime.engine, "before_cursor_execute", away)
    try:
        ada.run()
    finally:
        event.remove(ada.runtime.engine, "before_cursor_execute", away)
    assert len(ada.sink.messages) == 1
    [row] = ada.rows("SELECT state FROM deliveries WHERE reason = 'no_consent'")
    assert row.state == "planned"


def test_a_mute_that_ends_early_lets_go_what_it_put_off_at_the_claim(ada: House) -> None:
    scope = Scope(sender_id=sender(ada))
    ada.accept(intent(policy="email-only"))
    ada.tick()
    says(ada, False, scope, until=datetime.now(UTC) + timedelta(days=7))
    ada.run()
    [held] = ada.rows("SELECT state, reason FROM deliveries ORDER BY id DESC LIMIT 1")
    assert (held.state, held.reason) == ("planned", "muted_sender")
    assert ada.sink.messages == []
    says(ada, True, scope)
    ada.run()
    assert len(ada.sink.messages) == 1


def test_nobody_is_looked_up_of_whom_nothing_is_known(ada: House) -> None:
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(ada.runtime.engine, "before_cursor_execute", note)
    try:
        ada.accept(intent(policy="email-only", key="one"))
        assert ada.run() == {"sent": 1}
        assert not any("SELECT id, wishes, timezone" in one for one in asked)
        says(ada, False, Scope(channel=Channel.SMS))
        ada.accept(intent(policy="email-only", key="two"))
        assert ada.run() == {"sent": 1}
        assert any("SELECT id, wishes, timezone" in one for one in asked)
    finally:
        event.remove(ada.runtime.engine, "before_cursor_execute", note)
