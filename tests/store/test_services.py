"""Accounts of a channel that serve some of its services only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from app.channels.contract import Accepted, Message, Outcome, Traits
from app.channels.registry import Account
from app.domain.vocabulary import Channel
from app.usecases.telling.inspect import show_intents
from tests.store.conftest import House, customer, intent


class Pigeons:
    """A provider of one chat service, which takes everything."""

    traits: ClassVar[Traits] = Traits(frozenset({Channel.CHAT}))
    Settings: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, service: str) -> None:
        self.traits = Traits(frozenset({Channel.CHAT}), services=frozenset({service}))  # type: ignore[misc]
        self.took: list[Message] = []

    def send(self, batch: Sequence[Message], deadline: float) -> list[Outcome]:  # noqa: ARG002  # the contract's form
        self.took += batch
        return [Accepted(str(one.delivery_id)) for one in batch]

    def close(self) -> None:
        """Nothing is open."""


def serving(house: House, *services: str) -> Mapping[str, Pigeons]:
    """Give the house an account for each of these chat services."""
    flocks = {name: Pigeons(name) for name in services}
    accounts = {
        name: Account(name, Channel.CHAT, None, 1, 0, False, flock)
        for name, flock in flocks.items()
    }
    house.runtime = replace(house.runtime, accounts={**house.runtime.accounts, **accounts})
    return flocks


def note(to: Any, **more: Any) -> dict[str, Any]:
    return intent(to, policy="chat-first", **more)


@pytest.fixture
def chatty(house: House) -> House:
    from app.usecases.operating.apply import apply
    from tests.store.conftest import DECLARED, policy

    ladder = policy("chat-first", (["chat"], 1800), (["email"], None))
    apply(house.runtime, replace(DECLARED, policies={**DECLARED.policies, "chat-first": ladder}))
    return house


def test_who_is_at_a_service_that_nobody_serves_is_refused_or_goes_on(chatty: House) -> None:
    serving(chatty, "matrix")
    [refused] = chatty.accept(note({"ref": "ada", "chat": "slack:U123"}))
    assert (refused.status, refused.code) == ("refused", "no_endpoint")
    assert refused.reason is not None
    assert "chat: no account reaches the service of the address" in refused.reason
    chatty.accept(note(customer("bob", chat=["slack:U124", "matrix:@bob:example.com"])))
    chatty.accept(note(customer("cyd", chat="slack:U125"), key="cyds"))
    rows = chatty.rows(
        "SELECT e.address FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id ORDER BY d.id"
    )
    assert [row.address for row in rows] == ["@bob:example.com", "cyd@example.com"]


def test_a_message_finds_the_account_that_serves_it_without_a_try_at_the_others(
    chatty: House,
) -> None:
    flocks = serving(chatty, "matrix", "slack")
    refs = {
        f"c{n}": f"{'slack:U' if n % 2 else 'matrix:@u'}{n}{'' if n % 2 else ':example.com'}"
        for n in range(20)
    }
    chatty.accept(*(note({"ref": ref, "chat": chat}, key=ref) for ref, chat in refs.items()))
    for _ in range(30):
        chatty.execute("UPDATE deliveries SET due_at = now() WHERE state = 'planned'")
        chatty.run()
    assert chatty.states() == {"sent": 20}
    assert all(one.service == name for name, flock in flocks.items() for one in flock.took)
    assert chatty.rows("SELECT FROM attempts WHERE outcome <> 'accepted'") == []
    assert {row.attempts for row in chatty.rows("SELECT attempts FROM deliveries")} == {1}


def test_what_nobody_serves_any_more_goes_by_the_next_step(chatty: House) -> None:
    serving(chatty, "matrix", "slack")
    [verdict] = chatty.accept(note(customer(chat="slack:U123")))
    assert verdict.id is not None
    chatty.execute("UPDATE deliveries SET state = 'queued', account = 'matrix'")
    del chatty.runtime.accounts["slack"]  # type: ignore[attr-defined]
    [row] = chatty.rows("SELECT id FROM deliveries")
    chatty.hints.deliveries = [("chat", "normal", "matrix", [row.id])]
    chatty.work()
    rows = chatty.rows("SELECT channel, state, reason, attempts FROM deliveries ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("chat", "cancelled", "unhealthy", 0),
        ("email", "planned", None, 0),
    ]
    [shown] = show_intents(chatty.runtime, [verdict.id])
    assert any("taken back before it left" in one["text"] for one in shown["timeline"])
