"""Measures of Converge itself, (d): the whole way, its delivery phase, and intake by broker."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks import mail
from benchmarks.costs import per_message, spent
from benchmarks.place import CUSTOMERS, Fleet, Place, Stuck
from converge_producer import Producer

WARM_UP = 2_000
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Took:
    """Messages a second: over the whole way, in intake alone, in the delivery phase alone; and the
    processor microseconds that a message costs in each, by process."""

    whole_way: float
    intake: float
    delivery_phase: float
    costs_us: dict[str, dict[str, float]]


def converge(place: Place, count: int) -> Took:
    """(d) Send `count` messages twice through workers as `converge up` starts them."""
    place.empty()
    with place.fleet("all", "beat") as fleet:
        send(place, WARM_UP, "warm-up")
        place.empty()
        looks = [spent(place, fleet)]
        whole_way = send(place, count, "whole")
        looks.append(spent(place, fleet))
        place.empty()
        fleet.suspend_beat()
        looks.append(spent(place, fleet))
        intake = take_in(place, count)
        looks.append(spent(place, fleet))
        place.execute("CHECKPOINT")
        delivery = _from_next_tick(place, fleet, count)
        looks.append(spent(place, fleet))
    place.empty()
    costs = {
        "(d) whole way": per_message(looks[0], looks[1], count),
        "(d) intake": per_message(looks[2], looks[3], count),
        "(d) delivery phase": per_message(looks[3], looks[4], count),
    }
    return Took(count / whole_way, count / intake, count / delivery, costs)


def _from_next_tick(place: Place, fleet: Fleet, count: int) -> float:
    """Seconds from the next tick of a suspended beat to the last attempt."""
    started = time.monotonic()
    fleet.resume_beat()
    wait_for_rows(place, "attempts", count)
    return time.monotonic() - started


def send(place: Place, count: int, label: str, **more: Any) -> float:
    """Enqueue intents and return the seconds until the last attempt is recorded."""
    documents = prepared(count, label, **more)
    producer = Producer(place.settings.broker_url)
    started = time.monotonic()
    producer.enqueue_many(documents)
    wait_for_rows(place, "attempts", count)
    took = time.monotonic() - started
    producer.close()
    return took


def prepared(count: int, label: str, **more: Any) -> list[dict[str, Any]]:
    """Documents that no garbage collection of ours looks at: a service has not so many at once."""
    documents = mail.intents(count, CUSTOMERS, f"{label}-{uuid4().hex}", **more)
    gc.collect()
    gc.freeze()
    return documents


def take_in(place: Place, count: int) -> float:
    """Enqueue intents and return the seconds until all of them are in the ledger."""
    documents = prepared(count, "intake")
    before = place.one("SELECT count(*) FROM intents")
    producer = Producer(place.settings.broker_url)
    started = time.monotonic()
    producer.enqueue_many(documents)
    wait_for_rows(place, "intents", before + count)
    took = time.monotonic() - started
    producer.close()
    return took


def wait_for_rows(
    place: Place, table: str, count: int, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait until a table has so many rows, looking seldom as long as most are missing."""
    deadline = time.monotonic() + _PATIENCE_S
    with psycopg.connect(place.settings.database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            missing = count - (row[0] if row else 0)
            if missing <= 0:
                return
            if time.monotonic() > deadline:
                raise Stuck(f"{missing} of {count} rows are missing in {table}")
            meanwhile()
            time.sleep(min(1.0, max(0.05, missing / 20_000)))
