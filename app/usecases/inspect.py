"""Inspect: what became of intents, and what waits; the same answers for the API and the CLI.

Everything here only reads. Answers are dicts of JSON's types plus aware `datetime` and `UUID`,
which orjson writes as strings. Addresses are masked; steps count from 1; times are UTC. Lists come
newest first, as `(rows, next_cursor)`: an opaque cursor goes on where a list ended, None is the end.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from app.usecases.runtime import Runtime

Rows = tuple[list[dict[str, Any]], str | None]

COUNT_BOUND = 10_000
"""Counts of work stop here: one that equals it means "at least"."""


class BadFilter(Exception):
    """A filter or cursor cannot be used; `field` says which, `reason` what it may be."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def told(count: int) -> str:
    """A bounded count in words: ">= 10000" where counting stopped."""
    return f">= {COUNT_BOUND}" if count >= COUNT_BOUND else str(count)


def show_intent(
    runtime: Runtime, intent_id: UUID, brand_id: int | None = None
) -> dict[str, Any] | None:
    """Everything about one intent, or None where there is none (of this brand).

    `{"id", "brand", "state", "reason", "key", "sender", "topic", "kind", "urgency", "campaign",
    "policy", "customer", "test", "accepted_at", "send_after", "expires_at", "ended_at", "seen_at",
    "seen_as", "seen_on", "deliveries", "events", "decisions", "refusals", "timeline", "next"}`
    deliveries: `{"id", "step", "channel", "address", "account", "state", "reason", "attempts",
    "created_at", "due_at", "handed_over_at", "provider_ref", "crossed"}`, attempts of it:
    `{"number", "account", "outcome", "reason", "ref", "started_at", "finished_at", "task",
    "worker"}`
    events: `{"at", "received_at", "delivery", "channel", "type", "reason", "source"}`
    decisions: `{"number", "at", "cause", "verdict", "until", "reason", "considered"}`, considered:
    `{"step", "channel", "why", "endpoint_id"}`
    timeline: `{"at", "what" (accepted, decided, attempt, event, ended, refused), "text"}`
    next: `{"at" (or None), "text"}`

    One that was refused: `{"id", "brand", "state": "refused", "field", "code", "reason", "key",
    "sender", "refused_at", "refusals", "timeline", "next"}`.
    """
    raise NotImplementedError


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
    raise NotImplementedError


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
    "address", "state", "reason"}]}], "intents": [as show_intent], "refusals": [as refused],
    "more": bool}`. Raises `BadFilter` for an unknown brand.
    """
    raise NotImplementedError


def queue_state(runtime: Runtime) -> dict[str, Any]:
    """What waits, by channel and lane; every count stops at `COUNT_BOUND` (see `told`).

    `{"lanes": [{"channel", "lane", "due", "held", "held_why": [str], "oldest_due_s" (or None),
    "hinted", "sending"}], "intents_due", "inbox_waiting", "pauses": [{"channel", "account",
    "sender", "campaign", "brand", "reason", "actor", "started_at"}], "accounts": [{"name",
    "channel", "sandbox", "state" (ready, paused, resting), "until"}]}`; lanes with nothing in them
    are left out.
    """
    raise NotImplementedError


def failed(
    runtime: Runtime, brand_id: int | None = None, limit: int = 50, cursor: str | None = None
) -> Rows:
    """Dead letters: deliveries that failed for good.

    `{"id", "intent", "key", "brand", "sender", "customer", "step", "channel", "address",
    "account", "attempts" (count), "reason", "failed_at", "intent_state", "replayable"}`.
    """
    raise NotImplementedError


def failed_one(runtime: Runtime, delivery_id: int) -> dict[str, Any] | None:
    """One failed delivery as in `failed`, with `tries`: its attempts as `show_intent` has them."""
    raise NotImplementedError


def refused(
    runtime: Runtime, brand_id: int | None = None, limit: int = 50, cursor: str | None = None
) -> Rows:
    """Refusals: `{"id", "brand", "sender", "key", "intent", "field", "code", "reason", "chunk",
    "line" (from 1), "refused_at"}`."""
    raise NotImplementedError


def by_task(runtime: Runtime, task_id: UUID) -> list[dict[str, Any]]:
    """The messages that a Celery task tried.

    `{"delivery", "intent", "key", "brand", "channel", "address", "account", "outcome", "reason",
    "state", "started_at", "finished_at", "worker"}`.
    """
    raise NotImplementedError


def summary(runtime: Runtime, brand_id: int, since: datetime | None = None) -> dict[str, Any]:
    """What became of a brand's intents accepted since a time; it reads all of them.

    `{"intents", "states": {state: n}, "reached", "channels": [{"channel", "deliveries", "sent",
    "reached"}], "escalated", "time_to_seen_s": {"p50", "p90", "p99"} (None when nothing was
    seen), "attempts": {outcome: n}, "retries", "rate_limited" (tries that a provider put off),
    "held_by_limit" (deliveries that wait for a permit now), "crossed", "failed", "refused"}`.
    """
    raise NotImplementedError
