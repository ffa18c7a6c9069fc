"""Backlog and totals: what waits where, and what became of all of a brand's intents."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.pause import Pause
from app.domain.vocabulary import Channel, Urgency
from app.store import backlog
from app.store.backlog import Waiting
from app.store.catalog import Catalog
from app.store.fleet import Present, present
from app.store.gauges import leftovers
from app.store.intents import ledger_now
from app.store.lanes import outstanding
from app.store.limits import SetLimit, told_limits
from app.usecases.delivering.accounts import holds
from app.usecases.operating.fleet import PRESENT_S
from app.usecases.runtime import Runtime
from converge_producer.queues import QUEUES, lane_queue

COUNT_BOUND = 10_000
"""Counts of work stop here: one that equals it means "at least"."""


def told(count: int) -> str:
    """A bounded count in words: ">= 10000" where counting stopped."""
    return f">= {COUNT_BOUND}" if count >= COUNT_BOUND else str(count)


def queue_state(runtime: Runtime) -> dict[str, Any]:
    """What waits, by channel and lane; every count stops at `COUNT_BOUND` (see `told`).

    `{"lanes": [{"channel", "lane", "queue", "due", "held", "held_why": [str], "oldest_due_s" (or
    None), "hinted", "sending", "consumers"}], "intents_due", "inbox_waiting", "inbox_unreadable",
    "broker": {queue: messages in it, and in `dead`} (None: it is away),
    "consumers": {queue: processes that take from it now}, "workers": [{"name", "queues", "state"
    (running, draining, drained), "release", "started_at", "seen_at", "drain_asked_at"}], "pauses":
    [{"channel", "account", "sender", "campaign", "brand", "reason", "actor", "started_at"}],
    "accounts": [{"name", "channel", "sandbox", "state" (ready, paused, resting), "until",
    "limit_per_s" (None: no limit), "limit_set": None or {"until", "reason", "actor"}}]}`; lanes
    with nothing in them are left out.
    """
    catalog = runtime.catalog()
    in_broker = runtime.hints.depths()
    with runtime.engine.begin() as connection:
        now = ledger_now(connection)
        workers = present(connection, PRESENT_S)
        consumers = _consumers(workers)
        limits = {one.account: one for one in told_limits(connection)}
        pauses = backlog.told_pauses(connection)
        lanes = _lanes(runtime, connection, now, pauses, consumers)
        intents_due, inbox_waiting = backlog.due_elsewhere(connection, COUNT_BOUND)
        unreadable = leftovers(connection, COUNT_BOUND).unreadable
    return {
        "lanes": lanes,
        "intents_due": intents_due,
        "inbox_waiting": inbox_waiting,
        "inbox_unreadable": unreadable,
        "broker": in_broker,
        "consumers": dict(consumers),
        "workers": [_worker(one) for one in workers if one.queues],
        "pauses": [_pause(catalog, one) for one in pauses],
        "accounts": _accounts(runtime, pauses, limits, now),
    }


def summary(runtime: Runtime, brand_id: int, since: datetime | None = None) -> dict[str, Any]:
    """What became of a brand's intents accepted since a time; it reads all of them.

    `{"intents", "states": {state: n}, "reached", "channels": [{"channel", "deliveries", "sent",
    "reached"}], "escalated", "time_to_seen_s": {"p50", "p90", "p99"} (None when nothing was
    seen), "attempts": {outcome: n}, "retries", "rate_limited" (tries that a provider put off),
    "held_by_limit" (deliveries that wait for a permit now), "crossed", "failed", "refused"}`.
    `reached` counts what people saw: a policy may call it seen when it has but arrived.
    """
    with runtime.engine.begin() as connection:
        found = backlog.totals(connection, brand_id, since)
    states = found["states"] or {}
    attempts = found["attempts"] or {}
    p50, p90, p99 = found.pop("waited") or (None, None, None)
    return {
        **found,
        "states": states,
        "channels": found["channels"] or [],
        "time_to_seen_s": {"p50": p50, "p90": p90, "p99": p99},
        "attempts": attempts,
        "rate_limited": attempts.get("rate_limited", 0),
    }


Lane = tuple[Channel, Urgency]
Held = dict[str, list[Waiting]]
Free = dict[Waiting, Mapping[str, str]]
"""Flows that may go, each with its accounts that are paused, and why."""


def _lanes(
    runtime: Runtime,
    connection: Connection,
    now: datetime,
    pauses: Sequence[Mapping[str, Any]],
    consumers: Mapping[str, int],
) -> list[dict[str, Any]]:
    held, free = _split(runtime, backlog.flows(connection, backlog.FLOWS_BOUND), pauses)
    out = outstanding(connection, list(runtime.accounts), COUNT_BOUND)
    hinted_since = backlog.hinted_since(
        connection, list(runtime.accounts), runtime.timing.hint_lost, COUNT_BOUND
    )
    sending = backlog.sending(connection, runtime.timing.lease, COUNT_BOUND)
    rows = []
    for channel in Channel:
        hinted = _hinted(runtime, channel, out)
        since = _oldest(runtime, channel, hinted_since)
        for lane in Urgency:
            here = channel, lane
            row = _lane(connection, now, free[here], held[here], since.get(lane))
            row["hinted"] = min(hinted[lane], COUNT_BOUND)
            row["sending"] = sending.get(here, 0)
            if row["due"] or row["held"] or row["hinted"] or row["sending"]:
                queue = lane_queue(channel, lane)
                named = {"channel": channel.value, "lane": lane.value, "queue": queue}
                rows.append({**named, **row, "consumers": consumers[queue]})
    return rows


def _split(
    runtime: Runtime, flows: Sequence[Waiting], pauses: Sequence[Mapping[str, Any]]
) -> tuple[dict[Lane, Held], dict[Lane, Free]]:
    """Tell flows that a pause holds (by its reason) from those that may go."""
    held: dict[Lane, Held] = defaultdict(lambda: defaultdict(list))
    free: dict[Lane, Free] = defaultdict(dict)
    for flow in flows:
        lane = Channel(flow.channel), Urgency(flow.lane)
        reason, paused = _held_by(runtime, flow, pauses)
        if reason is None:
            free[lane][flow] = paused
        else:
            held[lane][reason].append(flow)
    return held, free


def _held_by(
    runtime: Runtime, flow: Waiting, pauses: Sequence[Mapping[str, Any]]
) -> tuple[str | None, Mapping[str, str]]:
    """Why a flow is held, if it is, and its accounts that are paused."""
    accounts = {one.name for one in runtime.accounts_for(flow.channel, test=flow.test)}
    paused: dict[str, str] = {}
    for row in pauses:
        fits = replace(_as_pause(row), account=None).fits(
            brand_id=flow.brand_id,
            channel=flow.channel,
            sender_id=flow.sender_id,
            campaign=flow.campaign,
        )
        if fits and row["account"] is None:
            return str(row["reason"]), {}
        if fits and row["account"] in accounts:
            paused.setdefault(row["account"], str(row["reason"]))
    # Where another account is left, a paused one holds only what it may have taken already.
    all_of_them = bool(paused) and paused.keys() == accounts
    return (next(iter(paused.values())) if all_of_them else None), paused


def _as_pause(row: Mapping[str, Any]) -> Pause:
    names = ("started_at", "brand_id", "channel", "account", "sender_id", "campaign")
    return Pause(**{name: row[name] for name in names})


def _lane(
    connection: Connection,
    now: datetime,
    free: Free,
    held: Held,
    hinted_since: datetime | None,
) -> dict[str, Any]:
    plain = [flow for flow, paused in free.items() if not paused]
    beside = {flow: paused for flow, paused in free.items() if paused}
    due, since = backlog.due_in(connection, plain, COUNT_BOUND) if plain else (0, None)
    counts = Counter(
        {why: backlog.due_in(connection, flows, COUNT_BOUND)[0] for why, flows in held.items()}
    )
    found = [since, hinted_since]
    if beside:
        told = backlog.due_beside(connection, beside, COUNT_BOUND)
        why = {account: reason for paused in beside.values() for account, reason in paused.items()}
        for account, count in told.held.items():
            counts[why[account]] += count
        due += told.due
        found.append(told.since)
    since = min((at for at in found if at is not None), default=None)
    return {
        "due": min(due, COUNT_BOUND),
        "held": min(counts.total(), COUNT_BOUND),
        "held_why": [reason for reason, n in counts.items() if n],
        "oldest_due_s": None if since is None else max(0.0, (now - since).total_seconds()),
    }


def _hinted(
    runtime: Runtime, channel: Channel, out: Mapping[tuple[str, str], int]
) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for (account, lane), waiting in out.items():
        if runtime.accounts[account].channel == channel:
            counts[lane] += waiting
    return counts


def _oldest(
    runtime: Runtime, channel: Channel, since: Mapping[tuple[str, str], datetime]
) -> dict[str, datetime]:
    oldest: dict[str, datetime] = {}
    for (account, lane), at in since.items():
        if runtime.accounts[account].channel == channel:
            oldest[lane] = min(at, oldest.get(lane, at))
    return oldest


def _pause(catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    brand = catalog.brands_by_id.get(row["brand_id"])
    sender = catalog.senders_by_id.get(row["sender_id"])
    return {
        **{name: row[name] for name in ("channel", "account", "campaign", "reason", "actor")},
        "brand": brand.name if brand else None,
        "sender": sender.name if sender else None,
        "started_at": row["started_at"],
    }


def _consumers(workers: Sequence[Present]) -> Counter[str]:
    """How many processes take new work from each queue."""
    found = Counter(dict.fromkeys(QUEUES, 0))
    found.update(queue for one in workers if one.consumes for queue in one.queues)
    return found


def _worker(one: Present) -> dict[str, Any]:
    names = ("name", "queues", "state", "release", "started_at", "seen_at", "drain_asked_at")
    return {name: getattr(one, name) for name in names}


def _accounts(
    runtime: Runtime,
    pauses: Sequence[Mapping[str, Any]],
    limits: Mapping[str, SetLimit],
    now: datetime,
) -> list[dict[str, Any]]:
    health = runtime.health.health(runtime.accounts, now)
    paused = {
        account.name
        for account in runtime.accounts.values()
        if any(holds(_as_pause(row), account) for row in pauses)
    }
    told_accounts = []
    for account in runtime.accounts.values():
        until = health[account.name].open_until
        state = "paused" if account.name in paused else "ready" if until is None else "resting"
        found = limits.get(account.name)
        told_accounts.append(
            {
                "name": account.name,
                "channel": account.channel.value,
                "sandbox": account.sandbox,
                "state": state,
                "until": until,
                "limit_per_s": found.per_second if found else account.rate,
                "limit_set": found and {n: getattr(found, n) for n in ("until", "reason", "actor")},
            }
        )
    return told_accounts
