"""A provider with a fault of its own code: what it said before is believed, the rest is a doubt."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
from pydantic import BaseModel

from app.channels.contract import Accepted, Message, Outcome, Traits
from app.domain.vocabulary import Channel
from tests.store.conftest import House, customer, intent

Says = Callable[[], list[Outcome]]


class Stumbling:
    """Takes the first message that it is given, and stumbles over the next."""

    traits: ClassVar[Traits] = Traits(frozenset({Channel.EMAIL}), max_batch=1)
    Settings: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, stumbles: Says) -> None:
        self._stumbles = stumbles
        self._took = 0

    def send(self, batch: Sequence[Message], deadline: float) -> list[Outcome]:  # noqa: ARG002  # the contract's form
        self._took += 1
        return (
            self._stumbles()
            if self._took == 2
            else [Accepted(str(one.delivery_id)) for one in batch]
        )

    def close(self) -> None:
        """Nothing is open."""


def _raises() -> list[Outcome]:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("stumbles", [_raises, list], ids=["raises", "says nothing"])
def test_a_fault_of_a_provider_costs_no_proof_of_what_left_before(
    house: House, stumbles: Says
) -> None:
    relay = replace(house.runtime.accounts["relay"], provider=Stumbling(stumbles))
    house.runtime = replace(house.runtime, accounts={"relay": relay})
    house.accept(*(intent(customer(), policy="email-only", key=f"k{n}") for n in range(3)))
    assert house.run() == {"sent": 2, "unknown": 1}
    rows = house.rows("SELECT state, reason FROM deliveries ORDER BY state, id")
    assert [tuple(row) for row in rows] == [
        ("sent", None),
        ("sent", None),
        ("unknown", "provider_fault"),
    ]
