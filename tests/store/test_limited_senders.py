"""Senders with a limit of their own, in one batch with others that have none."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from app.channels.contract import Message
from app.domain.outcome import Accepted, Outcome
from app.limits import Grant, Limit, LimitsUnavailable
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.operating.apply import BrandWish, Declared, apply
from tests.store.conftest import DECLARED, House, customer, intent


def limit(house: House, **per_second: float) -> None:
    """Give senders limits of their own."""
    demo = DECLARED.brands["demo"]
    senders = {
        name: {**settings, "rate_per_s": per_second.get(name)}
        for name, settings in demo.senders.items()
    }
    wish = BrandWish(settings=demo.settings, senders=senders, topics=demo.topics)
    apply(house.runtime, Declared({"demo": wish}, DECLARED.policies))


def limit_account(house: House, rate: float) -> None:
    accounts = house.runtime.accounts
    relay = replace(accounts["relay"], rate=rate)
    house.runtime = replace(house.runtime, accounts={**accounts, "relay": relay})


def send(house: House, **of_each: int) -> dict[str, int]:
    """Send one batch with so many new messages of each sender."""
    for sender, n in of_each.items():
        key = uuid4().hex
        house.accept(*(intent(customer(f"{sender}-{key}-{i}"), sender=sender) for i in range(n)))
    new = house.rows("SELECT id FROM deliveries WHERE state = 'planned' AND reason IS NULL")
    ids = sorted(row.id for row in new)
    house.execute(
        "UPDATE deliveries SET state = 'queued', account = 'relay' WHERE id = ANY(:ids)", ids=ids
    )
    return deliver(house.runtime, "relay", ids, Hand(uuid4()))


def sent(house: House) -> list[str]:
    """The sender of each message that has left, in the order in which they did."""
    return [(one.sender or "").split("@")[0].split("+")[0] for one in house.sink.messages]


class Asked:
    """Passes what is asked of the limits on, and keeps it."""

    def __init__(self, house: House) -> None:
        self._limits = house.runtime.limits
        self.away = False
        self.calls: list[tuple[list[str], int]] = []
        house.runtime = replace(house.runtime, limits=self)  # type: ignore[arg-type]

    def reserve(self, limits: Sequence[Limit], n: int, max_wait_s: float) -> Grant:
        if limits:
            self.calls.append(([one.key.split(":")[0] for one in limits], n))
            if self.away:
                raise LimitsUnavailable("away")
        return self._limits.reserve(limits, n, max_wait_s)


@pytest.mark.parametrize("rate", [None, 1_000.0])
def test_a_limited_sender_throttles_nobody_else(house: House, rate: float | None) -> None:
    limit(house, billing=0.01)
    if rate is not None:
        limit_account(house, rate)
    assert send(house, billing=5, store=50) == {"sent": 51, "held": 4}
    assert send(house, store=5, billing=1) == {"sent": 5, "held": 1}
    [held] = house.rows(
        "SELECT count(*) AS n, min(due_at) > now() AS waits, max(attempts) AS attempts"
        " FROM deliveries WHERE reason = 'rate_limit' AND state = 'planned'"
    )
    assert (held.n, held.waits, held.attempts) == (5, True, 0)
    assert Counter(sent(house)).most_common() == [("store", 55), ("bills", 1)]


def test_what_has_no_limit_takes_no_slot_of_the_limited_sender(house: House) -> None:
    limit(house, billing=0.01)
    assert send(house, store=20) == {"sent": 20}
    assert send(house, store=20, billing=1) == {"sent": 21}


def test_the_account_s_rate_holds_over_all_of_them(house: House) -> None:
    limit(house, billing=20.0)
    limit_account(house, 40.0)
    began = time.monotonic()
    assert send(house, store=20, billing=10) == {"sent": 30}
    assert time.monotonic() - began >= 29 / 40
    assert set(sent(house)[:15]) == {"bills", "store"}, "the gaps of the slow one are filled"


def test_where_no_sender_is_limited_one_question_is_asked(house: House) -> None:
    limit_account(house, 1_000.0)
    asked = Asked(house)
    send(house, store=5, billing=5)
    assert asked.calls == [(["account"], 10)]


def test_each_limited_sender_is_asked_for_alone_and_first(house: House) -> None:
    limit(house, billing=1_000.0)
    limit_account(house, 1_000.0)
    asked = Asked(house)
    send(house, store=5, billing=3)
    assert asked.calls == [(["account", "sender"], 3), (["account"], 5)]


def test_without_redis_it_is_asked_once_and_what_has_no_limit_goes_on(house: House) -> None:
    limit(house, billing=5.0)
    asked = Asked(house)
    asked.away = True
    assert send(house, billing=3, store=4) == {"sent": 4, "held": 3}
    assert set(sent(house)) == {"store"}
    limit_account(house, 1_000.0)
    asked.calls.clear()
    assert send(house, billing=2, store=2) == {"held": 4}
    assert len(asked.calls) == 1


def test_a_sender_s_rate_is_over_all_channels(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(house, store=0.01)
    texts: list[Message] = []

    def take(batch: Sequence[Message], _: float) -> list[Outcome]:
        texts.extend(batch)
        return [Accepted(f"ref-{one.delivery_id}") for one in batch]

    monkeypatch.setattr(house.runtime.accounts["texts"].provider, "send", take)
    house.accept(intent(customer("ada")), intent({"ref": "bob", "phone": "+12025550101"}))
    assert house.run() == {"sent": 1, "held": 1}
    assert len(texts) + len(house.sink.messages) == 1
