"""Control: what operators and brands do to work on its way. Every change is audited."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.channels.registry import Account
from app.domain.pause import Pause
from app.domain.vocabulary import Channel, IntentState
from app.store import audit, backlog, cancelling, deliveries, intents, pauses
from app.usecases.consent.voices import Named, find
from app.usecases.errors import FieldError
from app.usecases.giving_way import again_if_undone
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)
CANCEL_BATCH = 1_000


class BadTarget(FieldError):
    """What was named to be controlled does not exist; `field` says which part."""


@dataclass(frozen=True, slots=True)
class Target:
    """Work marked by all of the given: at least one of channel, account, sender, campaign."""

    brand: str | None = None
    channel: str | None = None
    account: str | None = None
    sender: str | None = None
    campaign: str | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """Whether anything waits to be sent `here`, and which `campaigns` have something to send."""

    here: bool
    campaigns: Sequence[str]


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


def waits(runtime: Runtime, target: Target) -> Waits:
    """Say whether work waits now that a target names, and which campaigns have some."""
    marks = _marks(runtime, target)
    account = marks.pop("account")
    named = Pause(started_at=datetime.min.replace(tzinfo=UTC), **marks)
    with runtime.engine.begin() as connection:
        flows = backlog.flows(connection, backlog.FLOWS_BOUND)
        if account is not None:
            of = runtime.accounts[account]
            flows = [one for one in flows if of in runtime.accounts_for(one.channel, test=one.test)]
        flows += backlog.hinted_flows(connection, account, backlog.FLOWS_BOUND)
    return Waits(
        here=any(
            named.fits(
                brand_id=one.brand_id,
                channel=one.channel,
                sender_id=one.sender_id,
                campaign=one.campaign,
            )
            for one in flows
        ),
        campaigns=sorted({one.campaign for one in flows if one.campaign}),
    )


def cancel(
    runtime: Runtime,
    target: Target,
    by: Operator,
    so_far: Callable[[int], object] = lambda _: None,
) -> int:
    """End every open intent that fits the target; return how many. `so_far` is told meanwhile.

    By sender or campaign that is all that is open; by channel or account what has a delivery
    waiting there. For an account that is its channel's only one that is all that waits there; see
    `unassigned` for others. What is being sent this moment cannot be recalled, and what is accepted
    meanwhile stays. Each batch is its own transaction: what is interrupted may be done again.
    Until all is ended a pause holds it. One that a killed process left behind stays in force, and
    ends when the same is cancelled again.
    """
    marks = _marks(runtime, target)
    if not by.reason.strip():
        raise BadTarget("reason", "say why: it is kept and shown")
    held = {**marks, "reason": pauses.CANCELLING + by.reason, "actor": by.name}
    with runtime.engine.begin() as connection:
        _audit(connection, "cancel", target, by)
        pauses.pause(connection, **held)
    try:
        ended = _end_all(runtime, marks, so_far)
    finally:
        with runtime.engine.begin() as connection:
            pauses.resume(connection, **marks, begins=pauses.CANCELLING)
    with runtime.engine.begin() as connection:
        _audit(connection, "cancelled", target, by, intents=ended)
    return ended


def _end_all(runtime: Runtime, marks: Mapping[str, Any], so_far: Callable[[int], object]) -> int:
    ended = 0
    with runtime.engine.connect() as walk:
        for ids in cancelling.intents_to_end(walk, CANCEL_BATCH, **_walked(runtime, marks)):
            ended += _end(runtime, ids)
            so_far(ended)
    return ended


@again_if_undone
def _end(runtime: Runtime, ids: Sequence[UUID]) -> int:
    with runtime.engine.begin() as connection:
        return len(intents.end_intents(connection, ids, IntentState.CANCELLED, "cancelled"))


def unassigned(runtime: Runtime, target: Target, limit: int) -> int:
    """How many deliveries wait for whichever of several accounts is free first, of which the
    target's is one; `limit` at most. What its account alone can take is its own, and not counted.
    """
    marks = _marks(runtime, target)
    account = runtime.accounts[marks.pop("account")]
    _, tests = _alone_and_among(runtime, account)
    marks["channel"] = account.channel.value
    with runtime.engine.begin() as connection:
        return cancelling.count_unassigned(connection, limit, **marks, tests=tests)


@again_if_undone
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


def changes(
    runtime: Runtime, *, since: datetime | None, limit: int, customer: Named | None = None
) -> list[audit.Change]:
    """Who changed what (of one customer), the newest first; raises `NoSuchCustomer`."""
    with runtime.engine.begin() as connection:
        key = None if customer is None else find(connection, customer).id
        return audit.changes_since(connection, since, limit, customer_id=key)


def _audit(connection: Connection, action: str, target: Target, by: Operator, **more: Any) -> None:
    subject = {name: value for name, value in asdict(target).items() if value is not None}
    audit.note(
        connection, actor=by.name, action=action, subject={**subject, **more}, reason=by.reason
    )
    _log.info("controlled", action=action, **subject, **more)


def _walked(runtime: Runtime, marks: Mapping[str, Any]) -> dict[str, Any]:
    """The marks by which `intents_to_end` finds what waits there."""
    if marks["account"] is None:
        return dict(marks)
    account = runtime.accounts[marks["account"]]
    alone_for, _ = _alone_and_among(runtime, account)
    return {**marks, "channel": account.channel.value, "alone_for": alone_for}


def _alone_and_among(runtime: Runtime, account: Account) -> tuple[list[bool], list[bool]]:
    """For which intents (tests or not) an account is its channel's only one, or one of several."""
    names = {
        test: [one.name for one in runtime.accounts_for(account.channel, test=test)]
        for test in (False, True)
    }
    alone = [test for test, found in names.items() if found == [account.name]]
    among = [test for test, found in names.items() if account.name in found and len(found) > 1]
    return alone, among


def _marks(runtime: Runtime, target: Target) -> dict[str, Any]:
    """The target as the ledger's columns; raise `BadTarget` for what does not exist."""
    if not (target.channel or target.account or target.sender or target.campaign):
        raise BadTarget("target", "name a channel, an account, a sender or a campaign")
    if target.channel is not None and target.channel not in list(Channel):
        raise BadTarget("channel", f"there are {', '.join(Channel)}")
    if target.account is not None:
        account = runtime.accounts.get(target.account)
        if account is None:
            raise BadTarget("account", f"there are {', '.join(sorted(runtime.accounts))}")
        if target.channel not in (None, account.channel):
            raise BadTarget("account", f"{target.account} is of {account.channel}")
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
