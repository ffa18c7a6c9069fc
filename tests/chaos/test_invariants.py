"""Each invariant is able to fail; and a seed is a schedule."""

from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from converge_producer import Refusal
from tests.chaos import invariants
from tests.chaos.invariants import Looked
from tests.chaos.load import Load
from tests.chaos.outside import Arrivals
from tests.chaos.schedule import CARDS, draw
from tests.chaos.world import World
from tests.store.conftest import House, customer, house, intent, sink

__all__ = ["house", "sink"]  # fixtures


@pytest.fixture
def world(house: House) -> World:
    """The ledger of `house` with one delivery that was sent, which nothing has broken yet."""
    house.execute("CREATE SCHEMA chaos")
    world = World(
        seed=0,
        servers=cast("Any", None),
        settings=cast("Any", None),
        runtime=house.runtime,
        processes=cast("Any", None),
        relays={},
        gateways={},
        outside=cast("Any", SimpleNamespace(receipts={})),
        arrivals=Arrivals(),
        key="",
        load=Load(),
    )
    # Here moves that are not allowed are to be kept, not refused.
    for table in ("deliveries", "intents"):
        house.execute(f"DROP TRIGGER moved ON {table}")
    invariants.prepare(world)
    house.accept(intent(customer(), policy="email-only"))
    assert house.run() == {"sent": 1}
    world.arrivals.note(_delivery(world), "relay")
    assert invariants.quick(world, Looked()) == []
    assert invariants.whole(world) == []
    assert invariants.unsettled(world) == []
    return world


def _delivery(world: World) -> int:
    return int(world.rows("SELECT id FROM deliveries")[0][0])


def test_a_try_by_another_account_after_a_doubt_is_found(world: World) -> None:
    again = (
        "INSERT INTO attempts (delivery_id, claim_token, number, account, outcome, started_at,"
        " finished_at) SELECT delivery_id, gen_random_uuid(), 2, :account, 'accepted',"
        " now() + interval '1 s', now() + interval '1 s' FROM attempts WHERE number = 1"
    )
    world.execute("UPDATE attempts SET outcome = 'ambiguous'")
    world.execute(again, account="relay")
    assert invariants._tried_elsewhere(world) == []
    world.execute(again, account="relay-2")
    (violation,) = invariants._tried_elsewhere(world)
    assert "was tried by relay-2 though relay may have taken it" in str(violation)


def _taken_again(world: World) -> None:
    world.arrivals.note(_delivery(world), "relay")


def _taken_unasked(world: World) -> None:
    world.arrivals.note(_delivery(world) + 1, "relay")


def _promised_in_vain(world: World) -> None:
    world.load._promised.append(uuid4())


def _gone_back(world: World) -> None:
    world.execute("UPDATE deliveries SET state = 'planned', due_at = now()")


def _forgotten(world: World) -> None:
    world.execute("DELETE FROM attempts")
    world.arrivals = Arrivals()


def _told_otherwise(world: World) -> None:
    world.execute("UPDATE attempts SET outcome = 'retryable'")
    world.arrivals = Arrivals()


def _held(world: World) -> None:
    world.execute("UPDATE deliveries SET due_at = now() - interval '2 minutes'")


def _undecided(world: World) -> None:
    world.execute("UPDATE intents SET decide_at = now() - interval '2 minutes'")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (_taken_again, "was taken 2 times, of which 1 are recorded"),
        (_taken_unasked, "was taken and is not known"),
        (_promised_in_vain, "was accepted and is lost"),
        (_gone_back, "went from sent to planned"),
        (_forgotten, "DELETE of attempts"),
        (_told_otherwise, "UPDATE of attempts"),
        (_held, "is sent, 120 s after its time"),
        (_undecided, "is open, 120 s after its time"),
    ],
)
def test_what_does_not_hold_is_found(
    world: World, break_it: Callable[[World], None], told: str
) -> None:
    break_it(world)
    (violation,) = invariants.quick(world, Looked())
    assert told in str(violation)


def _refused_over_the_broker(world: World, house: House) -> None:
    house.accept(intent("nobody", key="k"), keep_refusals=True)


def _refused_over_http(world: World, house: House) -> None:
    world.load.refused.append(Refusal(0, uuid4(), "to", "who?"))


@pytest.mark.parametrize("break_it", [_refused_over_the_broker, _refused_over_http])
def test_what_is_refused_is_found(
    world: World, house: House, break_it: Callable[[World, House], None]
) -> None:
    break_it(world, house)
    (violation,) = invariants.quick(world, Looked())
    assert "was refused" in str(violation)


def _another(world: World, house: House, **more: Any) -> int:
    """One more delivery that was sent, of a batch with what waits."""
    [verdict] = house.accept(intent(customer("bob"), key="another", policy="email-only", **more))
    house.run()
    for row in world.rows("SELECT id FROM deliveries WHERE state = 'sent'"):
        if not world.arrivals.counts[row.id]:
            world.arrivals.note(row.id, "relay")
    [row] = world.rows("SELECT id FROM deliveries WHERE intent_id = :id", id=verdict.id)
    return int(row.id)


def _without_an_end(world: World, house: House) -> None:
    house.accept(intent(customer(), policy="email-only"))


def _without_a_reason(world: World, house: House) -> None:
    world.execute("UPDATE deliveries SET state = 'failed', reason = ''")


def _expired_untried(world: World, house: House) -> None:
    house.accept(intent(customer(), policy="email-only"))
    world.execute("UPDATE deliveries SET state = 'expired', due_at = NULL WHERE state <> 'sent'")


def _never_taken(world: World, house: House) -> None:
    world.arrivals = Arrivals()


def _without_a_next_step(world: World, house: House) -> None:
    world.execute("UPDATE deliveries SET state = 'failed', reason = 'mailbox_full'")


def _with_steps_left(world: World, house: House) -> None:
    world.execute(
        "UPDATE intents SET policy_id = (SELECT id FROM policies"
        " WHERE jsonb_array_length(document -> 'steps') = 3 LIMIT 1)"
    )


def _begun_after_its_end(world: World, house: House) -> None:
    world.execute(
        "UPDATE intents SET state = 'cancelled', ended_at = now() - interval '1 minute',"
        " decide_at = NULL"
    )


def _poison_that_was_sent(world: World, house: House) -> None:
    _another(world, house, campaign="poison")


def _poison_that_cost_too_many(world: World, house: House) -> None:
    poison = _another(world, house, campaign="poison")
    _given_up(world, poison, losses=4)


def _given_up_with_a_poison(world: World, house: House) -> None:
    house.accept(intent(customer(), key="beside", policy="email-only"))
    poison = _another(world, house, campaign="poison")  # in one batch with the other
    [beside] = world.rows("SELECT max(id) AS id FROM deliveries WHERE id <> :id", id=poison)
    _given_up(world, poison)
    _given_up(world, beside.id)
    # Not because of the time: that is the next one.
    world.execute(
        "UPDATE attempts SET finished_at = finished_at - interval '1 hour' WHERE delivery_id = :id",
        id=beside.id,
    )


def _given_up_at_the_time_of_a_poison(world: World, house: House) -> None:
    poison = _another(world, house, campaign="poison")
    _given_up(world, poison)
    _given_up(world, _delivery(world))
    world.execute(
        "UPDATE attempts SET finished_at = (SELECT max(finished_at) FROM attempts)"
        " WHERE delivery_id = :id",
        id=_delivery(world),
    )


def _given_up(world: World, delivery: int, losses: int = 3) -> None:
    world.execute(
        "UPDATE deliveries SET state = 'failed', reason = 'killed_its_worker', losses = :losses"
        " WHERE id = :id",
        id=delivery,
        losses=losses,
    )
    world.execute(
        "UPDATE attempts SET outcome = 'ambiguous', reason = 'lease_ended' WHERE delivery_id = :id",
        id=delivery,
    )


def _a_receipt(world: World) -> dict[str, str]:
    [row] = world.rows("SELECT account, provider_ref FROM deliveries")
    receipt = {"name": "n", "account": row.account, "id": "e1", "ref": row.provider_ref}
    world.outside.receipts["n"] = receipt
    return receipt


def _a_receipt_that_is_gone(world: World, house: House) -> None:
    _a_receipt(world)


def _a_receipt_that_was_not_read(world: World, house: House) -> None:
    world.execute("UPDATE deliveries SET provider_ref = 'r1'")
    receipt = _a_receipt(world)
    world.execute(
        "INSERT INTO inbox (source, external_id, body, due_at) VALUES (:account, 'n', '', NULL)",
        account=receipt["account"],
    )


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (_without_an_end, "planned, which is no end"),
        (_without_a_reason, "failed without a reason"),
        (_expired_untried, "has expired without ever being tried"),
        (_never_taken, "sent, and no provider ever took it"),
        (_without_a_next_step, "is open, and nothing waits for its next step"),
        (_with_steps_left, "is open, and nothing waits for its next step"),
        (_begun_after_its_end, "was begun after its intent had been cancelled"),
        (_poison_that_was_sent, "is poison, and sent for nothing after 0 workers"),
        (_poison_that_cost_too_many, "killed_its_worker after 4 workers"),
        (_given_up_with_a_poison, "was given up for a poison"),
        (_given_up_at_the_time_of_a_poison, "was given up for a poison"),
        (_a_receipt_that_is_gone, "was taken and is lost"),
        (_a_receipt_that_was_not_read, "not read, though its delivery is known"),
    ],
)
def test_what_does_not_hold_at_the_end_is_found(
    world: World, house: House, break_it: Callable[[World, House], None], told: str
) -> None:
    break_it(world, house)
    found = [str(one) for one in invariants.whole(world)]
    assert [one for one in found if told in one], found


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        ("UPDATE deliveries SET due_at = now() + interval '1 hour'", "is sent, and to be looked"),
        ("UPDATE intents SET decide_at = now()", "is to be decided since"),
        ("INSERT INTO inbox (source, external_id, body) VALUES ('a', 'b', '')", "waits in the"),
    ],
)
def test_what_is_still_to_be_done_is_found(world: World, break_it: str, told: str) -> None:
    world.execute(break_it)
    (violation,) = invariants.unsettled(world)
    assert told in str(violation)


def test_a_seed_draws_the_same_faults_again() -> None:
    first, again, other = (list(islice(draw(seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.kind for fault in first[: sum(CARDS.values())]} == set(CARDS)
    assert "clock" not in {fault.kind for fault in islice(draw(1, without={"clock"}), 200)}
