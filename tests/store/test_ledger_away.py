"""A ledger that takes no writes, as after a failover: whoever asked comes again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import InternalError

from app.usecases.delivering import settling
from tests.store.conftest import House, customer, intent


@contextmanager
def takes_no_writes(house: House, part: str, times: int) -> Iterator[None]:
    """The ledger is read-only for the first so many statements with `part` in them."""
    left = iter(range(times))

    def before(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if part in statement and next(left, None) is not None:
            cursor.execute("SET TRANSACTION READ ONLY")

    event.listen(house.runtime.engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(house.runtime.engine, "before_cursor_execute", before)


def test_a_chunk_comes_again_instead_of_being_refused(house: House) -> None:
    house.accept(intent(customer()))
    chunk = [intent("ada", key=f"order-{number}") for number in range(4)]
    with takes_no_writes(house, "INSERT INTO intents", 1), pytest.raises(InternalError):
        house.accept(*chunk)
    assert {one.status for one in house.accept(*chunk)} == {"accepted"}


def test_what_left_is_settled_once_writes_are_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "AGAIN_S", 0.01)
    house.accept(intent(customer()))
    house.tick()
    with takes_no_writes(house, "INSERT INTO attempts", 3):
        assert house.work() == {"sent": 1}
    assert house.states() == {"sent": 1}


def test_proof_is_kept_for_longer_than_a_lease(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger is away nobody else can claim what this worker holds."""
    monkeypatch.setattr(settling, "AGAIN_S", 0.01)
    timing = replace(house.runtime.timing, lease=0.05, send=40.0)
    house.runtime = replace(house.runtime, timing=timing)
    house.accept(intent(customer()))
    house.tick()
    with takes_no_writes(house, "INSERT INTO attempts", 20):
        assert house.work() == {"sent": 1}
    assert house.states() == {"sent": 1}
