"""`converge customers consent` and `preferences`: what a customer allows and wishes."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.context import (
    DEFAULT_BRAND,
    BrandName,
    Json,
    brand_called,
    check_reason,
    moment_of,
    runtime,
    seconds_of,
    unknown_customer,
)
from app.cli.control import Channel, Reason, Sender, actor
from app.cli.failures import FAILED, USAGE, Problem
from app.cli.intake import customers
from app.cli.screen import moment, out, print_json, print_table
from app.domain.masking import masked
from app.usecases.consent.preferences import read_preferences
from app.usecases.consent.statements import say_by_names
from app.usecases.consent.voices import BadPreference, Named, NoSuchCustomer, Voice

Ref = Annotated[str, typer.Argument(metavar="REF", help="The brand's name for the customer.")]


def add_to(application: typer.Typer) -> None:
    """Add the commands to `converge customers`."""
    del application
    customers.command("consent")(consent)
    customers.command("preferences")(preferences)


def consent(
    ref: Ref,
    reason: Reason,
    allow: Annotated[
        bool | None, typer.Option("--allow/--deny", help="What the customer says.")
    ] = None,
    channel: Channel = None,
    sender: Sender = None,
    topic: Annotated[str | None, typer.Option("--topic", help="A topic.")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="transactional, conversational or marketing.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="One address of the customer.")
    ] = None,
    lasts: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help='How long, such as "1h" or "1w".')
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="A time in ISO 8601; else UTC.")
    ] = None,
    in_person: Annotated[
        bool,
        typer.Option("--in-person", help="The customer said so; without it, it is the brand's."),
    ] = False,
    brand: BrandName = DEFAULT_BRAND,
    json: Json = False,
) -> None:
    """Write down what a customer allows or forbids; it holds on every channel at once.

    It speaks of everything that fits all that is named; of everything, if nothing is. It holds for
    good unless --for or --until is given. A no said in person is lifted by --in-person alone.
    """
    if allow is None:
        raise Problem("Say --allow or --deny.", USAGE)
    check_reason(reason)
    if lasts and until:
        raise Problem("Give --for or --until, not both.", USAGE)
    scope = {"channel": channel, "sender": sender, "topic": topic, "kind": kind, "address": address}
    document = {"scope": scope, "allow": allow, "until": _until(lasts, until)}
    voice = Voice("cli", own=in_person, actor=actor(), reason=reason)
    whom = Named(brand_called(brand).id, ref)
    try:
        (kept,) = say_by_names(runtime(), whom, document, voice).kept
    except NoSuchCustomer:
        raise unknown_customer(ref, brand) from None
    except BadPreference as bad:
        option = f"--{bad.field.removeprefix('scope.')}" if bad.field else ""
        raise Problem(f"{option}: {bad.reason}.", USAGE) from None
    if json:
        print_json(_masked(kept))
        return
    word = "allows" if allow else "forbids"
    out.print(f"{ref} {word} {_spoken(kept['scope'])}{_end(kept['until'])}.", soft_wrap=True)
    if not kept["in_force"]:
        out.print(
            "It changes nothing yet: a no stands that the customer said in person. If they took it "
            "back themselves, say so with --in-person.",
            style="yellow",
            soft_wrap=True,
        )
        raise typer.Exit(FAILED)


def preferences(ref: Ref, brand: BrandName = DEFAULT_BRAND, json: Json = False) -> None:
    """Show what a customer allows and wishes, and what holds because of it."""
    try:
        found = read_preferences(runtime(), Named(brand_called(brand).id, ref))
    except NoSuchCustomer:
        raise unknown_customer(ref, brand) from None
    if json:
        print_json(
            {
                **found,
                "addresses": [
                    {**one, "address": masked(one["address"])} for one in found["addresses"]
                ],
                "off": [_masked(one) for one in found["off"]],
            }
        )
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    if (paused := found["everything"]["muted"]) is not False:
        what = "Everything" if paused else "Almost everything"
        out.print(f"{what} is paused{_end(found['everything']['until'])}.", style="yellow")
    out.print(f"marketing    {_said(found['marketing'])}")
    for name, said in found["topics"].items():
        out.print(f"topic        {name}: {_said(said)}", soft_wrap=True)
    for name, mute in found["senders"].items():
        told = f"muted{_end(mute['until'])}" if mute["muted"] is not False else "may write"
        told += ", in part" if mute["muted"] is None else ""
        out.print(f"sender       {name}: {told}", soft_wrap=True)
    quiet = found["quiet_hours"]
    out.print(f"channels     {', '.join(found['channels']) or 'in no order of their own'}")
    out.print(f"quiet hours  {quiet['from'] + ' to ' + quiet['to'] if quiet else 'none'}")
    out.print(f"time zone    {found['timezone'] or 'not known'}")
    for one in found["off"]:
        out.print(
            f"off          {_spoken(one['scope'])}{_end(one['until'])} ({one['source']}, by the "
            f"{one['by']}, {moment(one['at'])})",
            soft_wrap=True,
        )
    for one in found["addresses"]:
        if not one["meant"]:
            out.print(
                f"agreed to    not for {masked(one['address'])}: marketing was agreed to before it "
                "came, and needs it verified, or agreed to again",
                soft_wrap=True,
            )
    out.print()
    print_table(
        ["topic", "channel", "may be told", "marketing", "until"],
        [
            [one["topic"], one["channel"], one["allowed"], one["marketing"], one["until"]]
            for one in found["now"]
        ],
        nothing="There is no address in use.",
    )


def _until(lasts: str | None, until: str | None) -> str | None:
    if lasts:
        return (datetime.now(UTC) + timedelta(seconds=seconds_of(lasts, "--for"))).isoformat()
    return None if until is None else moment_of(until, "--until").isoformat()


def _spoken(scope: dict[str, Any]) -> str:
    named = [f"{name} {_shown(name, value)}" for name, value in scope.items() if value]
    return ", ".join(named) or "everything"


def _shown(name: str, value: str) -> str:
    return masked(value) if name == "address" else value


def _masked(said: dict[str, Any]) -> dict[str, Any]:
    scope = said["scope"]
    address = scope["address"] and masked(scope["address"])
    return {**said, "scope": {**scope, "address": address}}


def _said(said: bool | None) -> str:
    return {True: "yes", False: "no", None: "nothing said"}[said]


def _end(until: datetime | None) -> str:
    return f" until {moment(until)}" if until else ""
