"""`converge audit`: who changed what, when and why."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from app.cli.context import (
    DEFAULT_BRAND,
    BrandName,
    Json,
    Limit,
    brand_called,
    runtime,
    since_moment,
    unknown_customer,
)
from app.cli.screen import moment, plural, print_json, print_table
from app.store.audit import Change
from app.usecases.consent.voices import Named, NoSuchCustomer
from app.usecases.operating.control import changes
from app.usecases.telling.plain import scope, words

_SHOWN: Final = 3
"""Things that a line names; more of them are counted."""
_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "allow": ("statement", "statements"),
    "changed": ("changed", "changes"),
    "changes": ("", "changes"),
    "deliveries": ("delivery", "deliveries"),
    "intents": ("intent", "intents"),
    "workers": ("worker", "workers"),
}
"""What a list holds, where its name does not say it: before a few of them, and behind a count."""


def add_to(application: typer.Typer) -> None:
    """Add the command."""
    application.command("audit", rich_help_panel="Look")(audit)


def audit(
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help='"2h", "3d" ago, or a time.')
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option("--customer", metavar="REF", help="What was changed of one customer."),
    ] = None,
    brand: BrandName = DEFAULT_BRAND,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Show who changed what, when and why, the newest first."""
    whom = None if customer is None else Named(brand_called(brand).id, customer)
    began = since_moment(since, datetime.now(UTC))
    try:
        found = changes(runtime(), since=began, limit=limit, customer=whom)
    except NoSuchCustomer as error:
        raise unknown_customer(customer or "", brand) from error
    if json:
        print_json([_told(one) for one in found])
        return
    print_table(
        ("at", "who", "did", "to", "because"),
        [
            [moment(one.at), one.actor, one.action, subject(one.subject), one.reason]
            for one in found
        ],
        nothing="Nothing was changed.",
        wrapped=("to", "because"),
    )


def _told(one: Change) -> dict[str, Any]:
    return {
        "at": one.at,
        "actor": one.actor,
        "action": one.action,
        "subject": one.subject,
        "reason": one.reason,
    }


def subject(named: Mapping[str, Any]) -> str:
    """What was changed, in plain words: `customer 12, forbade marketing messages by SMS`."""
    parts = []
    # The ledger keeps no order among names: whose it is comes first.
    for name, value in sorted(named.items(), key=lambda one: one[0] != "customer"):
        if name == "allow":
            parts.append(_said(value, named.get("scopes")))
        elif name == "scopes" or value is None:
            continue
        elif isinstance(value, list):
            parts.append(_several(name, value))
        else:
            parts.append(f"{words(name)} {_one(value)}")
    return ", ".join(parts)


def _one(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _several(name: str, values: list[Any]) -> str:
    """A few things by their names, more of them counted: `14 changes`."""
    one, many = _NAMES.get(name, (words(name), words(name)))
    if len(values) > _SHOWN:
        return plural(len(values), one, many)
    return f"{one} {', '.join(map(_one, values))}".strip()


def _said(allowed: list[bool], scopes: list[Mapping[str, Any]] | None) -> str:
    """What was allowed and forbidden; older ones did not keep of what."""
    if len(allowed) > _SHOWN:
        return _several("allow", allowed)
    said = ["allowed" if one else "forbade" for one in allowed]
    if scopes is None:
        return ", ".join(said)
    return ", ".join(f"{one} {_scope(each)}" for one, each in zip(said, scopes, strict=True))


def _scope(kept: Mapping[str, Any]) -> str:
    nothing = dict.fromkeys(("kind", "topic", "sender", "channel"))
    endpoint = kept.get("endpoint")
    return scope({**nothing, **kept, "address": f"address {endpoint}" if endpoint else None})
