"""Dispatch: one tick looks at everything whose time has come, and passes it on.

Ticks are idempotent and may run side by side: every row is taken with SKIP LOCKED and given a new
time to be looked at, so that what a dying tick took is found again.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import structlog

from app.domain.pause import Pause
from app.domain.selection import Weighed, turns
from app.domain.settlement import (
    ALONE_AFTER_LOSSES,
    MAX_LOSSES,
    WARY_BATCH,
    resolve_unknown,
)
from app.domain.vocabulary import Channel, DeliveryState, Kind, Urgency
from app.limits.health import Health
from app.store import deliveries, intents, lanes
from app.store.deliveries import Watched
from app.store.inbox import inbox_waits
from app.store.intents import ledger_now
from app.store.lanes import Flow, Released, Share, Ways
from app.store.pauses import pauses_in_force
from app.usecases.delivering.accounts import Weighing, batches, record, weigh_accounts
from app.usecases.hints import DECIDE_BATCH
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

TAKE = 5_000
"""Rows that one tick takes of each sort; the next tick goes on."""
AT_ONCE = 2_000
"""Rows released by one statement, so that workers need not wait for all of them."""
AHEAD_S = 2.0
"""Work is released for about this long ahead of an account's pace."""
ENOUGH_TO_DECIDE = 2 * TAKE // DECIDE_BATCH
"""While so many hints wait to be decided, a tick adds none. Nothing is lost, for what is due stays
due; hinted at over and over, it would be decided as often, and what is urgent would wait behind."""
PARALLEL = 8
"""Batches of an account assumed to be in hand at once where only a worker's pace is known."""
UNMEASURED = 2_000
MOST_OUTSTANDING = 10_000
ABOUT_TO_BE_TRIED = timedelta(seconds=3)
"""So long before a rest of a channel's accounts ends, what has waited for them is decided again."""
WAITED_S = 30.0
_WITHOUT_VERDICT = (DeliveryState.SENDING, DeliveryState.UNKNOWN)


class _Deciding:
    """Whether intents may be given to be decided in this tick."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @cached_property
    def open(self) -> bool:
        """Whether few enough wait already. The broker is asked once a tick, and only where there
        is something to give; where it does not tell, we give."""
        waiting = self._runtime.hints.decisions_waiting()
        return waiting is None or waiting < ENOUGH_TO_DECIDE


def dispatch(runtime: Runtime) -> dict[str, int]:
    """Do one tick; return counts of what was passed on.

    A channel that fails does not keep the others from theirs. The first failure is raised once they
    are done, so that somebody sees it.
    """
    deciding = _Deciding(runtime)
    with runtime.engine.begin() as connection:
        rings = intents.any_to_decide(connection)
    ringing = rings and deciding.open
    counts = {
        "clocks": _ring_clocks(runtime, ringing=ringing),
        "intents": _due_intents(runtime) if ringing else 0,
        "hints_lost": _lost_hints(runtime),
        "released": 0,
    }
    runtime.tally.add("converge_hints_repeated_total", counts["hints_lost"])
    failures: list[Exception] = []
    for channel in Channel:
        for test in (False, True):
            try:
                counts["released"] += _release_channel(runtime, channel, deciding, test=test)
            except Exception as error:  # noqa: BLE001  # raised below
                _log.error("release_failed", channel=channel, test=test, exc_info=error)
                failures.append(error)
    with runtime.engine.begin() as connection:
        waiting = inbox_waits(connection)
    if waiting:
        runtime.hints.feedback()
    if failures:
        raise failures[0]
    runtime.tally.add("converge_dispatch_ticks_total")
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
        return lanes.release_lost_hints(connection, TAKE, runtime.timing.hint_lost)


def _ring_clocks(runtime: Runtime, *, ringing: bool) -> int:
    """Ended leases become unknown, the unknown is resolved, and, where it is `ringing`, escalation
    is decided."""
    with runtime.engine.begin() as connection:
        rung = deliveries.take_watched(
            connection, TAKE, runtime.timing.hint_lost, undecided=not ringing
        )
        lost = [one.id for one in rung if one.state is DeliveryState.SENDING]
        if lost:
            deliveries.lose_leases(connection, lost, runtime.timing.hear_out)
            _log.warning("leases_ended", deliveries=len(lost))
        unknown = [_resolved(one) for one in rung if one.state is DeliveryState.UNKNOWN]
        if unknown:
            deliveries.resolve_unknown(connection, unknown)
        handed = [one for one in rung if one.state not in _WITHOUT_VERDICT]
        deliveries.stop_clocks(connection, [one.id for one in handed if not one.open])
    runtime.tally.add("converge_leases_ended_total", len(lost))
    runtime.tally.add("converge_failures_total", sum(row["state"] == "failed" for row in unknown))
    due = list(dict.fromkeys(one.intent_id for one in handed if one.open))
    if due:
        runtime.hints.decide(due)
    return len(rung)


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


def _release_channel(runtime: Runtime, channel: Channel, deciding: _Deciding, *, test: bool) -> int:
    """Release due deliveries of a channel, urgent lanes first, to accounts with room for them."""
    if not runtime.accounts_for(channel, test=test):
        return 0
    with runtime.engine.begin() as connection:
        flows = {
            lane: [flow for flow in lanes.due_flows(connection, channel, lane) if flow.test is test]
            for lane in Urgency
        }
        if not any(flows.values()):
            return 0
        now = ledger_now(connection)
        pauses = pauses_in_force(connection)
    weighing = weigh_accounts(runtime, channel, test=test, now=now, pauses=pauses)
    usable = [one.candidate.name for one in weighing.usable]
    if not usable:
        if _about_to_be_tried(weighing, now) and deciding.open:
            _move_on(runtime, channel, flows, now, test=test)
        return 0
    with runtime.engine.begin() as connection:
        taken = lanes.outstanding(connection, usable, MOST_OUTSTANDING)
        choice_id = record(connection, channel, weighing)
        suspect = lanes.next_suspect(connection, channel, test=test)
    rooms = {one.candidate.name: _room(runtime, one, weighing) for one in weighing.usable}
    released = 0
    for lane in Urgency:
        # An urgent lane minds what is out on its own lane alone, so bulk never fills it.
        for name in usable:
            rooms[name] -= taken.get((name, lane), 0)
        for held, free in _by_held(flows[lane], channel, weighing, pauses).items():
            release = _Release(runtime, channel, lane, weighing, rooms, choice_id, suspect, held)
            released += release.run(free)
    return released


def _about_to_be_tried(weighing: Weighing, now: datetime) -> bool:
    """Whether all accounts rest, and one of them for a moment only."""
    ends = [weighing.health[name].open_until for name in weighing.resting]
    soonest = min((at for at in ends if at is not None), default=None)
    if len(ends) < len(weighing.weighed) or soonest is None:
        return False
    return soonest - now <= ABOUT_TO_BE_TRIED


def _move_on(
    runtime: Runtime,
    channel: Channel,
    flows: Mapping[Urgency, Sequence[Flow]],
    now: datetime,
    *,
    test: bool,
) -> None:
    """Let what has waited for accounts that all rest be decided again: another channel may take it.

    That is done when they are about to be tried again, and so in each of their rests, for as much
    of each lane as a tick takes. Flows come in an order of chance, and the next look reads on where
    this one ended, so that what is decided to stay does not keep the others waiting.
    """
    resting = runtime.resting_channels(runtime.health.health(runtime.accounts, now))[test]
    able = runtime.channels(test=test) - resting
    policies = [
        number
        for number, policy in runtime.catalog().policies_by_id.items()
        if policy.may_go_on(channel, able)
    ]
    if not policies:
        return
    for lane in Urgency:
        read_to = runtime.read_to.get((channel, lane, test), {})
        since = {flow: read_to.get(flow) for flow in random.sample(flows[lane], len(flows[lane]))}
        if not since:
            continue
        with runtime.engine.begin() as connection:
            waiting, runtime.read_to[channel, lane, test] = lanes.waiting_long(
                connection,
                channel,
                lane,
                since,
                able=able,
                policies=policies,
                waited_s=WAITED_S,
                limit=TAKE,
            )
        if waiting:
            runtime.hints.decide(waiting)


def _by_held(
    flows: Iterable[Flow], channel: str, weighing: Weighing, pauses: Sequence[Pause]
) -> dict[tuple[str, ...], list[Flow]]:
    """Flows by the accounts by which they may not go now; nearly always by none."""
    names = [one.candidate.name for one in weighing.weighed]
    groups: dict[tuple[str, ...], list[Flow]] = defaultdict(list)
    for flow in flows:
        held = tuple(name for name in names if _paused(flow, channel, name, pauses))
        groups[held].append(flow)
    return groups


@dataclass(slots=True)
class _Release:
    """One lane's turn at the rooms of a channel's accounts, for flows that `held` ones bar."""

    runtime: Runtime
    channel: Channel
    lane: Urgency
    weighing: Weighing
    rooms: dict[str, int]
    choice_id: int | None
    suspect: int | None
    held: Sequence[str]

    def run(self, flows: Sequence[Flow]) -> int:
        """Let senders, and their flows, take turns; each part is hinted at once.

        What a flow leaves of its share is for the others.
        """
        released = 0
        waiting = list(flows)
        while waiting and (shares := self._shares()):
            most = max(1, min(AT_ONCE, *(int(self.rooms[name] / shares[name]) for name in shares)))
            # Where there are more flows than room, chance decides whose turn it is.
            turn = random.sample(waiting, min(len(waiting), most))
            parts = _parts(turn, most)
            got = self._take(turn, parts, shares)
            for one in got:
                if one.account in self.rooms:
                    self.rooms[one.account] -= 1
            released += sum(not one.lost for one in got)
            given = Counter(one.flow for one in got)
            done = {flow for flow in turn if given[flow] < parts[flow]}
            waiting = [flow for flow in waiting if flow not in done]
        return released

    def _shares(self) -> dict[str, float]:
        """The accounts with room, and their shares of it."""
        free = [
            one
            for one in self.weighing.usable
            if one.candidate.name not in self.held and self.rooms[one.candidate.name] > 0
        ]
        total = sum(one.share for one in free)
        return {one.candidate.name: one.share / total for one in free}

    def _take(
        self, turn: Sequence[Flow], parts: Mapping[Flow, int], shares: Mapping[str, float]
    ) -> list[Released]:
        ways = Ways(
            turns=turns(shares, self.runtime.jitter()),
            known=[one.candidate.name for one in self.weighing.weighed],
            resting=self.weighing.resting,
            full=[name for name, room in self.rooms.items() if room <= 0],
            choice_id=self.choice_id,
        )
        with self.runtime.engine.begin() as connection:
            got = lanes.release(
                connection,
                self.channel,
                self.lane,
                ways,
                [Share(flow, parts[flow], self.held) for flow in turn],
                self.runtime.timing.hint_lost,
                self.suspect,
            )
        lost = sum(one.lost for one in got)
        if lost:
            _log.warning("accounts_gone", deliveries=lost)
            self.runtime.tally.add("converge_failures_total", lost)
        going = [one for one in got if not one.lost]
        _hint(self.runtime, self.channel, self.lane, going, self.weighing.health)
        return got


def _parts(turn: Sequence[Flow], room: int) -> dict[Flow, int]:
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


def _room(runtime: Runtime, one: Weighed, weighing: Weighing) -> int:
    """How many deliveries may be out for an account: about two seconds of what it takes.

    Where others serve the channel, too, an account that does badly is given less.
    """
    name = one.candidate.name
    health = weighing.health[name]
    rate = runtime.rate_of(name)
    if rate is not None:
        room = max(1, round(rate * AHEAD_S))
    elif health.pace_per_s is None:
        room = UNMEASURED
    else:
        room = max(PARALLEL, round(health.pace_per_s * PARALLEL * AHEAD_S))
    if len(weighing.usable) > 1:
        room = max(1, round(room * one.fitness))
    return min(MOST_OUTSTANDING, room)


def _hint(
    runtime: Runtime,
    channel: Channel,
    lane: Urgency,
    released: Sequence[Released],
    health: Mapping[str, Health],
) -> None:
    """Publish hints after the commit, in batches by account.

    What has cost a worker goes in small company, what has cost several goes alone.
    """
    by_account: dict[str, list[int]] = defaultdict(list)
    wary: dict[str, list[int]] = defaultdict(list)
    hints: list[tuple[str, Sequence[int]]] = []
    for one in released:
        if one.losses >= ALONE_AFTER_LOSSES:
            hints.append((one.account, [one.id]))
        else:
            (wary if one.losses else by_account)[one.account].append(one.id)
    for name, ids in by_account.items():
        hints += batches(runtime, name, lane, health.get(name, Health()), ids)
    for name, ids in wary.items():
        hints += [(name, ids[at : at + WARY_BATCH]) for at in range(0, len(ids), WARY_BATCH)]
    if hints:
        runtime.hints.deliver(channel, lane, hints)
