"""A run: the load goes on, faults begin and end, and after each it is looked whether all holds."""

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.usecases.telling.inspect import show_intent
from converge_producer import Producer
from tests.chaos import faults, invariants
from tests.chaos.faults import End, Missed
from tests.chaos.invariants import Looked, Violation
from tests.chaos.load import BRAND, running_load
from tests.chaos.schedule import Planned, draw
from tests.chaos.world import World, running_world

POLL_S = 0.05
AGAIN_S = 0.5
ENQUEUE_AGAIN_S = 5.0
HISTORY = 25
"""Faults that are told with a violation: what happened long before had been found good."""
STORIES = 3


@dataclass(frozen=True, slots=True)
class Wishes:
    """How long and how hard: see `python -m tests.chaos --help`."""

    seed: int
    faults: int = 200
    pace: float = 1.0
    per_chunk: int = 8
    expires_s: float = 600.0
    without: frozenset[str] = frozenset()


class Broken(Exception):
    """Something happened that must never happen; the text tells all that is known."""


Say = Callable[[str], object]


def run(wishes: Wishes, say: Say) -> None:
    """Do one run, telling as it goes. Raises `Broken`."""
    missing = faults.unavailable()
    for kind, reason in missing.items():
        say(f"left out: {kind}, because {reason}")
    planned = draw(wishes.seed, without=wishes.without | missing.keys(), pace=wishes.pace)
    with running_world(wishes.seed, expires_s=wishes.expires_s) as world:
        faults.prepare(world)
        invariants.prepare(world)
        course = Course(world, say)
        with loaded(world, wishes.per_chunk):
            course.break_things(planned, wishes.faults)
        course.settle(within_s=wishes.expires_s + 120)
        course.tell()


def loaded(world: World, per_chunk: int) -> AbstractContextManager[None]:
    """Services enqueue by both ways while the block runs."""
    broker = Producer(world.settings.broker_url, brand=BRAND)
    api = Producer(world.api_url, world.key)
    return running_load(world.load, broker, api, world.seed, per_chunk)


@dataclass
class Course:
    """One run's way through its faults."""

    world: World
    say: Say
    began: float = field(default_factory=time.monotonic)
    done: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    looked: Looked = field(default_factory=Looked)
    _ends: list[tuple[float, int, Planned, float, End]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def break_things(self, planned: Iterator[Planned], number: int) -> None:
        """Begin faults until so many were done, and end them all."""
        at = time.monotonic()
        while sum(self.counts.values()) < number:
            fault = next(planned)
            at = max(at + fault.after_s, time.monotonic())
            self._pass_until(at)
            while any(fault.target == other.target for _, _, other, _, _ in self._ends):
                self._pass_until(time.monotonic() + POLL_S)
            try:
                end = faults.begin(self.world, fault)
            except Missed:
                self.missed += 1
                continue
            self.counts[fault.kind] += 1
            now = time.monotonic()
            self._push(now + fault.lasts_s, fault, now, end)
        while self._ends:
            self._pass_until(max(self._ends[0][0], time.monotonic()) + POLL_S)

    def settle(self, within_s: float) -> None:
        """Wait until nothing is to be done any more, enqueuing again what was lost on its way."""
        began, asked = time.monotonic(), 0.0
        while left := self._left():
            now = time.monotonic()
            if now - began > within_s:
                late = Violation(f"not all has settled within {within_s:.0f} s")
                self._check(found=[late, *left])
            if now - asked > ENQUEUE_AGAIN_S:
                self._enqueue_again()
                self._check()
                asked = time.monotonic()
            self._pass_until(now + AGAIN_S)
        self.say(f"settled after {time.monotonic() - began:.0f} s")
        self._check(found=invariants.whole(self.world))

    def tell(self) -> None:
        """The closing table."""
        world = self.world
        self.say("")
        for kind, count in sorted(self.counts.items()):
            self.say(f"  {count:5}  {kind}")
        self.say(
            f"  {sum(self.counts.values()):5}  faults ({self.missed} more found nothing there)"
        )
        self.say("")
        for title, query in _TABLE.items():
            told = ", ".join(f"{count} {word}" for word, count in world.rows(query))
            self.say(f"  {title:<12} {told or 'none'}")
        taken = ", ".join(f"{n} {name}" for name, n in sorted(world.arrivals.by_provider.items()))
        self.say(f"  {'taken':<12} {taken}")
        more = sum(count - 1 for count in world.arrivals.counts.values())
        self.say(f"  {'repeats':<12} {more}, each of them recorded")
        self.say(f"  {'receipts':<12} {len(world.outside.receipts)} taken")
        self.say(f"  {'processes':<12} {world.processes.logged('worker_ready')} worker starts")

    def _push(self, at: float, fault: Planned, began: float, end: End) -> None:
        heapq.heappush(self._ends, (at, next(self._order), fault, began, end))

    def _pass_until(self, at: float) -> None:
        """Let time pass, keep the processes running, and end what has lasted long enough."""
        while (now := time.monotonic()) < at:
            self.world.processes.poll()
            if self._ends and self._ends[0][0] <= now:
                _, _, fault, began, end = heapq.heappop(self._ends)
                self._end(fault, began, end)
            else:
                time.sleep(POLL_S)

    def _end(self, fault: Planned, began: float, end: End) -> None:
        try:
            end()
        except DBAPIError:  # the ledger is away
            self._push(time.monotonic() + AGAIN_S, fault, began, end)
            return
        line = f"#{fault.number:<4} at {began - self.began:6.1f} s  {fault}"
        self.done.append(line)
        self.say(f"{line:<62} {self._check()}")

    def _check(self, found: list[Violation] | None = None) -> str:
        """Look; return a word for it. Raises `Broken`."""
        try:
            if found is None:
                found = invariants.quick(self.world, self.looked)
            if not found:
                return f"holds ({self.world.arrivals.total()} taken)"
            raise Broken(self._story(found))
        except DBAPIError:
            return "the ledger is away; looked at with the next one"

    def _left(self) -> list[Violation]:
        """What is still to be done."""
        try:
            unaccepted = [Violation(f"intent {one} is not accepted") for one in self._unaccepted()]
            return [*invariants.unsettled(self.world), *unaccepted]
        except DBAPIError:
            return [Violation("the ledger is away")]

    def _unaccepted(self) -> list[UUID]:
        rows = self.world.rows(
            """
            SELECT e.id FROM unnest(CAST(:ids AS uuid[])) AS e(id)
             WHERE NOT EXISTS (SELECT FROM intents i WHERE i.id = e.id)""",
            ids=list(self.world.load.enqueued),
        )
        return [row.id for row in rows]

    def _enqueue_again(self) -> None:
        load = self.world.load
        try:
            left = {one: load.enqueued[one] for one in self._unaccepted()}
        except DBAPIError:
            left = {}
        if left:
            self.say(f"{len(left)} of {len(load.enqueued)} intents are enqueued again")
            with Producer(self.world.api_url, self.world.key) as producer:
                load.hand_over(producer, left, promises=True)

    def _story(self, found: list[Violation]) -> str:
        world = self.world
        lines = ["", f"VIOLATED with seed {world.seed}:", *(f"  {one}" for one in found[:20])]
        lines += ["", "What was broken before:", *self.done[-HISTORY:]]
        lines += [
            f"(now)  since {began - self.began:6.1f} s  {fault}"
            for _, _, fault, began, _ in sorted(self._ends)
        ]
        intents = dict.fromkeys(UUID(str(one)) for each in found for one in each.intents)
        for intent_id in list(intents)[:STORIES]:
            lines += ["", *_told(world, intent_id)]
        lines += ["", f"The processes said in {world.processes.log}:", world.processes.said(30)]
        return "\n".join(lines)


def _told(world: World, intent_id: UUID) -> Iterator[str]:
    """Everything that is known of an intent."""
    shown: dict[str, Any] | None = show_intent(world.runtime, intent_id)
    yield f"intent {intent_id}:"
    if shown is None:
        yield "  the ledger does not know it"
        return
    for name in ("state", "reason", "policy", "urgency", "accepted_at", "ended_at", "next"):
        yield f"  {name}: {shown.get(name)}"
    for entry in shown["timeline"]:
        yield f"  {entry['at']:%H:%M:%S.%f} {entry['text']}"
    for delivery in shown["deliveries"]:
        taken = world.arrivals.counts[delivery["id"]]
        yield f"  delivery {delivery['id']} was taken {taken} times: {delivery}"
        moves = world.rows(
            "SELECT at, old, new FROM chaos.moves WHERE kind = 'deliveries' AND id = :id "
            "ORDER BY number",
            id=str(delivery["id"]),
        )
        yield from (f"    {at:%H:%M:%S.%f} {old} -> {new}" for at, old, new in moves)


_TABLE = {
    "intents": "SELECT state, count(*) FROM intents GROUP BY 1 ORDER BY 1",
    "deliveries": "SELECT state, count(*) FROM deliveries GROUP BY 1 ORDER BY 1",
    "attempts": "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1",
    "doubts": "SELECT reason, count(*) FROM attempts WHERE outcome = 'ambiguous' "
    "GROUP BY 1 ORDER BY 2 DESC",
    "failed": "SELECT reason, count(*) FROM deliveries WHERE state = 'failed' "
    "GROUP BY 1 ORDER BY 2 DESC",
    "poisoned": """
        SELECT CASE WHEN d.campaign = 'poison' THEN 'poisons' ELSE 'of their batches' END
               || ' ' || d.state, count(*)
          FROM deliveries d WHERE d.campaign = 'poison' OR EXISTS (
               SELECT FROM attempts a
                 JOIN attempts p ON p.claim_token = a.claim_token
                 JOIN deliveries q ON q.id = p.delivery_id AND q.campaign = 'poison'
                WHERE a.delivery_id = d.id)
         GROUP BY 1 ORDER BY 1""",
    "events": "SELECT type, count(*) FROM events GROUP BY 1 ORDER BY 1",
}
