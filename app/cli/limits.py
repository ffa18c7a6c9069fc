"""`converge limits`: how fast accounts may send, for a time; and those that rest, tried again."""

from typing import Annotated

import typer
from rich.text import Text

from app.cli.context import Json, runtime, seconds_of
from app.cli.control import actor
from app.cli.failures import USAGE, Problem
from app.cli.screen import moment, out, print_json, print_table
from app.usecases.operating import limits as limiting
from app.usecases.operating.control import Operator

NONE = "none"
limits = typer.Typer(no_args_is_help=True, help="How fast accounts may send, for a time.")


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    limits.command("show")(limits_show)
    # So that a negative rate is refused as a rate, not as an unknown option.
    limits.command("set", context_settings={"ignore_unknown_options": True})(limits_set)
    limits.command("retry")(limits_retry)
    application.add_typer(limits, name="limits", rich_help_panel="Control")


def limits_show(json: Json = False) -> None:
    """Show how fast each account may send: as declared, and as an operator has set it.

    Pace is what one batch at a time got through lately.
    """
    rows = limiting.show_limits(runtime())
    if json:
        print_json(rows)
        return
    columns = ("account", "channel", "declared/s#", "in force/s#", "until", "by", "why", "pace/s#")
    shown = []
    for row in rows:
        found = row["set"] or {}
        rate = per_second(row["limit_per_s"])
        until = found.get("until") or ("lifted" if found else None)
        shown.append(
            (
                row["account"],
                row["channel"],
                per_second(row["declared_per_s"]),
                Text(rate, style="bold yellow") if found else rate,
                until,
                found.get("actor"),
                found.get("reason"),
                row["pace_per_s"],
            )
        )
    print_table(columns, shown, nothing="No account is configured.")


def limits_set(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="A provider account.")],
    rate: Annotated[
        str, typer.Argument(metavar="RATE|none", help="Messages a second; none lifts what was set.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why: it is kept and shown.")],
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help='Such as "30m" or "2h"; else until lifted.'),
    ] = None,
) -> None:
    """Let an account send so many messages a second, whatever is declared for it.

    Every worker goes by it within two seconds. It may be more than declared. After --for, or with
    none, what is declared holds again.
    """
    by = Operator(actor(), reason)
    if rate == NONE:
        if lasting is not None:
            raise Problem("--for goes with a rate, not with none.", USAGE)
        lifted = limiting.lift_limit(runtime(), account, by)
        _tell(account, "is as declared again" if lifted else "was as declared already")
        return
    for_s = None if lasting is None else seconds_of(lasting, "--for")
    changed = limiting.set_limit(runtime(), account, _number(rate), by, for_s)
    _tell(account, "is set" if changed else "was so already")


def limits_retry(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="A provider account.")],
    reason: Annotated[str, typer.Option("--reason", help="Why: it is kept and shown.")],
) -> None:
    """Try an account that rests after failures again at once: what was wrong is mended.

    Left alone, it is tried again by itself, after ten minutes at the latest.
    """
    rested = limiting.retry_account(runtime(), account, Operator(actor(), reason))
    out.print(f"{account} is tried again now." if rested else f"{account} did not rest.")


def per_second(rate: float | None) -> str:
    """A rate, as people read it."""
    return "no limit" if rate is None else f"{rate:g}"


def _tell(account: str, how: str) -> None:
    [row] = [one for one in limiting.show_limits(runtime()) if one["account"] == account]
    unit = "" if row["limit_per_s"] is None else " messages a second"
    until = (row["set"] or {}).get("until")
    ends = f", until {moment(until)}" if until else ""
    out.print(f"The limit of {account} {how}: {per_second(row['limit_per_s'])}{unit}{ends}.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Problem(f"{text!r} is no rate: name messages a second, or none.", USAGE) from None
