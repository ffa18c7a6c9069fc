"""Which provider account takes a delivery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.channels.registry import Account
from app.domain.pause import Pause
from app.domain.selection import Candidate, Left, Weighed, considered, pick, weigh
from app.domain.vocabulary import Channel, Urgency
from app.limits.health import Health
from app.store.choices import note_choice
from app.usecases.runtime import Runtime

BATCH = 200
FAST_BATCH = 400
"""Of an account by which a worker is known to send so many within a second: what a task costs is
paid half as often. A worker that dies leaves no more in doubt than this for each of its threads."""
LIMITED_BATCH_S = 0.25
"""A batch of a rate-limited account holds this much of its rate, so that processes share it."""
URGENT_BATCH = 20
URGENT_BATCH_S = 0.25
"""An urgent message waits for no more than this much work of its own batch."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """The accounts of a channel at one moment: their health, and the share that each is due."""

    weighed: Sequence[Weighed]
    health: Mapping[str, Health]

    @property
    def usable(self) -> list[Weighed]:
        """Those that may take something now."""
        return [one for one in self.weighed if one.share > 0]

    @property
    def resting(self) -> list[str]:
        """Those whose breaker is open."""
        return [one.candidate.name for one in self.weighed if one.candidate.left is Left.UNHEALTHY]


@dataclass(frozen=True, slots=True)
class Choice:
    """An account that was chosen, and the record of the grounds (None: there was no other)."""

    account: str = ""
    record: int | None = None


def weigh_accounts(
    runtime: Runtime,
    channel: Channel | str,
    *,
    test: bool,
    now: datetime,
    pauses: Sequence[Pause],
    failed: str | None = None,
) -> Weighing:
    """Weigh the accounts of a channel; `failed` names one that has failed just now.

    It asks Redis: not to be called while a transaction is open.
    """
    accounts = runtime.accounts_for(channel, test=test)
    health = runtime.health.health([account.name for account in accounts], now)
    return _weighing(accounts, health, pauses, failed)


def _weighing(
    accounts: Sequence[Account],
    health: Mapping[str, Health],
    pauses: Sequence[Pause],
    failed: str | None = None,
) -> Weighing:
    candidates = [
        Candidate(
            name=account.name,
            weight=account.weight,
            cost_micros=account.cost_micros,
            errors=health[account.name].errors,
            latency_s=health[account.name].latency_s,
            left=Left.FAILED
            if account.name == failed
            else _left(account, health[account.name], pauses),
        )
        for account in accounts
    ]
    return Weighing(weigh(candidates), health)


def _left(account: Account, health: Health, pauses: Sequence[Pause]) -> Left | None:
    if any(holds(pause, account) for pause in pauses):
        return Left.PAUSED
    return Left.UNHEALTHY if health.open_until is not None else None


def holds(pause: Pause, account: Account) -> bool:
    """Whether a pause in force holds all work of an account, not that of some campaign alone."""
    return (
        pause.ended_at is None
        and pause.account == account.name
        and pause.channel in (None, account.channel)
        and all(mark is None for mark in (pause.brand_id, pause.sender_id, pause.campaign))
    )


def record(connection: Connection, channel: Channel | str, weighing: Weighing) -> int | None:
    """Keep the grounds of a choice where there was one to make; return their id."""
    if len(weighing.weighed) < 2:
        return None
    return note_choice(connection, str(channel), considered(weighing.weighed))


class Chooser:
    """Chooses accounts for urgent work within one transaction, by a health known before it began.

    With the first choice the grounds of all channels are kept, in one order, so that of two
    transactions that keep the same new ones neither waits for the other in a circle.
    """

    def __init__(
        self,
        runtime: Runtime,
        connection: Connection,
        health: Mapping[str, Health],
        pauses: Sequence[Pause],
    ) -> None:
        self._runtime = runtime
        self._connection = connection
        self._health = health
        self._pauses = pauses
        self._weighed: dict[tuple[str, bool], tuple[Weighing, int | None]] = {}

    def choose(self, channel: Channel, *, test: bool) -> Choice:
        """Choose by chance in proportion to shares; an empty choice where none can be used."""
        if not self._weighed:
            for each in Channel:
                for tests in (False, True):
                    accounts = self._runtime.accounts_for(each, test=tests)
                    weighing = _weighing(accounts, self._health, self._pauses)
                    number = record(self._connection, each, weighing)
                    self._weighed[each, tests] = weighing, number
        weighing, number = self._weighed[channel, test]
        chosen = pick(weighing.weighed, self._runtime.jitter())
        return Choice(chosen.name, number) if chosen else Choice()


def batches(
    runtime: Runtime, account: str, lane: str, health: Health, ids: Sequence[int]
) -> list[tuple[str, Sequence[int]]]:
    """Divide deliveries into hints, as (account, ids), each of so many as are soon done.

    That is about a second of the account's pace; on the urgent lane, where none should wait for
    its own batch, a quarter of that.
    """
    urgent = lane == Urgency.URGENT
    pace, rate = health.pace_per_s, runtime.rate_of(account)
    size = URGENT_BATCH if urgent else BATCH
    if not urgent and pace is not None and pace >= FAST_BATCH:
        size = FAST_BATCH
    if rate is not None:
        size = min(size, round(rate * LIMITED_BATCH_S))
    elif pace is not None:
        size = min(size, round(pace * (URGENT_BATCH_S if urgent else 1.0)))
    size = max(1, size)
    return [(account, ids[start : start + size]) for start in range(0, len(ids), size)]


def hint_urgent(
    runtime: Runtime, deliveries: Mapping[tuple[str, str], Sequence[int]], now: datetime
) -> None:
    """Publish hints for urgent deliveries, by (channel, account)."""
    if not deliveries:
        return
    health = runtime.health.health([account for _, account in deliveries], now)
    for (channel, name), ids in deliveries.items():
        hints = batches(runtime, name, Urgency.URGENT, health[name], ids)
        runtime.hints.deliver(channel, Urgency.URGENT, hints)
