"""Dispatch: one tick looks at everything whose time has come, and passes it on.

Ticks are idempotent and may run side by side: every row is taken with SKIP LOCKED and given a new
time to be looked at, so that what a dying tick took is found again.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from app.channels.registry import Account
from app.domain.pause import Pause
from app.domain.settlement import ALONE_AFTER_LOSSES, MAX_LOSSES, resolve_unknown
from app.domain.vocabulary import Channel, DeliveryState, Kind, Urgency
from app.limits.health import Health
from app.store import deliveries, intents, lanes
from app.store.deliveries import Watched
from app.store.inbox import inbox_waits
from app.store.intents import ledger_now
from app.store.lanes import Flow, Released, Share
from app.store.pauses import pauses_in_force
from app.usecases.accounts import batches, usable_accounts
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

TAKE = 5_000
"""Rows that one tick takes of each sort; the next tick goes on."""
AT_ONCE = 2_000
"""Rows released by one statement, so that workers need not wait for all of them."""
AHEAD_S = 2.0
"""Work is released for about this long ahead of an account's pace."""
PARALLEL = 8
"""Batches of an account assumed to be in hand at once where only a worker's pace is known."""
UNMEASURED = 2_000
MOST_OUTSTANDING = 10_000


def dispatch(runtime: Runtime) -> dict[str, int]:
    """Do one tick; return counts of what was passed on."""
    counts = {
        "clocks": _ring_clocks(runtime),
        "intents": _due_intents(runtime),
        "hints_lost": _lost_hints(runtime),
    }
    for channel in Channel:
        for test in (False, True):
            counts["released"] = counts.get("released", 0) + _release_channel(
                runtime, channel, test=test
            )
    with runtime.engine.begin() as connection:
        waiting = inbox_waits(connection)
    if waiting:
        runtime.hints.feedback()
    _log.debug("tick", **counts)
    return counts


def _due_intents(runtime: Runtime) -> int:
    with runtime.engine.begin() as connection:
        due = intents.take_due_intents(connection, TAKE, runtime.timing.hint_lost)
    if due:
        runtime.hints.decide(due)
    return len(due)


def _lost_hints(runtime: Runtime) -> int:
    with runtime.engine.begin() as connection:
        return lanes.release_lost_hints(connection, TAKE)


def _ring_clocks(runtime: Runtime) -> int:
    """Ended leases become unknown, the unknown is resolved, and escalation is decided."""
    with runtime.engine.begin() as connection:
        rung = deliveries.take_watched(connection, TAKE, runtime.timing.hint_lost)
        lost = [one.id for one in rung if one.state is DeliveryState.SENDING]
        if lost:
            deliveries.lose_leases(connection, lost)
            _log.warning("leases_ended", deliveries=len(lost))
        unknown = [one for one in rung if one.state is DeliveryState.UNKNOWN]
        if unknown:
            deliveries.resolve_unknown(connection, [_resolved(one) for one in unknown])
        handed = [one for one in rung if one.state not in _WITHOUT_VERDICT]
        deliveries.stop_clocks(connection, [one.id for one in handed if not one.open])
    due = list(dict.fromkeys(one.intent_id for one in handed if one.open))
    if due:
        runtime.hints.decide(due)
    return len(rung)


_WITHOUT_VERDICT = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


def _resolved(one: Watched) -> dict[str, Any]:
    if not one.open:
        return {"id": one.id, "state": "cancelled", "due_at": None, "reason": one.reason}
    if one.losses >= MAX_LOSSES:
        return {"id": one.id, "state": "failed", "due_at": one.now, "reason": "killed_its_worker"}
    settled = resolve_unknown(
        Kind(one.kind), one.attempts, one.expires_at, one.now, one.reason or "no_verdict"
    )
    return {
        "id": one.id,
        "state": settled.state.value,
        "due_at": settled.due_at,
        "reason": settled.reason,
    }


def _release_channel(runtime: Runtime, channel: Channel, *, test: bool) -> int:
    """Release due deliveries of a channel, urgent lanes first, to accounts with room for them."""
    serving = [account.name for account in runtime.accounts_for(channel, test=test)]
    if not serving:
        return 0
    released = 0
    with runtime.engine.begin() as connection:
        flows = {
            lane: [flow for flow in lanes.due_flows(connection, channel, lane) if flow.test is test]
            for lane in Urgency
        }
        if not any(flows.values()):
            return 0
        now = ledger_now(connection)
        pauses = pauses_in_force(connection)
        accounts = usable_accounts(runtime, channel, test=test, now=now, pauses=pauses)
        taken = lanes.outstanding(
            connection, [account.name for account in accounts], MOST_OUTSTANDING
        )
    health = runtime.health.health([account.name for account in accounts], now)
    for account in _by_weight(runtime, accounts):
        room = _room(account, health[account.name])
        for lane in Urgency:
            # An urgent lane minds what is out on its own lane alone, so bulk never fills it.
            room -= taken.get((account.name, lane), 0)
            free = {
                flow: [name for name in serving if _paused(flow, channel, name, pauses)]
                for flow in flows[lane]
                if not _paused(flow, channel, account.name, pauses)
            }
            done = _release_lane(runtime, channel, lane, account, serving, free, room, health)
            released += done
            room -= done
    return released


def _by_weight(runtime: Runtime, accounts: Iterable[Account]) -> list[Account]:
    """Accounts in an order of chance, the weightier sooner: so each has its share of the first
    turns (P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006)."""
    return sorted(accounts, key=lambda one: runtime.jitter() ** (1 / one.weight), reverse=True)


def _release_lane(
    runtime: Runtime,
    channel: Channel,
    lane: Urgency,
    account: Account,
    serving: Sequence[str],
    flows: Mapping[Flow, Sequence[str]],
    room: int,
    health: Mapping[str, Health],
) -> int:
    """Let senders, and their flows, take turns at an account's room; each part is hinted at once.

    `flows` says for each by which accounts it may not go now. What a flow leaves of its share is
    for the others.
    """
    released = 0
    waiting = list(flows)
    while waiting and room > 0:
        # Where there are more flows than room, chance decides whose turn it is.
        turn = random.sample(waiting, min(len(waiting), room))
        shares = _shares(turn, min(room, AT_ONCE))
        with runtime.engine.begin() as connection:
            got = lanes.release(
                connection,
                channel,
                lane,
                account.name,
                serving,
                [Share(flow, shares[flow], flows[flow]) for flow in turn],
                runtime.timing.hint_lost,
            )
        _hint(runtime, channel, lane, got, health)
        released += len(got)
        room -= len(got)
        given = Counter(one.flow for one in got)
        done = {flow for flow in turn if given[flow] < shares[flow]}
        waiting = [flow for flow in waiting if flow not in done]
    return released


def _shares(turn: Sequence[Flow], room: int) -> dict[Flow, int]:
    """Part room among senders, and each sender's part among its campaigns."""
    campaigns = Counter(flow.sender_id for flow in turn)
    return {flow: max(1, room // len(campaigns) // campaigns[flow.sender_id]) for flow in turn}


def _paused(flow: Flow, channel: str, account: str, pauses: Iterable[Pause]) -> bool:
    return any(
        pause.fits(
            brand_id=flow.brand_id,
            channel=channel,
            sender_id=flow.sender_id,
            campaign=flow.campaign,
            account=account,
        )
        for pause in pauses
    )


def _room(account: Account, health: Health) -> int:
    """How many deliveries may be out for an account: about two seconds of what it takes."""
    if account.rate is not None:
        return min(MOST_OUTSTANDING, max(1, round(account.rate * AHEAD_S)))
    if health.pace_per_s is None:
        return UNMEASURED
    return min(MOST_OUTSTANDING, max(PARALLEL, round(health.pace_per_s * PARALLEL * AHEAD_S)))


def _hint(
    runtime: Runtime,
    channel: Channel,
    lane: Urgency,
    released: Sequence[Released],
    health: Mapping[str, Health],
) -> None:
    """Publish hints after the commit, in batches by account; what has killed goes alone."""
    by_account: dict[str, list[int]] = defaultdict(list)
    hints: list[tuple[str, Sequence[int]]] = []
    for one in released:
        if one.losses >= ALONE_AFTER_LOSSES:
            hints.append((one.account, [one.id]))
        else:
            by_account[one.account].append(one.id)
    for name, ids in by_account.items():
        hints += batches(runtime.accounts[name], lane, health.get(name, Health()), ids)
    if hints:
        runtime.hints.deliver(channel, lane, hints)
