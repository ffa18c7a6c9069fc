"""Feedback: what comes in is read once, and what cannot be read holds up nothing else."""

from typing import Any

import orjson
import pytest

from app.channels.contract import Accepted
from app.store.inbox import put_inbox
from app.usecases.feedback import read_feedback
from tests.store.conftest import House, customer, intent


def receive(house: House, account: str, ref: str) -> None:
    receipt = {"id": f"fact-{ref}", "ref": ref, "event": "delivered", "at": "2026-01-01T00:00:00Z"}
    with house.runtime.engine.begin() as connection:
        put_inbox(connection, account, f"fact-{ref}", orjson.dumps(receipt), {})


@pytest.fixture
def texted(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house that has sent one text, of which a receipt will come."""
    texts = house.runtime.accounts["texts"].provider
    monkeypatch.setattr(texts, "send", lambda _batch, _deadline: [Accepted("ref-1")])
    house.accept(intent(customer(email=None, phone="+12025550101")))
    house.run()
    return house


def test_a_body_that_breaks_its_reader_holds_up_no_other(
    texted: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texted.runtime.accounts["texts"].provider
    read = texts.read  # type: ignore[attr-defined]

    def broken(request: Any) -> Any:
        if b"ref-0" in request.body:
            raise KeyError("+12025550101")
        return read(request)

    monkeypatch.setattr(texts, "read", broken)
    receive(texted, "texts", "ref-0")
    receive(texted, "texts", "ref-1")
    assert read_feedback(texted.runtime) == {"delivered": 1, "unread": 1}
    [kept] = texted.rows("SELECT due_at, problem FROM inbox WHERE problem IS NOT NULL")
    assert tuple(kept) == (None, "reading it failed")


def test_a_receipt_of_an_account_unknown_here_waits_for_who_knows_it(texted: House) -> None:
    receive(texted, "elsewhere", "ref-9")
    assert read_feedback(texted.runtime) == {"unread": 1}
    [kept] = texted.rows("SELECT due_at > now() AS waits FROM inbox")
    assert kept.waits
