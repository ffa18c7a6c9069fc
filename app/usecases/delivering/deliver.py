"""Deliver: claim, ask for permits, render, send, settle. No transaction is open while we send.

The clock is the database's: the claim says what time it is, and a monotonic clock counts on from
there, so that a worker whose own clock is wrong does no harm.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
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
from app.usecases.delivering.claiming import ClaimUnanswered, Clock, Hold, claim
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

Item: TypeAlias = tuple[Claimed, Message]


def deliver(runtime: Runtime, account_name: str, ids: Sequence[int], hand: Hand) -> dict[str, int]:
    """Try to hand over a batch of deliveries on one account; return counts of what came of it."""
    account = runtime.accounts.get(account_name)
    if account is None:
        # Not configured here (any more): the dispatcher gives its work to another account.
        with runtime.engine.begin() as connection:
            lanes.take_back(connection, ids, account_name)
        return {"account_gone": len(ids)}
    try:
        hold = claim(runtime, account, ids, uuid4())
    except ClaimUnanswered as error:
        # Ours perhaps, and never begun: as below.
        hand_back(runtime, account, error.hold)
        raise
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

    `tried` are those that do not leave; `ready` those that do, each at its slot of the `grant`, in
    order. Slots count from the monotonic time `asked`.
    """

    catalog: Catalog
    tried: list[Tried]
    ready: Sequence[Item]
    grant: Grant
    asked: float


def _prepare(runtime: Runtime, account: Account, hold: Hold) -> Batch:
    """Render what was claimed, and ask for permits for it."""
    claimed, clock = hold.claimed, hold.clock
    catalog = runtime.catalog.knowing(
        policies={one.policy_id for one in claimed}, senders={one.sender_id for one in claimed}
    )
    tried: list[Tried] = []
    ready: list[Item] = []
    for one, message in zip(claimed, render(runtime, catalog, account, claimed), strict=True):
        if isinstance(message, Message):
            ready.append((one, message))
        else:
            now = clock.now()
            tried.append(Tried(one, Rejected(message.code, Blame.CONTENT), now, now))
    asked = time.monotonic()
    parts = _by_limits(runtime, catalog, account, ready)
    grants = _permits(runtime, account, parts, asked)
    now = clock.now()
    going: list[tuple[float, Item]] = []
    for (_, part), grant in zip(parts, grants, strict=True):
        going += zip(grant.slots, part[: grant.granted], strict=True)
        for one, _ in part[grant.granted :]:
            tried.append(Tried(one, None, now, now, wait_s=grant.retry_after_s))
    going.sort(key=lambda each: each[0])
    slots = tuple(slot for slot, _ in going)
    if slots:
        runtime.tally.observe("converge_permit_wait_seconds", slots[-1], account=account.name)
    return Batch(catalog, tried, [item for _, item in going], Grant(slots), asked)


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


def _by_limits(
    runtime: Runtime, catalog: Catalog, account: Account, ready: Sequence[Item]
) -> list[tuple[list[Limit], list[Item]]]:
    """Part messages by the limits that must all allow them; nearly always that is one part.

    A permit takes a slot of each of its limits, so a sender's own limit is asked for its own
    messages alone. They come first: the gaps that they leave in the account's slots are filled by
    the others.
    """
    rate = runtime.rate_of(account.name)
    of_account = [] if rate is None else [Limit(f"account:{account.name}", rate)]
    of_senders = {
        sender_id: Limit(f"sender:{sender_id}", float(own))
        for sender_id in {one.sender_id for one, _ in ready}
        if (own := catalog.senders_by_id[sender_id].settings.get("rate_per_s"))
    }
    parts: dict[Limit | None, list[Item]] = defaultdict(list)
    for item in ready:
        parts[of_senders.get(item[0].sender_id)].append(item)
    return [
        ([*of_account, *([own] if own else [])], part)
        for own, part in sorted(parts.items(), key=lambda each: each[0] is None)
    ]


def _permits(
    runtime: Runtime,
    account: Account,
    parts: Sequence[tuple[Sequence[Limit], Sequence[Item]]],
    asked: float,
) -> list[Grant]:
    """Ask for permits for each part; the slots count from the monotonic time `asked`."""
    grants = []
    away = Grant((), retry_after_s=LIMITS_AWAY_S)
    known_away = False
    for limits, part in parts:
        later_s = time.monotonic() - asked
        grant = away
        if not (limits and known_away):
            try:
                grant = runtime.limits.reserve(limits, len(part), MAX_WAIT_S)
            except LimitsUnavailable as error:
                # It may have taken seconds to find out: it is not asked again for this batch.
                known_away = True
                _log.warning("limits_unavailable", account=account.name, reason=str(error))
        slots = tuple(later_s + slot for slot in grant.slots)
        grants.append(Grant(slots, grant.retry_after_s))
    return grants


def _note_health(
    runtime: Runtime, account: Account, outcomes: Sequence[Outcome | None], seconds: float
) -> None:
    failed = sum(_of_account(one) for one in outcomes)
    limited = sum(isinstance(one, RateLimited) for one in outcomes)
    refused = sum(isinstance(one, Rejected) and one.blame is Blame.ACCOUNT for one in outcomes)
    runtime.health.after_batch(
        account.name,
        ok=len(outcomes) - failed - limited - refused,
        failed=failed,
        limited=limited,
        refused=refused,
        seconds=seconds,
    )


def _of_account(outcome: Outcome | None) -> bool:
    """Whether a try failed in a way that says something of the account."""
    match outcome:
        case Retryable(blame=blame):
            return blame is Blame.ACCOUNT
        case _:
            return isinstance(outcome, Ambiguous)
