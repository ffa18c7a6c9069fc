"""Rows of reports as people may see them: names for ids, addresses masked, steps from 1."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app.domain.masking import masked
from app.domain.vocabulary import IntentState
from app.store import reports
from app.store.catalog import Catalog
from app.store.intents import ledger_now
from app.store.pauses import pauses_in_force
from app.usecases.runtime import Runtime
from app.usecases.telling.story import entries, refused_timeline, timeline, what_next

GONE = "(removed)"
"""Stands for the address of an endpoint that is no longer kept."""


def catalog_of(
    runtime: Runtime, connection: Connection, rows: Iterable[Mapping[str, Any]]
) -> Catalog:
    """The catalog, read anew where this process's copy is older than what the rows name."""
    catalog = runtime.catalog()
    for row in rows:
        if row["brand_id"] not in catalog.brands_by_id or (
            row.get("policy_id", 0) and row["policy_id"] not in catalog.policies_by_id
        ):
            return runtime.catalog.anew(connection)
    return catalog


def show(
    runtime: Runtime, connection: Connection, heads: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Intents with all that hangs on them, read in a few statements however many they are.

    `entries` and the ledger's own ids are for callers within; `public` takes them out.
    """
    catalog = catalog_of(runtime, connection, heads)
    shown = {one["id"]: head(catalog, one) for one in heads}
    if not shown:
        return []
    now, pauses = ledger_now(connection), pauses_in_force(connection)
    deliveries = [dict(one) for one in reports.deliveries_of(connection, shown)]
    tries = grouped(
        reports.attempts_of(connection, [one["id"] for one in deliveries]), "delivery_id"
    )
    for one in deliveries:
        one["step"] += 1
        one["address"] = mask(one["address"])
        one["attempts"] = tries[one["id"]]
    by_intent = grouped(deliveries, "intent_id")
    events = grouped(reports.events_of(connection, shown), "intent_id")
    decisions = grouped(reports.decisions_of(connection, shown), "intent_id")
    refusals = reports.refusals_of(connection, shown)
    for key, intent in shown.items():
        intent["deliveries"] = by_intent[key]
        intent["events"] = events[key]
        intent["decisions"] = [
            {**one, "considered": [considered(each) for each in one["considered"]]}
            for one in decisions[key]
        ]
        intent["refusals"] = [refusal(one) for one in refusals if one["intent"] == key]
        _tell_seen(intent)
        policy = catalog.policies_by_id.get(intent["policy_id"])
        intent["entries"] = entries(intent, policy)
        intent["timeline"] = timeline(intent["entries"])
        intent["next"] = what_next(intent, policy, pauses, now)
    return list(shown.values())


def head(catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    """An intent's own row, with names for ids; `public` takes the ids out."""
    sender = catalog.senders_by_id.get(row["sender_id"])
    policy = catalog.policies_by_id.get(row["policy_id"])
    return {
        **row,
        "brand": catalog.brands_by_id[row["brand_id"]].name,
        "sender": sender.name if sender else None,
        "topic": catalog.topics_by_id.get(row["topic_id"]),
        "policy": policy.name if policy else None,
        "customer": row["ref"],
        "campaign": row["campaign"] or None,
        "reason": row["reason"] or None,
    }


_INNER = frozenset(
    {
        "brand_id",
        "sender_id",
        "topic_id",
        "policy_id",
        "ref",
        "decide_at",
        "seen_delivery_id",
        "entries",
    }
)


def public(intent: Mapping[str, Any]) -> dict[str, Any]:
    """Take out what only the ledger knows."""
    shown = without(intent, *_INNER)
    if "events" in shown:
        shown["events"] = [without(one, "id") for one in shown["events"]]
    return shown


def _tell_seen(intent: dict[str, Any]) -> None:
    """When and where it was seen: by the first event that says so."""
    mine = [one for one in intent["deliveries"] if one["id"] == intent["seen_delivery_id"]]
    times = [
        one["at"]
        for one in intent["events"]
        if one["delivery"] == intent["seen_delivery_id"] and one["type"] == intent["seen_as"]
    ]
    seen = intent["state"] == IntentState.SEEN
    intent["seen_on"] = mine[0]["channel"] if mine else None
    intent["seen_at"] = (min(times) if times else intent["ended_at"]) if seen else None


def refused_intent(intent_id: UUID, refusals: list[dict[str, Any]]) -> dict[str, Any]:
    """What is shown of an intent that was never taken."""
    last = refusals[0]
    return {
        "id": intent_id,
        "state": "refused",
        **{
            name: last[name]
            for name in ("brand", "field", "code", "reason", "key", "sender", "refused_at")
        },
        "refusals": refusals,
        "timeline": refused_timeline(refusals),
        "next": {"at": None, "text": "Nothing: it was refused. Mend it and enqueue it again."},
    }


def considered(one: Sequence[Any]) -> dict[str, Any]:
    """One channel that was weighed, from the form in which decisions keep it."""
    step, channel, reason, endpoint_id, *bar = one
    until, told = bar or (None, None)
    if isinstance(until, str):
        until = datetime.fromisoformat(until)
    return {
        "step": step + 1,
        "channel": channel,
        "why": reason,
        "endpoint_id": endpoint_id,
        "until": until,
        "told": told,
    }


def refusal(row: Mapping[str, Any]) -> dict[str, Any]:
    """One refusal."""
    return without(row, "brand_id")


def failed_row(catalog: Catalog, row: Mapping[str, Any]) -> dict[str, Any]:
    """One failed delivery."""
    sender = catalog.senders_by_id.get(row["sender_id"])
    return {
        **without(row, "brand_id", "sender_id"),
        "brand": catalog.brands_by_id[row["brand_id"]].name,
        "sender": sender.name if sender else None,
        "step": row["step"] + 1,
        "address": mask(row["address"]),
    }


def customers_of(catalog: Catalog, rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Customers with their endpoints by the ledger's id, from a row for each endpoint."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        brand = catalog.brands_by_id[row["brand_id"]].name
        one = found.setdefault(row["id"], {"brand": brand, "ref": row["ref"], "endpoints": []})
        if row["address"] is not None:
            one["endpoints"].append(
                {
                    "channel": row["channel"],
                    "service": row["service"],
                    "address": masked(row["address"]),
                    "state": row["state"],
                    "reason": row["reason"],
                }
            )
    return found


def mask(address: str | None) -> str:
    """An address as it may be shown."""
    return GONE if address is None else masked(address)


def grouped(rows: Iterable[Mapping[str, Any]], by: str) -> dict[Any, list[dict[str, Any]]]:
    """Rows by one of their columns, without it; nothing where there are none."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[by]].append(without(row, by))
    return groups


def without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A row without some of its columns."""
    return {name: value for name, value in row.items() if name not in names}
