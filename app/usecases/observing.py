"""What accept and decide tell those who watch, after the commit: counts, and spans of traces."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from app.usecases.runtime import Runtime

IDS_TOLD = 10
"""Ids that a line of the log has of one batch: enough to find a message by, and cheap."""


def first_ids(ids: Iterable[object]) -> list[str]:
    """The first ids of a batch, as a line of the log has them."""
    return [str(one) for one in islice(ids, IDS_TOLD)]


def observe_accepted(runtime: Runtime, counts: Mapping[str, int], codes: Mapping[str, int]) -> None:
    """Count verdicts, and the codes of refusals."""
    for status, count in counts.items():
        runtime.tally.add("converge_intents_total", count, verdict=status)
    for code, count in codes.items():
        runtime.tally.add("converge_refusals_total", count, code=code)


def observe_new(runtime: Runtime, trace: str, new: Iterable[UUID | None], began: datetime) -> None:
    """Begin the traces of intents that are new."""
    ended = datetime.now(UTC)
    for intent_id in new:
        runtime.tracing.record("converge.accept", trace, began, ended, intent_id=str(intent_id))


def observe_decided(
    runtime: Runtime,
    counts: Mapping[str, int],
    traced: Iterable[tuple[UUID, str | None, str]],
    began: datetime,
) -> None:
    """Count verdicts, and add them to traces: (intent, its `traceparent`, verdict)."""
    for verdict, count in counts.items():
        runtime.tally.add("converge_decisions_total", count, verdict=verdict)
    ended = datetime.now(UTC)
    for intent_id, trace, verdict in traced:
        runtime.tracing.record(
            "converge.decide", trace, began, ended, intent_id=str(intent_id), outcome=verdict
        )
