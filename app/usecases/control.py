"""Control: what operators and brands do to work on its way. Every change is audited."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.domain.vocabulary import Channel, IntentState
from app.store import audit, deliveries, intents, pauses
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)
CANCEL_BATCH = 1_000


class BadTarget(Exception):
    """What was named to be controlled does not exist; `field` says which part."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Target:
    """Work marked by all of the given: at least one of channel, account, sender, campaign."""

    brand: str | None = None
    channel: str | None = None
    account: str | None = None
    sender: str | None = None
    campaign: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and why: both are kept."""

    name: str
    reason: str


def pause(runtime: Runtime, target: Target, by: Operator) -> bool:
    """Hold all work that fits the target, until `resume`; say whether this is new."""
    marks = _marks(runtime, target)
    if not by.reason.strip():
        raise BadTarget("reason", "say why: it is kept and shown")
    with runtime.engine.begin() as connection:
        new = pauses.pause(connection, **marks, reason=by.reason, actor=by.name)
        if new:
            _audit(connection, "pause", target, by)
    return new


def resume(runtime: Runtime, target: Target, by: Operator) -> bool:
    """End the pause of exactly this target; say whether there was one."""
    marks = _marks(runtime, target)
    with runtime.engine.begin() as connection:
        ended = pauses.resume(connection, **marks)
        if ended:
            _audit(connection, "resume", target, by)
    return ended


def cancel(runtime: Runtime, target: Target, by: Operator) -> int:
    """End every open intent that fits a sender or campaign; return how many.

    What is being sent this moment cannot be recalled.
    """
    marks = _marks(runtime, target)
    if target.channel or target.account:
        raise BadTarget(
            "channel" if target.channel else "account",
            "intents are cancelled by sender or campaign; a channel or account can be paused",
        )
    if not by.reason.strip():
        raise BadTarget("reason", "say why: it is kept and shown")
    ended = 0
    while True:
        with runtime.engine.begin() as connection:
            ids = intents.open_intents_of(
                connection,
                brand_id=marks["brand_id"],
                sender_id=marks["sender_id"],
                campaign=marks["campaign"],
                limit=CANCEL_BATCH,
            )
            done = intents.end_intents(connection, ids, IntentState.CANCELLED, "cancelled")
            ended += len(done)
            if not ids:
                _audit(connection, "cancel", target, by, intents=ended)
                return ended


def cancel_intents(runtime: Runtime, ids: Collection[UUID], by: Operator) -> list[UUID]:
    """End those of the intents that are open; return them."""
    with runtime.engine.begin() as connection:
        done = intents.end_intents(connection, ids, IntentState.CANCELLED, "cancelled")
        if done:
            audit.note(
                connection,
                actor=by.name,
                action="cancel",
                subject={"intents": [str(key) for key in done]},
                reason=by.reason,
            )
    return done


def replay(runtime: Runtime, ids: Sequence[int], by: Operator) -> list[int]:
    """Plan failed deliveries again, where their intent has time left; return those planned.

    An intent that was exhausted because of them is open again.
    """
    with runtime.engine.begin() as connection:
        planned = deliveries.replay(connection, ids)
        if planned:
            audit.note(
                connection,
                actor=by.name,
                action="replay",
                subject={"deliveries": planned},
                reason=by.reason,
            )
    return planned


def _audit(connection: Connection, action: str, target: Target, by: Operator, **more: Any) -> None:
    subject = {name: value for name, value in asdict(target).items() if value is not None}
    audit.note(
        connection, actor=by.name, action=action, subject={**subject, **more}, reason=by.reason
    )
    _log.info("controlled", action=action, **subject, **more)


def _marks(runtime: Runtime, target: Target) -> dict[str, Any]:
    """The target as the ledger's columns; raise `BadTarget` for what does not exist."""
    if not (target.channel or target.account or target.sender or target.campaign):
        raise BadTarget("target", "name a channel, an account, a sender or a campaign")
    if target.channel is not None and target.channel not in list(Channel):
        raise BadTarget("channel", f"there are {', '.join(Channel)}")
    if target.account is not None and target.account not in runtime.accounts:
        raise BadTarget("account", f"there are {', '.join(sorted(runtime.accounts))}")
    runtime.catalog.forget()
    catalog = runtime.catalog()
    brand = catalog.brands.get(target.brand) if target.brand else None
    if target.brand and brand is None:
        raise BadTarget("brand", f"there are {', '.join(sorted(catalog.brands))}")
    sender_id = None
    if target.sender is not None:
        owners = [brand] if brand else list(catalog.brands.values())
        found = [one.senders[target.sender] for one in owners if target.sender in one.senders]
        if not found:
            raise BadTarget("sender", "no brand has a sender of this name")
        if len(found) > 1:
            raise BadTarget("brand", "several brands have a sender of this name: say which")
        sender_id = found[0].id
    return {
        "brand_id": brand.id if brand else None,
        "channel": target.channel,
        "account": target.account,
        "sender_id": sender_id,
        "campaign": target.campaign,
    }
