"""Backlog and totals: what waits where, and what became of all of a brand's intents."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.pause import Pause
from app.domain.vocabulary import Channel, Urgency
from app.store import backlog
from app.store.backlog import Waiting
from app.store.catalog import Catalog
from app.store.intents import ledger_now
from app.store.lanes import outstanding
from app.usecases.runtime import Runtime

COUNT_BOUND = 10_000
"""Counts of work stop here: one that equals it means "at least"."""
FLOWS_BOUND = 5_000


def told(count: int) -> str:
    """A bounded count in words: ">= 10000" where counting stopped."""
    return f">= {COUNT_BOUND}" if count >= COUNT_BOUND else str(count)


def queue_state(runtime: Runtime) -> dict[str, Any]:
    """What waits, by channel and lane; every count stops at `COUNT_BOUND` (see `told`).

    `{"lanes": [{"channel", "lane", "due", "held", "held_why": [str], "oldest_due_s" (or None),
    "hinted", "sending"}], "intents_due", "inbox_waiting", "pauses": [{"channel", "account",
    "sender", "campaign", "brand", "reason", "actor", "started_at"}], "accounts": [{"name",
    "channel", "sandbox", "state" (ready, paused, resting), "until"}]}`; lanes with nothing in them
    are left out.
    """
    catalog = runtime.catalog()
    with runtime.engine.begin() as connection:
        now = ledger_now(connection)
        pauses = backlog.told_pauses(connection)
        held, free = _split(runtime, backlog.flows(connection, FLOWS_BOUND), pauses)
        out = outstanding(connection, list(runtime.accounts), COUNT_BOUND)
        sending = backlog.sending(connection, runtime.timing.lease, COUNT_BOUND)
        lanes = []
        for channel in Channel:
            hinted = _hinted(runtime, channel, out)
            for lane in Urgency:
                here = channel, lane
                row = _lane(connection, now, free[here], held[here])
                row["hinted"] = min(hinted[lane], COUNT_BOUND)
                row["sending"] = sending.get(here, 0)
                if row["due"] or row["held"] or row["hinted"] or row["sending"]:
                    lanes.append({"channel": channel.value, "lane": lane.value, **row})
        intents_due, inbox_waiting = backlog.due_elsewhere(connection, COUNT_BOUND)
    return {
        "lanes": lanes,
        "intents_due": intents_due,
        "inbox_waiting": inbox_waiting,
        "pauses": [_pause(catalog, one) for one in pauses],
        "accounts": _accounts(runtime, pauses, now),
    }


def summary(runtime: Runtime, brand_id: int, since: datetime | None = None) -> dict[str, Any]:
    """What became of a brand's intents accepted since a time; it reads all of them.

    `{"intents", "states": {state: n}, "reached", "channels": [{"channel", "deliveries", "sent",
    "reached"}], "escalated", "time_to_seen_s": {"p50", "p90", "p99"} (None when nothing was
    seen), "attempts": {outcome: n}, "retries", "rate_limited" (tries that a provider put off),
    "held_by_limit" (deliveries that wait for a permit now), "crossed", "failed", "refused"}`.
    """
    with runtime.engine.begin() as connection:
        found = backlog.totals(connection, brand_id, since)
    states = found["states"] or {}
    attempts = found["attempts"] or {}
    p50, p90, p99 = found.pop("waited") or (None, None, None)
    return {
        **found,
        "states": states,
        "reached": states.get("seen", 0),
        "channels": found["channels"] or [],
        "time_to_seen_s": {"p50": p50, "p90": p90, "p99": p99},
        "attempts": attempts,
        "rate_limited": attempts.get("rate_limited", 0),
    }


Lane = tuple[Channel, Urgency]
Held = dict[str, list[Waiting]]


def _split(
    runtime: Runtime, flows: Sequence[Waiting], pauses: Sequence[Mapping[str, Any]]
) -> tuple[dict[Lane, Held], dict[Lane, list[Waiting]]]:
    """Tell flows that a pause holds (by its reason) from those that may go."""
    held: dict[Lane, Held] = defaultdict(lambda: defaultdict(list))
    free: dict[Lane, list[Waiting]] = defaultdict(list)
    for flow in flows:
        lane = Channel(flow.channel), Urgency(flow.lane)
        reason = _held_by(runtime, flow, pauses)
        if reason is None:
            free[lane].append(flow)
        else:
            held[lane][reason].append(flow)
    return held, free


def _held_by(runtime: Runtime, flow: Waiting, pauses: Sequence[Mapping[str, Any]]) -> str | None:
    accounts = {one.name for one in runtime.accounts_for(flow.channel, test=flow.test)}
    reasons = []
    for row in pauses:
        fits = Pause(
            started_at=row["started_at"],
            brand_id=row["brand_id"],
            channel=row["channel"],
            sender_id=row["sender_id"],
            campaign=row["campaign"],
        ).fits(
            brand_id=flow.brand_id,
            channel=flow.channel,
            sender_id=flow.sender_id,
            campaign=flow.campaign,
        )
        if fits and row["account"] is None:
            return str(row["reason"])
        if fits and row["account"] in accounts:
            accounts.discard(row["account"])
            reasons.append(str(row["reason"]))
    # A paused account holds work only where no other account of the channel is left.
    return reasons[0] if reasons and not accounts else None


def _lane(
    connection: Connection, now: datetime, free: Sequence[Waiting], held: Held
) -> dict[str, Any]:
    due, since = backlog.due_in(connection, free, COUNT_BOUND) if free else (0, None)
    counts = [backlog.due_in(connection, flows, COUNT_BOUND)[0] for flows in held.values()]
    return {
        "due": due,
        "held": min(sum(counts), COUNT_BOUND),
        "held_why": [reason for reason, n in zip(held, counts, strict=True) if n],
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


def _pause(catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    brand = catalog.brands_by_id.get(row["brand_id"])
    sender = catalog.senders_by_id.get(row["sender_id"])
    return {
        **{name: row[name] for name in ("channel", "account", "campaign", "reason", "actor")},
        "brand": brand.name if brand else None,
        "sender": sender.name if sender else None,
        "started_at": row["started_at"],
    }


def _accounts(
    runtime: Runtime, pauses: Sequence[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    health = runtime.health.health(runtime.accounts, now)
    paused = {row["account"] for row in pauses if row["account"]}
    told_accounts = []
    for account in runtime.accounts.values():
        until = health[account.name].open_until
        state = "paused" if account.name in paused else "ready" if until is None else "resting"
        told_accounts.append(
            {
                "name": account.name,
                "channel": account.channel.value,
                "sandbox": account.sandbox,
                "state": state,
                "until": until,
            }
        )
    return told_accounts
