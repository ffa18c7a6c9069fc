"""Metrics: the ledger's state and the sums of all tallies, the same from any process."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.domain.vocabulary import Channel, Urgency
from app.store.gauges import Leftovers, leftovers
from app.store.intents import ledger_now
from app.store.tallies import totals
from app.usecases.operating.backlog import COUNT_BOUND, queue_state
from app.usecases.runtime import Runtime
from converge_producer.queues import QUEUES

Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Gauges by name and labels' values; `totals` of tallies, None when the ledger is away."""

    gauges: Mapping[str, Values]
    totals: Mapping[tuple[str, str], float] | None


def measure(runtime: Runtime) -> Measured:
    """Measure everything once; its cost does not grow with what waits. Raises nothing of a server
    that is away: `converge_ledger_up` says so."""
    up: dict[str, Values] = {
        "converge_ledger_up": {(): 1.0},
        "converge_redis_up": {(): float(runtime.health.reachable())},
    }
    try:
        state = queue_state(runtime)
        with runtime.engine.begin() as connection:
            now = ledger_now(connection)
            left = leftovers(connection, COUNT_BOUND)
            counts = totals(connection)
    except SQLAlchemyError:
        return Measured({**up, "converge_ledger_up": {(): 0.0}}, None)
    gauges = {**up, **_lanes(state["lanes"]), **_elsewhere(state, left), **_accounts(runtime, now)}
    return Measured(gauges, counts)


def _accounts(runtime: Runtime, now: datetime) -> dict[str, Values]:
    """The accounts that take live work; those of the sandbox stand for nothing beside them."""
    serving = {
        (account.name, channel.value): account.name
        for channel in Channel
        for account in runtime.accounts_for(channel, test=False)
    }
    health = runtime.health.health(serving.values(), now)
    rates = {labels: runtime.rate_of(name) for labels, name in serving.items()}
    return {
        "converge_account_breaker_open": {
            labels: float(health[name].open_until is not None) for labels, name in serving.items()
        },
        "converge_account_error_ratio": {
            labels: health[name].errors for labels, name in serving.items()
        },
        "converge_account_limit_per_second": {
            labels: rate for labels, rate in rates.items() if rate is not None
        },
    }


def _lanes(lanes: list[dict[str, Any]]) -> dict[str, Values]:
    """Every lane, also those with nothing in them: a missing series tells nothing."""
    by_lane = {(row["channel"], row["lane"]): row for row in lanes}
    every = [(channel.value, lane.value) for channel in Channel for lane in Urgency]
    told = {
        "converge_deliveries_due": "due",
        "converge_deliveries_held": "held",
        "converge_deliveries_hinted": "hinted",
        "converge_deliveries_sending": "sending",
        "converge_deliveries_oldest_due_seconds": "oldest_due_s",
    }
    return {
        name: {lane: float(by_lane.get(lane, {}).get(field) or 0) for lane in every}
        for name, field in told.items()
    }


def _elsewhere(state: dict[str, Any], left: Leftovers) -> dict[str, Values]:
    return {
        "converge_deliveries_failed": {(): left.failed},
        "converge_intents_due": {(): state["intents_due"]},
        "converge_inbox_waiting": {(): state["inbox_waiting"]},
        "converge_inbox_oldest_seconds": {(): left.inbox_oldest_s},
        "converge_inbox_unreadable": {(): left.unreadable},
        "converge_queue_messages": {
            (queue,): float(count) for queue, count in (state["broker"] or {}).items()
        },
        "converge_consumers": {(queue,): state["consumers"].get(queue, 0) for queue in QUEUES},
        "converge_pauses": {(): len(state["pauses"])},
    }
