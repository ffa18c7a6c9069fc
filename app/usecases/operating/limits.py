"""How fast an account may send, as operators set it for a time, and whether it rests.

Every change is audited.
"""

import math
from datetime import datetime
from typing import Any

import structlog

from app.limits import LimitsUnavailable
from app.store import audit, limits
from app.store.intents import ledger_now
from app.usecases.operating.control import BadTarget, Operator
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)


def show_limits(runtime: Runtime) -> list[dict[str, Any]]:
    """How fast each account may send: what is declared, what is in force, and what is measured.

    `{"account", "channel", "declared_per_s" (None: no limit), "limit_per_s" (in force; None: no
    limit), "set": None or {"per_s", "until" (None: until lifted), "reason", "actor", "set_at"},
    "pace_per_s" (what one batch at a time got through lately; None: not measured)}`.
    """
    with runtime.engine.begin() as connection:
        now = ledger_now(connection)
        by_account = {one.account: one for one in limits.told_limits(connection)}
    health = runtime.health.health(runtime.accounts, now)
    rows = []
    for account in runtime.accounts.values():
        found = by_account.get(account.name)
        rows.append(
            {
                "account": account.name,
                "channel": account.channel.value,
                "declared_per_s": account.rate,
                "limit_per_s": account.rate if found is None else found.per_second,
                "set": None if found is None else _told(found),
                "pace_per_s": health[account.name].pace_per_s,
            }
        )
    return rows


def set_limit(
    runtime: Runtime, account: str, per_second: float, by: Operator, for_s: float | None = None
) -> bool:
    """Let an account send so many messages a second, for `for_s` seconds or until `lift_limit`.

    Returns whether that changed anything; raises `BadTarget`.
    """
    _check(runtime, account, by)
    if not math.isfinite(per_second) or per_second <= 0:
        raise BadTarget(
            "limit",
            "must be above 0 messages a second; to let nothing through, pause: "
            f"converge pause --account {account} --reason ...",
        )
    with runtime.engine.begin() as connection:
        changed = limits.set_limit(
            connection,
            account=account,
            per_second=per_second,
            for_s=for_s,
            reason=by.reason,
            actor=by.name,
        )
        if changed:
            subject = {"account": account, "per_second": per_second, "for_s": for_s}
            audit.note(connection, actor=by.name, action="limit", subject=subject, reason=by.reason)
            _log.info("controlled", action="limit", **subject)
    runtime.rates.forget()
    return changed


def lift_limit(runtime: Runtime, account: str, by: Operator) -> bool:
    """Let what is declared for an account hold again; say whether a limit was in force."""
    _check(runtime, account, by)
    with runtime.engine.begin() as connection:
        lifted = limits.lift_limit(connection, account)
        if lifted:
            subject = {"account": account}
            audit.note(
                connection, actor=by.name, action="lift_limit", subject=subject, reason=by.reason
            )
            _log.info("controlled", action="lift_limit", **subject)
    runtime.rates.forget()
    return lifted


def retry_account(runtime: Runtime, account: str, by: Operator) -> bool:
    """Let an account that rests after failures be tried at once; say whether it rested.

    What was measured of it is forgotten, too. Raises `BadTarget` and `LimitsUnavailable`.
    """
    _check(runtime, account, by)
    if not runtime.health.reachable():  # nothing would be known of the account, and it seem well
        raise LimitsUnavailable("Redis cannot be asked")
    if runtime.health.health([account])[account].open_until is None:
        return False
    with runtime.engine.begin() as connection:
        subject = {"account": account}
        audit.note(
            connection, actor=by.name, action="retry_account", subject=subject, reason=by.reason
        )
        runtime.health.forget(account)
        _log.info("controlled", action="retry_account", **subject)
    return True


def _check(runtime: Runtime, account: str, by: Operator) -> None:
    if account not in runtime.accounts:
        raise BadTarget(
            "account", f"there is no {account!r}; there are {', '.join(sorted(runtime.accounts))}"
        )
    if not by.reason.strip():
        raise BadTarget("reason", "say why: it is kept and shown")


def _told(found: limits.SetLimit) -> dict[str, float | str | datetime | None]:
    return {
        "per_s": found.per_second,
        "until": found.until,
        "reason": found.reason,
        "actor": found.actor,
        "set_at": found.set_at,
    }
