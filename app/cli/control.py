"""`converge pause`, `resume` and `cancel`: rows that every worker minds within two seconds."""

import getpass
import socket
from typing import Annotated

import typer

from app.cli.context import check_reason, id_of, runtime
from app.cli.failures import FAILED, USAGE, Problem
from app.cli.screen import err, out, plural
from app.usecases.operating import control as controlling
from app.usecases.operating.backlog import COUNT_BOUND, told
from app.usecases.operating.control import Operator, Target

Channel = Annotated[str | None, typer.Option("--channel", help="email, sms, chat or social.")]
Account = Annotated[str | None, typer.Option("--account", help="A provider account.")]
Sender = Annotated[str | None, typer.Option("--sender", help="A sender.")]
Campaign = Annotated[str | None, typer.Option("--campaign", help="A campaign.")]
Brand = Annotated[str | None, typer.Option("--brand", help="Of this brand alone.")]
CAMPAIGNS_TOLD = 20
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
    """Hold all work that fits everything named, and its escalation clocks, until resumed.

    It holds what waits now and what comes, on every worker within two seconds. What is being sent
    this moment cannot be recalled.
    """
    target = Target(brand, channel, account, sender, campaign)
    new = controlling.pause(runtime(), target, Operator(actor(), reason))
    out.print(f"Paused {_named(target)}." if new else f"{_named(target)} was paused already.")
    _tell_if_nothing_waits(target)


def resume(
    channel: Channel = None,
    account: Account = None,
    sender: Sender = None,
    campaign: Campaign = None,
    brand: Brand = None,
    reason: Reason = "",
) -> None:
    """Let work go on that was paused under exactly these names. Twice is no fault."""
    target = Target(brand, channel, account, sender, campaign)
    if controlling.resume(runtime(), target, Operator(actor(), reason)):
        out.print(f"Resumed {_named(target)}.")
        return
    out.print(f"{_named(target)} was not paused.")
    err.print("`converge queues` shows what is paused, by which names.", style="yellow")


def cancel(
    reason: Reason,
    intents: Annotated[
        list[str] | None, typer.Argument(metavar="[INTENT]...", help="Ids of intents.")
    ] = None,
    channel: Channel = None,
    account: Account = None,
    sender: Sender = None,
    campaign: Campaign = None,
    brand: Brand = None,
) -> None:
    """End open intents for good: those named, or all that fit everything named.

    By sender or campaign these are all that are open. By channel or account they are those with a
    delivery waiting there (planned or queued): the whole intent ends, on its other channels too.
    What waits for whichever of several accounts is free first is of none of them. What is being
    sent this moment cannot be recalled, and what comes later is not held: pause first.
    """
    target = Target(brand, channel, account, sender, campaign)
    by = Operator(actor(), reason)
    if not intents:
        with err.status("Cancelling …") as status:
            ended = controlling.cancel(
                runtime(), target, by, lambda n: status.update(f"Cancelled {n:,} …")
            )
        out.print(f"Cancelled {plural(ended, 'open intent')} of {_named(target)}.")
        if target.account:
            _tell_of_unassigned(target)
        return
    if target != Target():
        raise Problem("Name intents, or what marks them, not both.", USAGE)
    ids = [id_of(text) for text in intents]
    check_reason(reason)
    done = controlling.cancel_intents(runtime(), ids, by)
    out.print(f"Cancelled {plural(len(done), 'intent')}.")
    left = [str(one) for one in ids if one not in done]
    if left:
        err.print(f"Not open, or not known: {', '.join(left)}")
        raise typer.Exit(FAILED)


def _tell_if_nothing_waits(target: Target) -> None:
    """A pause that fits nothing may be meant so, or be a slip of the pen: campaigns are free text.

    So it is taken, and said.
    """
    found = controlling.waits(runtime(), target)
    if found.here:
        return
    told = "Nothing waits there now; what comes is held."
    if target.campaign and target.campaign not in found.campaigns:
        names = ", ".join(found.campaigns[:CAMPAIGNS_TOLD]) or "none"
        more = "" if len(found.campaigns) <= CAMPAIGNS_TOLD else ", …"
        told += f" Campaigns with messages to send: {names}{more}."
    err.print(told, style="yellow", soft_wrap=True)


def _tell_of_unassigned(target: Target) -> None:
    """What other accounts could take as well is left, and said."""
    here = runtime()
    left = controlling.unassigned(here, target, COUNT_BOUND)
    if left:
        channel = here.accounts[str(target.account)].channel.value
        err.print(
            f"{told(left)} more wait on {channel} for any of its accounts: --channel {channel} "
            "cancels those.",
            style="yellow",
            soft_wrap=True,
        )


def _named(target: Target) -> str:
    names = ("brand", "channel", "account", "sender", "campaign")
    given = ((name, getattr(target, name)) for name in names)
    return ", ".join(f"{name} {value}" for name, value in given if value)
