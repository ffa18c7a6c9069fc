"""`converge pause`, `resume` and `cancel`: rows that every worker minds within two seconds."""

import getpass
import socket
from typing import Annotated
from uuid import UUID

import typer

from app.cli.context import runtime
from app.cli.failures import FAILED, USAGE, Problem
from app.cli.screen import err, out, plural
from app.usecases import control as controlling
from app.usecases.control import Operator, Target

Channel = Annotated[str | None, typer.Option("--channel", help="email, sms, chat or social.")]
Account = Annotated[str | None, typer.Option("--account", help="A provider account.")]
Sender = Annotated[str | None, typer.Option("--sender", help="A sender.")]
Campaign = Annotated[str | None, typer.Option("--campaign", help="A campaign.")]
Brand = Annotated[str | None, typer.Option("--brand", help="Of this brand alone.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: it is kept and shown.")]


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    for command in (pause, resume, cancel):
        application.command(rich_help_panel="Control")(command)


def actor() -> str:
    """Who acts, as the audit keeps it."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a container's user may have no name
        return f"cli@{socket.gethostname()}"


def pause(
    reason: Reason,
    channel: Channel = None,
    account: Account = None,
    sender: Sender = None,
    campaign: Campaign = None,
    brand: Brand = None,
) -> None:
    """Hold all work that fits everything named, and its escalation clocks, until resumed."""
    target = Target(brand, channel, account, sender, campaign)
    new = controlling.pause(runtime(), target, Operator(actor(), reason))
    out.print(f"Paused {_named(target)}." if new else f"{_named(target)} was paused already.")


def resume(
    channel: Channel = None,
    account: Account = None,
    sender: Sender = None,
    campaign: Campaign = None,
    brand: Brand = None,
    reason: Reason = "",
) -> None:
    """Let work go on that was paused under exactly these names."""
    target = Target(brand, channel, account, sender, campaign)
    if not controlling.resume(runtime(), target, Operator(actor(), reason)):
        raise Problem(f"{_named(target)} is not paused. `converge queues` shows what is.")
    out.print(f"Resumed {_named(target)}.")


def cancel(
    reason: Reason,
    intents: Annotated[
        list[str] | None, typer.Argument(metavar="[INTENT]...", help="Ids of intents.")
    ] = None,
    sender: Sender = None,
    campaign: Campaign = None,
    brand: Brand = None,
) -> None:
    """End open intents for good: those named, or all of a sender or campaign.

    What is being sent this moment cannot be recalled.
    """
    target = Target(brand, sender=sender, campaign=campaign)
    by = Operator(actor(), reason)
    if not intents:
        ended = controlling.cancel(runtime(), target, by)
        out.print(f"Cancelled {plural(ended, 'open intent')} of {_named(target)}.")
        return
    if sender or campaign or brand:
        raise Problem("Name intents, or a sender or campaign, not both.", USAGE)
    ids = [_uuid(text) for text in intents]
    if not reason.strip():
        raise Problem("--reason: say why: it is kept and shown.", USAGE)
    done = controlling.cancel_intents(runtime(), ids, by)
    out.print(f"Cancelled {plural(len(done), 'intent')}.")
    left = [str(one) for one in ids if one not in done]
    if left:
        err.print(f"Not open, or not known: {', '.join(left)}")
        raise typer.Exit(FAILED)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(f"{text!r} is no id of an intent.", USAGE) from None


def _named(target: Target) -> str:
    names = ("brand", "channel", "account", "sender", "campaign")
    given = ((name, getattr(target, name)) for name in names)
    return ", ".join(f"{name} {value}" for name, value in given if value)
