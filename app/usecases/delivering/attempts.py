"""Attempts: what became of each try, and how it is told to those who watch.

Everything is told after the commit. In counts always; in the log where something went wrong; in a
trace where the intent came with one.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import structlog

from app.domain.outcome import Accepted, Ambiguous, Outcome, RateLimited, Rejected, Retryable
from app.store.deliveries import Claimed
from app.usecases.observing import IDS_TOLD
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

LINES = 10
"""Failures of one batch that have a line of the log each; at debug level every try has one."""

OUTCOMES: dict[type[Outcome], str] = {
    Accepted: "accepted",
    Retryable: "retryable",
    RateLimited: "rate_limited",
    Rejected: "rejected",
    Ambiguous: "ambiguous",
}
_WORDS = {
    "accepted": "sent",
    "retryable": "retry",
    "rate_limited": "limited",
    "rejected": "rejected",
    "ambiguous": "unknown",
}


class Tried(NamedTuple):
    """A claimed delivery and what became of the try; `outcome` None means it was not tried."""

    claimed: Claimed
    outcome: Outcome | None
    started_at: datetime
    finished_at: datetime
    wait_s: float = 0.0

    @property
    def word(self) -> str:
        """The outcome as the ledger has it; empty where there was no try."""
        return OUTCOMES[type(self.outcome)] if self.outcome is not None else ""

    @property
    def reason(self) -> str | None:
        """Why it was not accepted: a code, never a text of somebody's."""
        if self.outcome is None or isinstance(self.outcome, Accepted):
            return None
        return self.outcome.reason


def tell(runtime: Runtime, account: str, tried: Sequence[Tried]) -> dict[str, int]:
    """Tell of a batch; return the counts that its one line has: `{"sent": 180, "retry": 15}`."""
    words = Counter(one.word for one in tried)
    held = words.pop("", 0)
    for word, count in words.items():
        runtime.tally.add("converge_attempts_total", count, account=account, outcome=word)
    runtime.tally.add("converge_permits_denied_total", held, account=account)
    _log_each(account, tried)
    if runtime.tracing.on:
        _trace_each(runtime, account, tried)
    counts = {_WORDS[word]: count for word, count in words.items()}
    counts |= {"held": held} if held else {}
    sent = [one.claimed for one in islice(filter(_went_well, tried), IDS_TOLD)]
    _log.info(
        "delivered",
        account=account,
        delivery_ids=[one.id for one in sent],
        intent_ids=[str(one.intent_id) for one in sent],
        **counts,
    )
    return counts


def _went_well(one: Tried) -> bool:
    return isinstance(one.outcome, Accepted)


def _log_each(account: str, tried: Iterable[Tried]) -> None:
    # Asked once: a batch is hundreds of tries, and nearly all of them go well.
    all_of_them = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    lines = 0
    for one in tried:
        reason = one.reason
        if reason is None and not (all_of_them and one.outcome is not None):
            continue
        lines += 1
        if lines > LINES and not all_of_them:
            break
        say = _log.debug if reason is None else _log.info
        say(
            "attempt" if reason is None else "attempt_failed",
            account=account,
            delivery_id=one.claimed.id,
            intent_id=str(one.claimed.intent_id),
            outcome=one.word,
            reason=reason,
        )


def _trace_each(runtime: Runtime, account: str, tried: Iterable[Tried]) -> None:
    for one in tried:
        if one.claimed.trace is not None and one.outcome is not None:
            runtime.tracing.record(
                "converge.attempt",
                one.claimed.trace,
                one.started_at,
                one.finished_at,
                intent_id=str(one.claimed.intent_id),
                delivery_id=one.claimed.id,
                account=account,
                outcome=one.word,
            )
