"""Measures under pressure: urgent intents, a rate limit over processes, memory over time."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psycopg

from benchmarks import mail
from benchmarks.converge import send, take_in
from benchmarks.place import CUSTOMERS, UNLIMITED, Place
from converge_producer import Producer

URGENT_PER_S = 20
SLOW_S = 0.5
SETTLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Urgent:
    """Seconds that 95 % of the urgent intents took, from enqueue and from accept to hand-over."""

    from_enqueue: float
    from_accept: float
    bulk_left: int


def urgent(place: Place, port: int, backlog: int, seconds: float) -> Urgent:
    """Enqueue urgent intents for a while, over a backlog, with one of two accounts slow."""
    place.empty()
    with place.sink("--ack-latency", str(SLOW_S)) as slow_port:
        place.accounts(relay=(port, UNLIMITED), slow=(slow_port, None))
        with place.fleet("all", "beat") as fleet:
            fleet.suspend_beat()
            take_in(place, backlog)
            fleet.resume_beat()
            enqueued = _enqueue_steadily(place, seconds)
            times = _hand_over_times(place, list(enqueued))
            left = place.one("SELECT count(*) FROM deliveries WHERE state IN ('planned', 'queued')")
    place.accounts(relay=(port, UNLIMITED))
    place.empty()
    return Urgent(
        percentile([handed - enqueued[key] for key, (_, handed) in times.items()], 0.95),
        percentile([handed - accepted for accepted, handed in times.values()], 0.95),
        left,
    )


def _enqueue_steadily(place: Place, seconds: float) -> dict[UUID, float]:
    """One intent at a time; returns when each was enqueued, in Unix seconds, by id."""
    count = int(URGENT_PER_S * seconds)
    documents = mail.intents(count, CUSTOMERS, f"urgent-{uuid4().hex}", "urgent")
    producer = Producer(place.settings.broker_url)
    begun = time.monotonic()
    enqueued: dict[UUID, float] = {}
    for number, document in enumerate(documents):
        time.sleep(max(0.0, begun + number / URGENT_PER_S - time.monotonic()))
        now = time.time()
        enqueued[producer.enqueue(document)] = now
    producer.close()
    return enqueued


def _hand_over_times(place: Place, ids: Sequence[UUID]) -> dict[UUID, tuple[float, float]]:
    """Unix seconds of accept and hand-over by intent; what never came counts as endless."""
    query = """
        SELECT i.id, extract(epoch FROM i.accepted_at)::float8,
               extract(epoch FROM d.handed_over_at)::float8
          FROM intents i JOIN deliveries d ON d.intent_id = i.id
         WHERE i.id = ANY(%s) AND d.handed_over_at IS NOT NULL"""
    deadline = time.monotonic() + SETTLED_S
    while True:
        with psycopg.connect(place.settings.database_url, autocommit=True) as connection:
            rows = connection.execute(query, (ids,)).fetchall()
        if len(rows) == len(ids) or time.monotonic() > deadline:
            found = {row[0]: (row[1], row[2]) for row in rows}
            return {key: found.get(key, (0.0, math.inf)) for key in ids}
        time.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Limited:
    """Shares of the limit: the fullest second, and the average from the first to the last mail."""

    peak: float
    used: float


def limited(place: Place, rate: int, processes: int, seconds: float) -> Limited:
    """Send through one account with a limit from several processes; timed by the receiver."""
    place.empty()
    record = place.folder / "limited.jsonl"
    with place.sink("--record", str(record)) as port:
        place.accounts(relay=(port, rate))
        with (
            place.fleet("email", CONVERGE_WORKER_PROCESSES=str(processes)),
            place.fleet("core", "beat"),
        ):
            send(place, int(rate * seconds), "limited")
    place.empty()
    return limit_shares(arrivals(record), rate)


def arrivals(record: Path) -> list[float]:
    """When mails arrived at a sink, in Unix seconds, in order."""
    with record.open() as lines:
        return sorted(json.loads(line)["at"] for line in lines)


def limit_shares(times: Sequence[float], rate: float) -> Limited:
    """How much of a limit was used at most in any second, and on average."""
    fullest = first = 0
    for place, moment in enumerate(times):
        while times[first] <= moment - 1:
            first += 1
        fullest = max(fullest, place - first + 1)
    return Limited(fullest / rate, (len(times) - 1) / (times[-1] - times[0]) / rate)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes resident of a worker, before and after."""

    before: int
    after: int


def memory_growth(place: Place, port: int, warm_up: int, count: int) -> Memory:
    """Bytes resident of the bulk mail worker after its warm-up and after `count` messages more."""
    place.empty()
    place.accounts(relay=(port, UNLIMITED))
    with place.fleet("all", "beat") as fleet:
        send(place, warm_up, "memory-warm-up")
        before = fleet.resident("email-1")
        place.empty()
        send(place, count, "memory")
        after = fleet.resident("email-1")
    place.empty()
    return Memory(before, after)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
