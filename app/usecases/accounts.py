"""Which provider account takes a delivery."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.channels.registry import Account
from app.domain.pause import Pause
from app.domain.vocabulary import Channel, Urgency
from app.limits.health import Health
from app.usecases.runtime import Runtime

BATCH = 200
LIMITED_BATCH_S = 0.25
"""A batch of a rate-limited account holds this much of its rate, so that processes share it."""
URGENT_BATCH = 20
URGENT_BATCH_S = 0.25
"""An urgent message waits for no more than this much work of its own batch."""


def usable_accounts(
    runtime: Runtime,
    channel: Channel | str,
    *,
    test: bool,
    now: datetime,
    pauses: Sequence[Pause],
) -> list[Account]:
    """The accounts of a channel that are healthy and not paused as a whole."""
    return [
        account
        for account in runtime.healthy(runtime.accounts_for(channel, test=test), now)
        if not any(_holds(pause, account) for pause in pauses)
    ]


def _holds(pause: Pause, account: Account) -> bool:
    """Whether a pause in force holds all work of an account, not that of some campaign alone."""
    return (
        pause.ended_at is None
        and pause.account == account.name
        and pause.channel in (None, account.channel)
        and all(mark is None for mark in (pause.brand_id, pause.sender_id, pause.campaign))
    )


def choose_account(
    runtime: Runtime,
    channel: Channel | str,
    *,
    test: bool,
    now: datetime,
    pauses: Sequence[Pause],
) -> Account | None:
    """Choose an account for one batch, by weight; None when none can be used now."""
    usable = usable_accounts(runtime, channel, test=test, now=now, pauses=pauses)
    if not usable:
        return None
    point = runtime.jitter() * sum(account.weight for account in usable)
    for account in usable:
        point -= account.weight
        if point < 0:
            return account
    return usable[-1]


def batches(
    account: Account, lane: str, health: Health, ids: Sequence[int]
) -> list[tuple[str, Sequence[int]]]:
    """Divide deliveries into hints, as (account, ids), each of so many as are soon done.

    That is about a second of the account's pace; on the urgent lane, where none should wait for
    its own batch, a quarter of that.
    """
    urgent = lane == Urgency.URGENT
    size = URGENT_BATCH if urgent else BATCH
    if account.rate is not None:
        size = min(size, round(account.rate * LIMITED_BATCH_S))
    elif health.pace_per_s is not None:
        size = min(size, round(health.pace_per_s * (URGENT_BATCH_S if urgent else 1.0)))
    size = max(1, size)
    return [(account.name, ids[start : start + size]) for start in range(0, len(ids), size)]


def hint_urgent(
    runtime: Runtime, deliveries: Mapping[tuple[str, str], Sequence[int]], now: datetime
) -> None:
    """Publish hints for urgent deliveries, by (channel, account)."""
    if not deliveries:
        return
    health = runtime.health.health([account for _, account in deliveries], now)
    for (channel, name), ids in deliveries.items():
        hints = batches(runtime.accounts[name], Urgency.URGENT, health[name], ids)
        runtime.hints.deliver(channel, Urgency.URGENT, hints)
