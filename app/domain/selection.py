"""Which provider account takes a message: by weight, cost and health, by degrees, and why.

An account's share of a channel is in proportion to its weight, to how cheap it is and to how well
it does. Errors and slowness take traffic away by degrees; a trickle stays, so that an account that
has recovered is noticed and gets its share back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

ERROR_EXPONENT = 4
"""A tenth of errors costs a third of the share, a half costs nearly all of it."""
SLOWER_THAN_BEST = 3.0
SLOW_FROM_S = 0.25
"""Only what takes this many seconds, and several times as long as the fastest account, is slow."""
TRICKLE = 0.02
"""What a failing account keeps of its share; the breaker alone takes all."""
TURNS = 100
"""Turns over which shares are dealt out exactly."""


class Left(StrEnum):
    """Why an account was left out altogether."""

    UNHEALTHY = "unhealthy"
    PAUSED = "paused"
    FAILED = "failed_just_now"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account that serves a channel, and how it does.

    `cost_micros` is per message, 0 where it was not declared. `errors` is the share of failed
    messages lately, 0 to 1; `latency_s` the seconds that a small batch takes, None if unknown.
    """

    name: str
    weight: int = 1
    cost_micros: int = 0
    errors: float = 0.0
    latency_s: float | None = None
    left: Left | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate with its share of the channel's traffic, 0 to 1, and its fitness, 0 to 1."""

    candidate: Candidate
    share: float
    fitness: float


def weigh(candidates: Sequence[Candidate]) -> list[Weighed]:
    """Give each candidate its share; those left out get none."""
    able = [one for one in candidates if one.left is None]
    fastest = min((one.latency_s for one in able if one.latency_s is not None), default=0.0)
    cheapest = min((one.cost_micros for one in able if one.cost_micros > 0), default=0)
    fitness = {one.name: _fitness(one, fastest) for one in able}
    scores = {one.name: one.weight * fitness[one.name] * _cheapness(one, cheapest) for one in able}
    total = sum(scores.values())
    return [
        Weighed(
            one,
            scores[one.name] / total if one.name in scores else 0.0,
            fitness.get(one.name, 0.0),
        )
        for one in candidates
    ]


def pick(weighed: Sequence[Weighed], point: float) -> Candidate | None:
    """The account at `point` (0 to 1, by chance) of the shares; None where none has a share."""
    able = [one for one in weighed if one.share > 0]
    for one, end in zip(able, accumulate(one.share for one in able), strict=True):
        if point < end:
            return one.candidate
    return able[-1].candidate if able else None


def turns(shares: Mapping[str, float], point: float) -> list[str]:
    """An order of turns in which every account comes as often as its share says, well mixed.

    `point` (0 to 1, by chance) says where the order begins, so that in few turns, too, each has
    its chance.
    """
    if len(shares) <= 1:
        return list(shares)
    total = sum(shares.values())
    owed = dict.fromkeys(shares, 0.0)
    order = []
    for _ in range(TURNS):
        for name, share in shares.items():
            owed[name] += share / total
        next_one = max(owed, key=lambda name: owed[name])
        owed[next_one] -= 1.0
        order.append(next_one)
    start = int(point * TURNS)
    return order[start:] + order[:start]


def considered(weighed: Collection[Weighed]) -> list[dict[str, object]]:
    """What was weighed, as the ledger keeps it: coarse, so that like choices are one record."""
    return [
        {
            "account": one.candidate.name,
            "share": round(one.share * 20) / 20 if one.share > 0.05 else round(one.share, 2),
            "weight": one.candidate.weight,
            "cost_micros": one.candidate.cost_micros,
            "errors": round(one.candidate.errors * 20) / 20,
            "slow": one.candidate.left is None and _slow(one),
            "left": one.candidate.left,
        }
        for one in weighed
    ]


def _fitness(one: Candidate, fastest: float) -> float:
    return max(TRICKLE, (1 - one.errors) ** ERROR_EXPONENT * _quickness(one, fastest))


def _quickness(one: Candidate, fastest: float) -> float:
    bearable = max(SLOWER_THAN_BEST * fastest, SLOW_FROM_S)
    return 1.0 if not one.latency_s else min(1.0, bearable / one.latency_s)


def _slow(one: Weighed) -> bool:
    """Whether more than its errors took some of its share away."""
    return one.fitness < 0.9 * max(TRICKLE, (1 - one.candidate.errors) ** ERROR_EXPONENT)


def _cheapness(one: Candidate, cheapest: int) -> float:
    """An account that costs twice as much has half the share; undeclared costs do not count."""
    return cheapest / one.cost_micros if one.cost_micros > 0 else 1.0
