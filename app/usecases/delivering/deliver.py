"""Deliver: claim, ask for permits, render, send, settle. No transaction is open while we send.

The clock is the database's: the claim says what time it is, and a monotonic clock counts on from
there, so that a worker whose own clock is wrong does no harm.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import structlog

from app.channels.contract import Message
from app.channels.registry import Account
from app.domain.outcome import Ambiguous, Blame, Outcome, RateLimited, Rejected, Retryable
from app.limits.connection import LimitsUnavailable
from app.limits.rate import Grant, Limit
from app.store import lanes
from app.store.catalog import Catalog
from app.store.deliveries import Claimed
from app.usecases.delivering.attempts import Tried, tell
from app.usecases.delivering.claiming import Clock, Hold, claim
from app.usecases.delivering.rendering import render
from app.usecases.delivering.settling import Hand, hand_back, settle_tried
from app.usecases.runtime import Runtime

__all__ = ["Hand", "deliver"]

_log = structlog.get_logger(__name__)

MAX_WAIT_S = 1.0
"""The furthest permit that a worker waits for; what comes later goes back to the ledger."""
SLICE_S = 0.02
"""Paced messages leave in slices of about this long."""
LIMITS_AWAY_S = 5.0


def deliver(runtime: Runtime, account_name: str, ids: Sequence[int], hand: Hand) -> dict[str, int]:
    """Try to hand over a batch of deliveries on one account; return counts of what came of it."""
    account = runtime.accounts.get(account_name)
    if account is None:
        # Not configured here (any more): the dispatcher gives its work to another account.
        with runtime.engine.begin() as connection:
            lanes.take_back(connection, ids, account_name)
        return {"account_gone": len(ids)}
    hold = claim(runtime, account, ids, uuid4())
    if not hold.claimed:
        return {"claimed": 0}
    try:
        batch = _prepare(runtime, account, hold)
    except Exception:
        # Nothing has left: without this the leases would end, as if something might have.
        hand_back(runtime, account, hold)
        raise
    deadline = hold.began + runtime.timing.send
    tried = batch.tried + _send_slices(runtime, account, batch, hold.clock, deadline)
    failed = settle_tried(runtime, batch.catalog, account, hold, tried, hand)
    if failed:
        runtime.hints.decide(list(dict.fromkeys(failed)))
    runtime.tally.add("converge_failures_total", len(failed))
    return tell(runtime, account.name, tried)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is at hand before anything leaves: all that sending and settling need.

    `tried` are those that do not leave; `ready` those that do, each at its slot of the `grant` that
    was asked for at the monotonic time `asked`.
    """

    catalog: Catalog
    tried: list[Tried]
    ready: Sequence[tuple[Claimed, Message]]
    grant: Grant
    asked: float


def _prepare(runtime: Runtime, account: Account, hold: Hold) -> Batch:
    """Render what was claimed, and ask for permits for it."""
    claimed, clock = hold.claimed, hold.clock
    catalog = runtime.catalog.knowing(
        policies={one.policy_id for one in claimed}, senders={one.sender_id for one in claimed}
    )
    tried: list[Tried] = []
    ready: list[tuple[Claimed, Message]] = []
    for one, message in zip(claimed, render(runtime, catalog, account, claimed), strict=True):
        if isinstance(message, Message):
            ready.append((one, message))
        else:
            now = clock.now()
            tried.append(Tried(one, Rejected(message.code, Blame.CONTENT), now, now))
    asked = time.monotonic()
    grant = _permits(runtime, catalog, account, [one for one, _ in ready]) if ready else Grant(())
    if grant.slots:
        runtime.tally.observe(
            "converge_permit_wait_seconds", max(0.0, grant.slots[-1]), account=account.name
        )
    now = clock.now()
    for one, _ in ready[grant.granted :]:
        tried.append(Tried(one, None, now, now, wait_s=grant.retry_after_s))
    return Batch(catalog, tried, ready[: grant.granted], grant, asked)


def _send_slices(
    runtime: Runtime, account: Account, batch: Batch, clock: Clock, deadline: float
) -> list[Tried]:
    """Send, each message at the slot that its permit names."""
    ready, grant = batch.ready, batch.grant
    if not ready:
        return []
    tried: list[Tried] = []
    sending_s = 0.0
    while len(tried) < len(ready):
        start = len(tried)
        pause = grant.slots[start] - (time.monotonic() - batch.asked)
        if pause > 0:
            time.sleep(max(pause, SLICE_S))
        end = min(
            max(grant.sendable(time.monotonic() - batch.asked), start + 1),
            start + account.traits.max_batch,
            len(ready),
        )
        part = ready[start:end]
        started_at, before = clock.now(), time.monotonic()
        outcomes = _outcomes(account, [message for _, message in part], deadline)
        took_s = time.monotonic() - before
        runtime.tally.observe("converge_provider_seconds", took_s, account=account.name)
        sending_s += took_s
        finished_at = clock.now()
        tried += [
            Tried(one, outcome, started_at, finished_at)
            for (one, _), outcome in zip(part, outcomes, strict=True)
        ]
    _note_health(runtime, account, [one.outcome for one in tried], sending_s)
    return tried


def _outcomes(account: Account, messages: Sequence[Message], deadline: float) -> Sequence[Outcome]:
    """What the provider says of each message.

    A fault of its code is no verdict: nobody knows what left. What was said of the parts before
    must be settled all the same.
    """
    try:
        outcomes = account.provider.send(messages, deadline)
        if len(outcomes) == len(messages):
            return outcomes
        _log.error("provider_failed", account=account.name, outcomes=len(outcomes))
    except Exception as error:  # noqa: BLE001  # told by its kind alone
        _log.error("provider_failed", account=account.name, exc_info=error)
    return [Ambiguous("provider_fault")] * len(messages)


def _permits(
    runtime: Runtime, catalog: Catalog, account: Account, claimed: Sequence[Claimed]
) -> Grant:
    """Ask for permits of the account and of the senders, all of which must allow a message."""
    limits = []
    rate = runtime.rate_of(account.name)
    if rate is not None:
        limits.append(Limit(f"account:{account.name}", rate))
    for sender_id in sorted({one.sender_id for one in claimed}):
        rate = catalog.senders_by_id[sender_id].settings.get("rate_per_s")
        if rate:
            limits.append(Limit(f"sender:{sender_id}:{account.channel.value}", float(rate)))
    try:
        return runtime.limits.reserve(limits, len(claimed), MAX_WAIT_S)
    except LimitsUnavailable as error:
        _log.warning("limits_unavailable", account=account.name, reason=str(error))
        return Grant((), retry_after_s=LIMITS_AWAY_S)


def _note_health(
    runtime: Runtime, account: Account, outcomes: Sequence[Outcome | None], seconds: float
) -> None:
    failed = sum(_of_account(one) for one in outcomes)
    limited = sum(isinstance(one, RateLimited) for one in outcomes)
    refused = any(isinstance(one, Rejected) and one.blame is Blame.ACCOUNT for one in outcomes)
    runtime.health.after_batch(
        account.name,
        ok=len(outcomes) - failed - limited,
        failed=failed,
        limited=limited,
        account_rejected=refused,
        seconds=seconds,
    )


def _of_account(outcome: Outcome | None) -> bool:
    """Whether a try failed in a way that says something of the account."""
    match outcome:
        case Retryable(blame=blame):
            return blame is Blame.ACCOUNT
        case _:
            return isinstance(outcome, Ambiguous)
