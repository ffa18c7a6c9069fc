"""What is broken, when and for how long: drawn from a seed, so that a run can be had again.

Faults overlap: the next one begins while others last. Nothing is broken twice at the same time,
for its second end would come in the middle of the first. Kinds are dealt from a shuffled deck, so
that even a short run has many of them.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

CARDS = {
    "kill": 7,
    "stop": 6,
    "term": 1,
    "redis_cut": 2,
    "redis_restart": 1,
    "redis_killed": 1,
    "redis_flushed": 1,
    "postgres_restart": 2,
    "postgres_cut": 2,
    "disk_full": 2,
    "mail": 4,
    "http": 4,
    "clock": 1,
    "poison": 1,
}
"""The kinds of faults, and how many cards of each the deck has."""

BETWEEN_S = (1.0, 7.0)
WORKERS = (
    "control-1",
    "core-1",
    "email-urgent-1",
    "email-1",
    "email-2",
    "sms-urgent-1",
    "sms-1",
)
PROCESSES = (*WORKERS, "beat", "api")
RELAYS = ("relay-1", "relay-2")
GATEWAYS = ("texts-1", "texts-2")
TABLES = ("intents", "decisions", "deliveries", "attempts", "events", "inbox")
MAIL_FAULTS = (
    "hang",
    "slow",
    "drop_acks",
    "drop_bodies",
    "busy",
    "later",
    "too_fast",
    "closed",
    "half_ack",
    "garbled_ack",
)
HTTP_FAULTS = ("hang", "slow", "drop", "half", "garbage", "500", "502", "503", "429", "401")


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: `how` it is done to `target`, `after_s` seconds after the one before began.

    What does not last (a kill) has `lasts_s` 0.
    """

    number: int
    after_s: float
    kind: str
    target: str
    how: str
    lasts_s: float

    def __str__(self) -> str:
        words = [self.kind, self.target, self.how]
        words += [f"for {self.lasts_s:.1f} s"] if self.lasts_s else []
        return " ".join(word for word in words if word)


def draw(seed: int, *, without: Collection[str] = (), pace: float = 1.0) -> Iterator[Planned]:
    """Draw faults without end; a `pace` of 2 has them twice as often and half as long."""
    chance = Random(seed)
    free_at: dict[str, float] = {}
    at = 0.0
    for number, kind in enumerate(_deal(chance, without), 1):
        after_s = chance.uniform(*BETWEEN_S) / pace
        at += after_s
        targets, hows, lasts = _WAYS[kind]
        free = [target for target in targets if free_at.get(target, 0.0) <= at] or targets
        target = chance.choice(free)
        lasts_s = chance.uniform(*lasts) / pace
        free_at[target] = at + lasts_s
        yield Planned(number, after_s, kind, target, chance.choice(hows), lasts_s)


def _deal(chance: Random, without: Collection[str]) -> Iterator[str]:
    deck = [kind for kind, count in CARDS.items() if kind not in without for _ in range(count)]
    while True:
        chance.shuffle(deck)
        yield from deck


_Way = tuple[Sequence[str], Sequence[str], tuple[float, float]]
_AT_ONCE = (0.0, 0.0)

# Of each kind: what it may be done to, how, and for how many seconds. A lease lasts 6 s here. A
# clock is wrong for so long that what waits for it meanwhile is found overdue.
_WAYS: dict[str, _Way] = {
    "kill": (PROCESSES, ("",), _AT_ONCE),
    "stop": (PROCESSES, ("",), (1.0, 11.0)),
    "term": (PROCESSES, ("",), _AT_ONCE),
    "redis_cut": (("redis",), ("",), _AT_ONCE),
    "redis_restart": (("redis",), ("",), (0.5, 5.0)),
    "redis_killed": (("redis",), ("",), (0.5, 5.0)),
    "redis_flushed": (("redis",), ("",), _AT_ONCE),
    "postgres_restart": (("postgres",), ("fast", "immediate"), (0.5, 5.0)),
    "postgres_cut": (("postgres",), ("",), _AT_ONCE),
    "disk_full": (TABLES, ("",), (1.0, 8.0)),
    "mail": (RELAYS, MAIL_FAULTS, (2.0, 10.0)),
    "http": (GATEWAYS, HTTP_FAULTS, (2.0, 10.0)),
    "clock": ((*WORKERS, "beat"), ("an hour slow", "an hour fast"), (95.0, 120.0)),
    "poison": (("mail", "sms"), ("",), _AT_ONCE),
}
