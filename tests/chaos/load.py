"""Services that enqueue all the time, over the broker and over HTTP, and keep what was promised.

Over HTTP an intent that was answered is promised. Over the broker nothing is, until accept has it:
what the broker lost is enqueued again with its key, as the producer's documentation says.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from converge_producer import Intent, NotTaken, Producer, Refusal, Refused, intent_id
from tests.chaos.outside import GONE, POISON_MAIL, POISON_PHONE

BRAND = "demo"
EVERY_S = 0.5
CUSTOMERS = 400
AREAS = (203, 205, 207, 208)
ONE_IN_AGAIN = 20
"""One chunk in so many is enqueued a second time, as by a service that is not sure."""
ONE_IN_GONE = 50
TEXTS = (
    "Your **order** {{ n }} is on its way.",
    "Order {{ n }} waits for you at the counter.",
    "We have your return of order {{ n }}.",
)


class Load:
    """What was enqueued, and which of it was promised. Safe over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.enqueued: dict[UUID, Intent] = {}
        self._promised: list[UUID] = []
        self.refused: list[Refusal] = []
        self.not_taken = 0
        self._specials: deque[Intent] = deque()

    def promised_since(self, place: int) -> tuple[int, list[UUID]]:
        """How many intents are promised, and those of them after `place`."""
        with self._lock:
            return len(self._promised), self._promised[place:]

    def poison(self, number: int, channel: str) -> None:
        """Let a message be enqueued that kills the worker which sends it."""
        to = {"ref": f"poison-{number}"} | (
            {"email": f"{POISON_MAIL}{number}@example.com"}
            if channel == "mail"
            else {"phone": f"{POISON_PHONE}1{number % 100:02}"}
        )
        policy = "email-only" if channel == "mail" else "sms-only"
        poison = _intent(to, number, f"poison-{number}", policy=policy, campaign="poison")
        self._specials.append(poison)

    def next_chunk(self, usual: list[Intent], *, with_special: bool) -> dict[UUID, Intent]:
        """The usual intents, and with them one that was asked for besides; noted as enqueued."""
        if with_special and self._specials:
            usual = [*usual, self._specials.popleft()]
        chunk = {id_of(intent): intent for intent in usual}
        with self._lock:
            self.enqueued |= chunk
        return chunk

    def hand_over(
        self, producer: Producer, chunk: Mapping[UUID, Intent], *, promises: bool
    ) -> dict[UUID, Intent]:
        """Enqueue; return what was not taken."""
        left: list[UUID] = []
        try:
            taken = producer.enqueue_many(chunk.values())
        except NotTaken as error:
            taken, left = error.taken, error.not_taken
            self.refused += error.refusals
            self.not_taken += len(left)
        except Refused as error:
            taken = error.taken
            self.refused += error.refusals
        if promises:
            with self._lock:
                self._promised += taken
        return {one: chunk[one] for one in left}


@contextmanager
def running_load(
    load: Load, broker: Producer, api: Producer, seed: int, per_chunk: int
) -> Iterator[None]:
    """Enqueue by both ways until the block ends."""
    ended = threading.Event()
    threads = [
        threading.Thread(target=_enqueue, args=(load, *way, Random(f"{seed}/{way[0]}"), ended))
        for way in (("broker", broker, per_chunk), ("http", api, max(1, per_chunk // 2)))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(120)


def _enqueue(
    load: Load, way: str, producer: Producer, size: int, chance: Random, ended: threading.Event
) -> None:
    http = way == "http"
    with producer:
        for number in count():
            if ended.wait(EVERY_S):
                break
            usual = [_any_intent(chance, way, number * size + n) for n in range(size)]
            chunk = load.next_chunk(usual, with_special=http)
            left = load.hand_over(producer, chunk, promises=http)
            while left and http and not ended.wait(EVERY_S):
                left = load.hand_over(producer, left, promises=True)
            if not left and chance.randrange(ONE_IN_AGAIN) == 0:
                load.hand_over(producer, chunk, promises=http)


def _any_intent(chance: Random, way: str, number: int) -> Intent:
    if chance.randrange(ONE_IN_GONE) == 0:
        ref, area, line = f"{GONE}{way}-{number}", chance.choice(AREAS), chance.randrange(100)
    else:
        place = chance.randrange(CUSTOMERS)
        ref, area, line = f"c{place}", AREAS[place // 100], place % 100
    return _intent(
        {"ref": ref, "email": f"{ref}@example.com", "phone": f"+1{area}55501{line:02}"},
        number,
        f"{way}-{number}",
        policy=chance.choices(("notify", "email-only", "sms-only"), (6, 2, 2))[0],
        campaign=way,
        urgency=chance.choices(("urgent", "normal", "bulk"), (1, 7, 2))[0],
        text=chance.choice(TEXTS),
        sender=chance.choice(("store", "billing")),
    )


def _intent(
    to: Mapping[str, Any], number: int, key: str, *, text: str = TEXTS[0], **more: Any
) -> Intent:
    return Intent(
        to,
        "orders",
        text,
        subject="Order {{ n }}",
        actions=[{"label": "Track it", "url": "https://shop.example/track"}],
        data={"n": number},
        key=key,
        **more,
    )


def id_of(intent: Intent) -> UUID:
    """The id that an intent has wherever it is enqueued."""
    return intent_id(BRAND, intent.sender, str(intent.key))
