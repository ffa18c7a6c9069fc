"""Consent: what customers allow and forbid is written down, and takes effect at once.

Every way to say yes or no ends here, whatever it came in by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection

from app.domain.consent import Scope
from app.store import consents

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one customer says. `source` is the way that it came in by (one of `vocabulary.Source`);
    `own` is false where only the brand says so.

    `fact` names the event behind it, so that its repeat says nothing new; `evidence` may name the
    message that it answers. Neither holds an address or a text.
    """

    customer_id: int
    scope: Scope
    allow: bool
    source: str
    own: bool = True
    until: datetime | None = None
    actor: str = ""
    evidence: str = ""
    fact: str | None = None


def say(connection: Connection, brand_id: int, statements: Sequence[Statement]) -> list[int]:
    """Write statements down within a transaction; return the customers of whom one was new.

    After a no, what is queued for these customers is released and checked anew, so that no claim
    beside it passes it by; their open intents are decided again, so that what a yes lets go does
    not wait.
    """
    rows = [_row(one) for one in statements]
    if not rows:
        return []
    new = consents.add_consents(connection, brand_id, rows)
    if new:
        said_no = any(not one.allow for one in statements)
        consents.look_again(connection, new, allowed_less=said_no)
        _log.info(
            "consents_added", customers=len(new), sources=sorted({s.source for s in statements})
        )
    return new


def _row(one: Statement) -> dict[str, Any]:
    scope = one.scope
    return {
        "customer_id": one.customer_id,
        "endpoint_id": scope.endpoint_id,
        "channel": scope.channel,
        "sender_id": scope.sender_id,
        "topic_id": scope.topic_id,
        "kind": scope.kind,
        "allow": one.allow,
        "until": one.until,
        "own": one.own,
        "source": one.source,
        "actor": one.actor,
        "evidence": one.evidence,
        "fact": one.fact,
    }
