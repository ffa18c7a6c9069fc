"""Inspect: what became of intents, and what waits; the same answers for the API and the CLI.

Everything here only reads. Answers are dicts of JSON's types plus aware `datetime` and `UUID`,
which orjson writes as strings. Addresses are masked; steps count from 1; times are UTC. Lists come
newest first, as `(rows, next_cursor)`: an opaque cursor goes on where a list ended; None: the end.
"""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.masking import masked
from app.domain.vocabulary import IntentState
from app.store import reports
from app.store.catalog import Brand, Catalog
from app.usecases.operating.backlog import COUNT_BOUND, queue_state, summary, told
from app.usecases.people.addresses import email_address, phone_number
from app.usecases.people.timelines import EVERYTHING, timeline_of
from app.usecases.runtime import Runtime
from app.usecases.telling.pages import (
    BadFilter,
    Rows,
    bounded,
    page_by_id,
    page_by_time,
    read_id,
    read_time,
)
from app.usecases.telling.shown import (
    catalog_of,
    customers_of,
    failed_row,
    head,
    mask,
    public,
    refusal,
    refused_intent,
    show,
    without,
)
from converge_producer import InvalidIntent
from converge_producer import intent_id as id_of

ENTRIES = 100
"""Entries of a customer's timeline that `why` tells, the latest."""
__all__ = [
    "COUNT_BOUND",
    "BadFilter",
    "by_task",
    "failed",
    "failed_one",
    "list_intents",
    "queue_state",
    "refused",
    "show_intent",
    "show_intents",
    "summary",
    "told",
    "why",
]


def show_intent(
    runtime: Runtime, intent_id: UUID, brand_id: int | None = None
) -> dict[str, Any] | None:
    """Everything about one intent, or None where there is none (of this brand).

    `{"id", "brand", "state", "reason", "key", "sender", "topic", "kind", "urgency", "campaign",
    "policy", "customer", "test", "accepted_at", "send_after", "expires_at", "ended_at", "seen_at",
    "seen_as", "seen_on", "deliveries", "events", "decisions", "refusals", "timeline", "next"}`
    deliveries: `{"id", "step", "channel", "address", "account", "state", "reason", "attempts",
    "created_at", "due_at", "handed_over_at", "provider_ref", "crossed", "choice"}`, choice (None
    where there was one account only), a list of: `{"account", "share", "weight", "cost_micros",
    "errors", "slow", "left" (why it was left out, or None)}`, attempts of it:
    `{"number", "account", "outcome", "reason", "ref", "started_at", "finished_at", "task",
    "worker"}`
    events: `{"at", "received_at", "delivery", "channel", "type", "reason", "source"}`
    decisions: `{"number", "at", "cause", "verdict", "until", "reason", "considered"}`, considered:
    `{"step", "channel", "why", "endpoint_id", "until", "told"}`
    timeline: `{"at", "what" (accepted, decided, attempt, event, ended, refused), "text"}`
    next: `{"at" (or None), "text"}`

    One that was refused: `{"id", "brand", "state": "refused", "field", "code", "reason", "key",
    "sender", "refused_at", "refusals", "timeline", "next"}`.
    """
    with runtime.engine.begin() as connection:
        shown = show(runtime, connection, reports.intents_by_id(connection, [intent_id]))
        if shown:
            fits = brand_id in (None, shown[0]["brand_id"])
            return public(shown[0]) if fits else None
        refusals = [
            one
            for one in reports.refusals_of(connection, [intent_id])
            if brand_id in (None, one["brand_id"])
        ]
    return refused_intent(intent_id, [refusal(one) for one in refusals]) if refusals else None


def show_intents(runtime: Runtime, ids: Collection[UUID]) -> list[dict[str, Any]]:
    """Many intents as `show_intent` has them, the newest first; unknown ids are left out."""
    with runtime.engine.begin() as connection:
        found = reports.intents_by_id(connection, ids)
        return [public(one) for one in show(runtime, connection, found)]


def list_intents(
    runtime: Runtime,
    brand_id: int,
    *,
    customer: str | None = None,
    sender: str | None = None,
    key: str | None = None,
    campaign: str | None = None,
    state: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    senders: Collection[str] | None = None,
    test: bool | None = None,
) -> Rows:
    """Intents of a brand that fit all filters; `senders` and `test` bound what a key may see.

    A row is `show_intent` without its lists. Raises `BadFilter`.
    """
    if state is not None and state not in list(IntentState):
        raise BadFilter("state", f"there are {', '.join(IntentState)}")
    limit = bounded(limit)
    with runtime.engine.begin() as connection:
        catalog = catalog_of(runtime, connection, [{"brand_id": brand_id}])
        brand = catalog.brands_by_id[brand_id]
        names = _senders(catalog, brand)
        wanted = set(names) if senders is None else set(names) & set(senders)
        if sender is not None:
            wanted &= {sender}
        found = reports.intents_of_brand(
            connection,
            brand_id,
            ids=None if key is None else _ids_of(catalog, brand, key),
            customer=customer,
            senders=None if len(wanted) == len(names) else [names[name] for name in wanted],
            campaign=campaign,
            state=state,
            test=test,
            before=read_time(cursor),
            limit=limit + 1,
        )
    return page_by_time([public(head(catalog, one)) for one in found], limit)


def why(
    runtime: Runtime,
    who: str,
    *,
    brand: str | None = None,
    key: str | None = None,
    since: datetime | None = None,
    limit: int = 20,
) -> dict[str, Any]:
    """Why somebody, named by ref or address, did or did not get what was meant for them.

    `{"who" (masked), "customers": [{"brand", "ref", "endpoints": [{"channel", "service",
    "address", "state", "reason"}], "timeline": [as customer_timeline; none where a key is asked
    for]}], "intents": [as show_intent], "refusals": [as refused], "more": bool}`.
    Raises `BadFilter` for an unknown brand.
    """
    catalog = runtime.catalog()
    if brand is not None and brand not in catalog.brands:
        raise BadFilter("brand", f"there are {', '.join(sorted(catalog.brands))}")
    brands = [catalog.brands[brand]] if brand else list(catalog.brands.values())
    brand_ids = [one.id for one in brands]
    addresses = _addresses(who, runtime.default_region)
    with runtime.engine.begin() as connection:
        named = reports.customers_named(connection, brand_ids, [who], addresses)
        customers = customers_of(catalog, named)
        more = False
        for customer_id, customer in customers.items():
            customer["timeline"] = []
            if key is None:
                customer["timeline"], after = timeline_of(
                    runtime, connection, customer_id, EVERYTHING, limit=ENTRIES, since=since
                )
                more |= after is not None
        heads: list[dict[str, Any]] = []
        for customer in customers.values():
            one = catalog.brands[customer["brand"]]
            heads += reports.intents_of_brand(
                connection,
                one.id,
                ids=None if key is None else _ids_of(catalog, one, key),
                customer=customer["ref"],
                since=since,
                limit=limit + 1,
            )
        heads.sort(key=lambda head: head["accepted_at"], reverse=True)
        intents = show(runtime, connection, heads[:limit])
        refs = {customer["ref"] for customer in customers.values()}
        refusals = reports.refusals_to(
            connection, brand_ids, {who, *addresses, *refs}, key=key, since=since, limit=limit
        )
    return {
        "who": masked(who) if _looks_like_address(who) and who not in refs else who,
        "customers": list(customers.values()),
        "intents": [public(one) for one in intents],
        "refusals": [refusal(one) for one in refusals],
        "more": more or len(heads) > limit,
    }


def failed(
    runtime: Runtime, brand_id: int | None = None, limit: int = 50, cursor: str | None = None
) -> Rows:
    """Dead letters: deliveries that failed for good.

    `{"id", "intent", "key", "brand", "sender", "customer", "step", "channel", "address",
    "account", "attempts" (count), "reason", "failed_at", "intent_state", "replayable"}`.
    """
    catalog = runtime.catalog()
    limit = bounded(limit)
    brand_ids = list(catalog.brands_by_id) if brand_id is None else [brand_id]
    with runtime.engine.begin() as connection:
        found = reports.failed_deliveries(connection, brand_ids, read_id(cursor), limit + 1)
    return page_by_id([failed_row(catalog, one) for one in found], limit)


def failed_one(runtime: Runtime, delivery_id: int) -> dict[str, Any] | None:
    """One failed delivery as in `failed`, with `tries`: its attempts as `show_intent` has them."""
    with runtime.engine.begin() as connection:
        found = reports.failed_delivery(connection, delivery_id)
        if found is None:
            return None
        attempts = reports.attempts_of(connection, [delivery_id])
    return {
        **failed_row(runtime.catalog(), found),
        "tries": [without(one, "delivery_id") for one in attempts],
    }


def refused(
    runtime: Runtime, brand_id: int | None = None, limit: int = 50, cursor: str | None = None
) -> Rows:
    """Refusals: `{"id", "brand", "sender", "key", "intent", "field", "code", "reason", "chunk",
    "line" (from 1), "refused_at"}`."""
    limit = bounded(limit)
    with runtime.engine.begin() as connection:
        found = reports.refusals(connection, brand_id, read_id(cursor), limit + 1)
    return page_by_id([refusal(one) for one in found], limit)


def by_task(runtime: Runtime, task_id: UUID) -> list[dict[str, Any]]:
    """The messages that a Celery task tried.

    `{"delivery", "intent", "key", "brand", "channel", "address", "account", "outcome", "reason",
    "state", "started_at", "finished_at", "worker"}`.
    """
    brands = runtime.catalog().brands_by_id
    with runtime.engine.begin() as connection:
        found = reports.attempts_of_task(connection, task_id)
    return [
        {
            **without(one, "brand_id"),
            "brand": brands[one["brand_id"]].name,
            "address": mask(one["address"]),
        }
        for one in found
    ]


def _senders(catalog: Catalog, brand: Brand) -> dict[str, int]:
    """Every sender that a brand has or had."""
    return {
        sender.name: sender.id
        for sender in catalog.senders_by_id.values()
        if sender.brand_id == brand.id
    }


def _ids_of(catalog: Catalog, brand: Brand, key: str) -> list[UUID]:
    """The ids that a key may have: one for each sender, and one where none was named."""
    return [
        id_of(brand.name, sender, key, test=test)
        for sender in (None, *_senders(catalog, brand))
        for test in (False, True)
    ]


def _addresses(who: str, region: str | None) -> set[str]:
    """The forms in which the ledger may keep what was typed as an address."""
    forms = {who, who.partition(":")[2]}
    with suppress(InvalidIntent):
        forms.add(email_address(who))
    with suppress(InvalidIntent):
        forms.add(phone_number(who, region))
    return forms - {""}


def _looks_like_address(who: str) -> bool:
    return "@" in who or who.lstrip("+").replace(" ", "").isdigit()
