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
    """The accounts of a channel that are healthy and not paused."""
    held = {pause.account for pause in pauses if pause.account and pause.ended_at is None}
    return [
        account
        for account in runtime.healthy(runtime.accounts_for(channel, test=test), now)
        if account.name not in held
    ]


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


def batch_size(account: Account, health: Health) -> int:
    """How many deliveries one hint may name: what takes the account about a second."""
    if account.rate is not None:
        return max(1, min(BATCH, round(account.rate * LIMITED_BATCH_S)))
    if health.pace_per_s is None:
        return BATCH
    return max(1, min(BATCH, round(health.pace_per_s)))


def hint_urgent(
    runtime: Runtime, deliveries: Mapping[tuple[str, str], Sequence[int]], now: datetime
) -> None:
    """Publish hints for urgent deliveries, by (channel, account), in batches that are soon done."""
    if not deliveries:
        return
    health = runtime.health.health([account for _, account in deliveries], now)
    for (channel, account), ids in deliveries.items():
        pace = health[account].pace_per_s
        size = URGENT_BATCH
        if pace is not None:
            size = max(1, min(URGENT_BATCH, round(pace * URGENT_BATCH_S)))
        batches = [(account, ids[start : start + size]) for start in range(0, len(ids), size)]
        runtime.hints.deliver(channel, Urgency.URGENT, batches)
