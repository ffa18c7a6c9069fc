"""Settle: what became of each try is written down, and what follows from it.

It is written by the token of the claim, which makes it harmless to write it twice or late. So the
ledger is asked again while it is away: to give up would throw the proof away, and the messages
would be sent again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.channels.registry import Account
from app.domain.outcome import Accepted, Blame, Outcome, RateLimited, Rejected, Retryable
from app.domain.selection import pick
from app.domain.settlement import Attempted, Settled, settle
from app.domain.vocabulary import DeliveryState
from app.store import deliveries
from app.store import settling as store
from app.store.answers import NAME as ANSWERS
from app.store.catalog import Catalog
from app.store.customers import mark_endpoints_invalid
from app.store.optouts import lock_people
from app.store.session import LEDGER_AWAY
from app.usecases.consent.noes import say_opted_out
from app.usecases.delivering.accounts import Weighing, record, weigh_accounts
from app.usecases.delivering.attempts import Tried
from app.usecases.delivering.claiming import Hold
from app.usecases.giving_way import again_if_undone
from app.usecases.runtime import Runtime

T = TypeVar("T")

_log = structlog.get_logger(__name__)

AGAIN_S = 0.5
PATIENCE_S = 900.0
"""How long a ledger that is away is asked to take what happened. A lease is shorter than many a
failover, and while the ledger is away nobody else can claim what is ours."""
PUT_BACK_S = 5.0
"""What was handed back untried is tried again after so long."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Whose hands a batch is in, so that operators find its messages."""

    task_id: UUID | None = None
    worker: str = ""


def settle_tried(
    runtime: Runtime,
    catalog: Catalog,
    account: Account,
    hold: Hold,
    tried: Sequence[Tried],
    hand: Hand,
) -> list[UUID]:
    """Write down what happened, and return the intents whose delivery failed."""
    elsewhere = _elsewhere(runtime, account, hold, tried)
    rows, moved, invalid = _told(runtime, catalog, account, tried, elsewhere)
    opted_out = [one.claimed for one in tried if _opted_out(one.outcome)]

    def write(connection: Connection) -> list[UUID]:
        if elsewhere is not None and moved:
            choice_id = record(connection, account.channel, elsewhere)
            for row in moved:
                row["choice_id"] = choice_id
        # In the order in which everybody locks: people, endpoints, intents, deliveries, counts.
        if opted_out:
            lock_people(connection, {one.customer_id for one in opted_out})
        if invalid:
            mark_endpoints_invalid(connection, invalid)
        say_opted_out(connection, account.name, opted_out)
        settled = store.settle(
            connection,
            hold.token,
            rows,
            account=account.name,
            task_id=hand.task_id,
            worker=hand.worker,
        )
        hold.give_back(connection, settled.unsent)
        return settled.failed

    patience_s = max(runtime.timing.lease, PATIENCE_S)
    return _written(runtime, account, hold.began + patience_s, write)


def hand_back(runtime: Runtime, account: Account, hold: Hold) -> None:
    """Put back all that was claimed: a fault came before anything of it was tried.

    After its lease this would be too late; who finds it then cannot know that nothing has left.
    """
    due_at = hold.clock.now() + timedelta(seconds=PUT_BACK_S)
    rows = [{"id": one.id, "due_at": due_at, "reason": "put_back"} for one in hold.claimed]

    def write(connection: Connection) -> None:
        hold.give_back(connection, deliveries.put_off(connection, rows, hold.token))

    _log.warning("handed_back", account=account.name, deliveries=len(rows))
    _written(runtime, account, hold.began + runtime.timing.lease, write)


def _written(
    runtime: Runtime, account: Account, give_up: float, write: Callable[[Connection], T]
) -> T:
    """Write in a transaction of its own, once the ledger is there; ask for it until `give_up`, a
    monotonic time."""
    while True:
        try:
            return _once(runtime, write)
        except LEDGER_AWAY:
            if time.monotonic() > give_up:
                raise
            _log.warning("settle_again", account=account.name)
            runtime.tally.add("converge_settle_retries_total", account=account.name)
            time.sleep(AGAIN_S)


@again_if_undone
def _once(runtime: Runtime, write: Callable[[Connection], T]) -> T:
    with runtime.engine.begin() as connection:
        return write(connection)


def _opted_out(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Rejected) and outcome.blame is Blame.OPTED_OUT


def _told(
    runtime: Runtime,
    catalog: Catalog,
    account: Account,
    tried: Sequence[Tried],
    elsewhere: Weighing | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[int, str]]:
    """The rows to settle, those of them that move to another account, and endpoints of no use."""
    rows: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    invalid: dict[int, str] = {}
    lease = timedelta(seconds=runtime.timing.lease)
    for one in tried:
        claimed = one.claimed
        policy = catalog.policies_by_id[claimed.policy_id]
        attempted = Attempted(
            attempts=claimed.attempts,
            expires_at=claimed.expires_at,
            lease_until=claimed.claimed_at + lease,
            timeout=policy.timeout(claimed.step),
            elsewhere=elsewhere is not None,
            idempotent=account.traits.idempotent,
        )
        settled = _settled(attempted, one, runtime)
        if _opted_out(one.outcome) and policy.name == ANSWERS:
            # The network answered the word itself: nothing is left to be done by anybody.
            settled = settled._replace(state=DeliveryState.CANCELLED, due_at=None)
        if settled.endpoint_invalid:
            invalid[claimed.endpoint_id] = settled.reason or ""
        row = _row(one, settled, account)
        if settled.move_account and elsewhere is not None:
            other = pick(elsewhere.weighed, runtime.jitter())
            row["account"] = other.name if other else account.name
            moved.append(row)
        rows.append(row)
    return rows, moved, invalid


def _elsewhere(
    runtime: Runtime, account: Account, hold: Hold, tried: Sequence[Tried]
) -> Weighing | None:
    """The other accounts of the channel, where something failed that one of them may take over."""
    if not any(_may_move(one.outcome) for one in tried):
        return None
    weighing = weigh_accounts(
        runtime,
        account.channel,
        test=account.sandbox,
        now=hold.clock.now(),
        pauses=hold.pauses,
        failed=account.name,
    )
    return weighing if weighing.usable else None


def _may_move(outcome: Outcome | None) -> bool:
    """Whether another account may try: it is proven that this one did not take it."""
    match outcome:
        case Retryable() | RateLimited() | Rejected(blame=Blame.ACCOUNT):
            return True
        case _:
            return False


def _settled(attempted: Attempted, one: Tried, runtime: Runtime) -> Settled:
    if one.outcome is None:
        # No permit: it waits for its slot and spends no attempt.
        at = one.finished_at + timedelta(seconds=one.wait_s)
        return Settled(DeliveryState.PLANNED, at, "rate_limit", attempted.attempts)
    return settle(attempted, one.outcome, one.finished_at, runtime.jitter)


def _row(one: Tried, settled: Settled, account: Account) -> dict[str, Any]:
    outcome = one.outcome
    # What this account was too slow for may go by another one; the ledger keeps what is in doubt.
    free = outcome is None or isinstance(outcome, RateLimited)
    waits = settled.state is DeliveryState.PLANNED
    ref = outcome.ref if isinstance(outcome, Accepted) else None
    return {
        "id": one.claimed.id,
        "state": settled.state.value,
        "due_at": settled.due_at,
        "reason": settled.reason,
        "attempts": settled.attempts,
        "account": "" if free and waits else account.name,
        "receipt_ref": ref if account.traits.receipts else None,
        "outcome": one.word or None,
        "outcome_reason": one.reason,
        "ref": ref,
        "started_at": one.started_at,
        "finished_at": one.finished_at,
    }
