"""Deliver: claim, ask for permits, render, send, settle. No transaction is open while we send.

The clock is the database's: the claim says what time it is, and a monotonic clock counts on from
there, so that a worker whose own clock is wrong does no harm.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from app.channels.contract import Message
from app.channels.registry import Account
from app.domain.outcome import Accepted, Ambiguous, Blame, Outcome, RateLimited, Rejected, Retryable
from app.domain.settlement import Attempted, Settled, settle
from app.domain.vocabulary import DeliveryState, Kind
from app.limits.connection import LimitsUnavailable
from app.limits.rate import Grant, Limit
from app.store import deliveries, lanes
from app.store.catalog import Catalog
from app.store.customers import mark_endpoints_invalid
from app.store.deliveries import Claimed
from app.store.pauses import pauses_in_force
from app.usecases.rendering import render
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

MAX_WAIT_S = 1.0
"""The furthest permit that a worker waits for; what comes later goes back to the ledger."""
SLICE_S = 0.02
"""Paced messages leave in slices of about this long."""
SETTLE_AGAIN_S = 0.5
LIMITS_AWAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Hand:
    """Whose hands a batch is in, so that operators find its messages."""

    task_id: UUID | None = None
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """The database's time, read once and counted on."""

    read: datetime
    ticked: float

    def now(self) -> datetime:
        """The time now, aware UTC."""
        return self.read + timedelta(seconds=time.monotonic() - self.ticked)


@dataclass(frozen=True, slots=True)
class Tried:
    """A claimed delivery and what became of the try; `outcome` None means it was not tried."""

    claimed: Claimed
    outcome: Outcome | None
    started_at: datetime
    finished_at: datetime
    wait_s: float = 0.0


def deliver(runtime: Runtime, account_name: str, ids: Sequence[int], hand: Hand) -> dict[str, int]:
    """Try to hand over a batch of deliveries on one account; return counts of what came of it."""
    account = runtime.accounts.get(account_name)
    if account is None:
        # Not configured here (any more): the dispatcher gives its work to another account.
        with runtime.engine.begin() as connection:
            lanes.take_back(connection, ids, account_name)
        return {"account_gone": len(ids)}
    token = uuid4()
    claimed = _claim(runtime, account, ids, token)
    if not claimed:
        return {"claimed": 0}
    clock = Clock(claimed[0].claimed_at, time.monotonic())
    deadline = clock.ticked + runtime.timing.send
    # All that settling needs is at hand before anything leaves.
    catalog = runtime.catalog.knowing(
        policies={one.policy_id for one in claimed}, senders={one.sender_id for one in claimed}
    )
    tried = _send_paced(runtime, catalog, account, claimed, clock, deadline)
    failed = _settle(runtime, catalog, account, token, tried, clock, hand)
    if failed:
        runtime.hints.decide(list(dict.fromkeys(failed)))
    counts = dict(Counter(_word(one.outcome) for one in tried))
    _log.info("delivered", account=account.name, **counts)
    return counts


def _claim(runtime: Runtime, account: Account, ids: Sequence[int], token: UUID) -> list[Claimed]:
    """Claim what may go; what is paused goes back, to wait without a worker."""
    with runtime.engine.begin() as connection:
        pauses = pauses_in_force(connection)
        claimed = deliveries.claim(connection, ids, account.name, token, runtime.timing.lease)
        if not pauses:
            return claimed
        held = [
            one.id
            for one in claimed
            if any(
                pause.fits(
                    brand_id=one.brand_id,
                    channel=account.channel,
                    sender_id=one.sender_id,
                    campaign=one.campaign,
                    account=account.name,
                )
                for pause in pauses
            )
        ]
        deliveries.hand_back(connection, held, token)
        kept = set(held)
        return [one for one in claimed if one.id not in kept]


def _send_paced(
    runtime: Runtime,
    catalog: Catalog,
    account: Account,
    claimed: list[Claimed],
    clock: Clock,
    deadline: float,
) -> list[Tried]:
    """Render and send, each message at the slot that its permit names."""
    rendered = render(runtime, catalog, account, claimed)
    tried: list[Tried] = []
    ready: list[tuple[Claimed, Message]] = []
    for one, message in zip(claimed, rendered, strict=True):
        if isinstance(message, Message):
            ready.append((one, message))
        else:
            now = clock.now()
            tried.append(Tried(one, Rejected(message.code, Blame.CONTENT), now, now))
    if not ready:
        return tried
    asked = time.monotonic()
    grant = _permits(runtime, catalog, account, [one for one, _ in ready])
    now = clock.now()
    for one, _ in ready[grant.granted :]:
        tried.append(Tried(one, None, now, now, wait_s=grant.retry_after_s))
    return tried + _send_slices(
        runtime, account, ready[: grant.granted], grant, asked, clock, deadline
    )


def _send_slices(
    runtime: Runtime,
    account: Account,
    ready: Sequence[tuple[Claimed, Message]],
    grant: Grant,
    asked: float,
    clock: Clock,
    deadline: float,
) -> list[Tried]:
    tried: list[Tried] = []
    sending_s = 0.0
    while len(tried) < len(ready):
        start = len(tried)
        pause = grant.slots[start] - (time.monotonic() - asked)
        if pause > 0:
            time.sleep(max(pause, SLICE_S))
        end = min(
            max(grant.sendable(time.monotonic() - asked), start + 1),
            start + account.traits.max_batch,
            len(ready),
        )
        part = ready[start:end]
        started_at, before = clock.now(), time.monotonic()
        outcomes = account.provider.send([message for _, message in part], deadline)
        sending_s += time.monotonic() - before
        finished_at = clock.now()
        tried += [
            Tried(one, outcome, started_at, finished_at)
            for (one, _), outcome in zip(part, outcomes, strict=True)
        ]
    _note_health(runtime, account, [one.outcome for one in tried], sending_s)
    return tried


def _permits(
    runtime: Runtime, catalog: Catalog, account: Account, claimed: Sequence[Claimed]
) -> Grant:
    """Ask for permits of the account and of the senders, all of which must allow a message."""
    limits = []
    if account.rate is not None:
        limits.append(Limit(f"account:{account.name}", account.rate))
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
    failed = sum(isinstance(one, Retryable | Ambiguous) for one in outcomes)
    refused = any(isinstance(one, Rejected) and one.blame is Blame.ACCOUNT for one in outcomes)
    runtime.health.after_batch(
        account.name,
        ok=len(outcomes) - failed,
        failed=failed,
        account_rejected=refused,
        seconds=seconds,
    )


def _settle(
    runtime: Runtime,
    catalog: Catalog,
    account: Account,
    token: UUID,
    tried: Sequence[Tried],
    clock: Clock,
    hand: Hand,
) -> list[UUID]:
    """Write down what happened, and return the intents whose delivery failed.

    A ledger that is away for a moment is asked until the lease ends: giving up would throw the
    proof away, and the messages would be sent again.
    """
    elsewhere = [
        other
        for other in runtime.accounts_for(account.channel, test=account.sandbox)
        if other.name != account.name
    ]
    elsewhere = runtime.healthy(elsewhere, clock.now())
    rows = []
    invalid: dict[int, str] = {}
    for one in tried:
        claimed = one.claimed
        attempted = Attempted(
            attempts=claimed.attempts,
            kind=Kind(claimed.kind),
            expires_at=claimed.expires_at,
            lease_until=claimed.claimed_at + timedelta(seconds=runtime.timing.lease),
            timeout=catalog.policies_by_id[claimed.policy_id].timeout(claimed.step),
            elsewhere=bool(elsewhere),
            idempotent=account.traits.idempotent,
        )
        settled = _settled(attempted, one, runtime)
        if settled.endpoint_invalid:
            invalid[claimed.endpoint_id] = settled.reason or ""
        rows.append(_row(one, settled, account, elsewhere[0].name if elsewhere else ""))
    give_up = clock.ticked + runtime.timing.lease
    while True:
        try:
            return _write(runtime, account, token, rows, invalid, hand)
        except (OperationalError, NoConnection):
            if time.monotonic() > give_up:
                raise
            _log.warning("settle_again", account=account.name, deliveries=len(rows))
            time.sleep(SETTLE_AGAIN_S)


def _write(
    runtime: Runtime,
    account: Account,
    token: UUID,
    rows: Sequence[Mapping[str, Any]],
    invalid: Mapping[int, str],
    hand: Hand,
) -> list[UUID]:
    with runtime.engine.begin() as connection:
        failed = deliveries.settle(
            connection,
            token,
            rows,
            account=account.name,
            task_id=hand.task_id,
            worker=hand.worker,
        )
        if invalid:
            mark_endpoints_invalid(connection, invalid)
    return failed


def _settled(attempted: Attempted, one: Tried, runtime: Runtime) -> Settled:
    if one.outcome is None:
        # No permit: it waits for its slot and spends no attempt.
        at = one.finished_at + timedelta(seconds=one.wait_s)
        return Settled(DeliveryState.PLANNED, at, "rate_limit", attempted.attempts)
    return settle(attempted, one.outcome, one.finished_at, runtime.jitter)


def _row(one: Tried, settled: Settled, account: Account, other: str) -> dict[str, Any]:
    outcome = one.outcome
    ref = outcome.ref if isinstance(outcome, Accepted) else None
    return {
        "id": one.claimed.id,
        "state": settled.state.value,
        "due_at": settled.due_at,
        "reason": settled.reason,
        "attempts": settled.attempts,
        "account": other if settled.move_account else account.name,
        "receipt_ref": ref if account.traits.receipts else None,
        "outcome": None if outcome is None else _OUTCOMES[type(outcome)],
        "outcome_reason": None
        if outcome is None or isinstance(outcome, Accepted)
        else outcome.reason,
        "ref": ref,
        "started_at": one.started_at,
        "finished_at": one.finished_at,
    }


_OUTCOMES: dict[type[Outcome], str] = {
    Accepted: "accepted",
    Retryable: "retryable",
    RateLimited: "rate_limited",
    Rejected: "rejected",
    Ambiguous: "ambiguous",
}
_WORDS = {
    "accepted": "sent",
    "retryable": "retry",
    "rate_limited": "limited",
    "rejected": "rejected",
    "ambiguous": "unknown",
}


def _word(outcome: Outcome | None) -> str:
    return "held" if outcome is None else _WORDS[_OUTCOMES[type(outcome)]]
