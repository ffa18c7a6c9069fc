"""What becomes of a delivery after an attempt: outcome in, next state and next look out."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from app.domain.outcome import (
    Accepted,
    Ambiguous,
    Blame,
    Outcome,
    RateLimited,
    Rejected,
    Retryable,
)
from app.domain.vocabulary import DeliveryState, Kind

MAX_ATTEMPTS = 8
BACKOFF_BASE = 5.0
BACKOFF_CAP = 900.0
MAX_LOSSES = 3
"""Workers lost with a delivery in hand after which it is given up as a poison message."""
ALONE_AFTER_LOSSES = 2
"""Workers lost after which a delivery is tried alone, so that it cannot spoil a batch."""
ELSEWHERE_AFTER = 2.0
"""Seconds after which what one account was too slow for may go by another."""
WARY_BATCH = 10
"""After one lost worker deliveries go in batches of so many: few are suspected with the guilty."""


class Attempted(NamedTuple):
    """A delivery as it was claimed: what settlement must know of it.

    `attempts` are those spent before this one; `timeout` is the escalation time-out of its step
    in seconds, None where no step would follow; `elsewhere` says that another account could take
    it; `idempotent` that its provider takes the same key only once.
    """

    attempts: int
    expires_at: datetime
    lease_until: datetime
    timeout: float | None = None
    elsewhere: bool = False
    idempotent: bool = False


class Settled(NamedTuple):
    """Where a delivery goes. `due_at` is when it must be looked at again, None for never."""

    state: DeliveryState
    due_at: datetime | None
    reason: str | None
    attempts: int
    move_account: bool = False
    endpoint_invalid: bool = False


def settle(
    attempted: Attempted, outcome: Outcome, now: datetime, jitter: Callable[[], float]
) -> Settled:
    """Settle one attempt at `now`; `jitter` gives a number in [0, 1)."""
    spent = attempted.attempts + 1
    match outcome:
        case Accepted():
            timeout = attempted.timeout
            rings_at = None if timeout is None else now + timedelta(seconds=timeout)
            return Settled(DeliveryState.SENT, rings_at, None, spent)
        case RateLimited(retry_after, reason):
            # What was never tried leaves no doubt, so it need not wait until this account can.
            free = attempted.elsewhere and attempted.attempts == 0
            seconds = min(retry_after, ELSEWHERE_AFTER) if free else retry_after
            at = now + timedelta(seconds=max(seconds, 0.1))
            return _again(attempted, at, now, reason, attempted.attempts)
        case Retryable(reason):
            return _retry(attempted, now, jitter, reason, move_account=attempted.elsewhere)
        case Rejected(reason, Blame.ACCOUNT) if attempted.elsewhere and spent < MAX_ATTEMPTS:
            return _again(attempted, now, now, reason, spent, move_account=True)
        case Rejected(reason, Blame.ACCOUNT):
            return _retry(attempted, now, jitter, reason, move_account=False)
        case Rejected(reason, blame):
            return Settled(
                DeliveryState.FAILED,
                now,
                reason,
                spent,
                endpoint_invalid=blame is Blame.RECIPIENT,
            )
        case Ambiguous(reason) if attempted.idempotent:
            # The same key again is harmless with this account, and nowhere else.
            return _retry(attempted, now, jitter, reason, move_account=False)
        case Ambiguous(reason):
            return Settled(DeliveryState.UNKNOWN, attempted.lease_until, reason, spent)


def resolve_unknown(
    kind: Kind, attempts: int, expires_at: datetime, now: datetime, reason: str
) -> Settled:
    """Decide about an attempt of which nothing was heard: marketing is never sent again."""
    if kind is Kind.MARKETING or attempts >= MAX_ATTEMPTS or now >= expires_at:
        return Settled(DeliveryState.FAILED, now, reason, attempts)
    return Settled(DeliveryState.PLANNED, now, reason, attempts)


def _retry(
    attempted: Attempted,
    now: datetime,
    jitter: Callable[[], float],
    reason: str,
    *,
    move_account: bool,
) -> Settled:
    spent = attempted.attempts + 1
    if spent >= MAX_ATTEMPTS:
        return Settled(DeliveryState.FAILED, now, reason, spent)
    at = now + backoff(attempted.attempts, jitter)
    return _again(attempted, at, now, reason, spent, move_account=move_account)


def _again(
    attempted: Attempted,
    at: datetime,
    now: datetime,
    reason: str,
    attempts: int,
    *,
    move_account: bool = False,
) -> Settled:
    """Plan another try at `at`; one that would come after the deadline is a failure now."""
    if at >= attempted.expires_at:
        return Settled(DeliveryState.FAILED, now, reason, attempts)
    return Settled(DeliveryState.PLANNED, at, reason, attempts, move_account=move_account)


def backoff(attempts: int, jitter: Callable[[], float]) -> timedelta:
    """Full jitter over an exponential, capped ceiling, never under a second.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2**attempts)
    return timedelta(seconds=max(1.0, ceiling * jitter()))
