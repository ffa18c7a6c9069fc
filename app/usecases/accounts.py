"""Which provider account takes a delivery."""

from collections.abc import Sequence
from datetime import datetime

from app.channels.registry import Account
from app.domain.pause import Pause
from app.domain.vocabulary import Channel
from app.usecases.runtime import Runtime


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
