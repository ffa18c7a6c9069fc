"""`converge inbox`: what came back from outside and could not be read."""

from typing import Annotated

import typer
from rich.text import Text

from app.cli.context import MOST_ID, Json, Limit, runtime
from app.cli.control import actor
from app.cli.failures import FAILED
from app.cli.screen import err, out, plural, print_json, print_table
from app.usecases.operating import inbox as inbox_of
from app.usecases.operating.control import Operator

inbox = typer.Typer(no_args_is_help=True, help="Reports and messages that were not read.")


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    inbox.command("list")(list_unfinished)
    inbox.command("retry")(retry)
    application.add_typer(inbox, name="inbox", rich_help_panel="Look")


def list_unfinished(
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Without what is tried again by itself.")
    ] = False,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List what came in and is not read, newest first, with the reason. Never what it says."""
    rows, more = inbox_of.unfinished(runtime(), unreadable=unreadable, limit=limit)
    if json:
        print_json(rows)
        return
    columns = ("id#", "account", "received", "tries#", "bytes#", "problem", "again")
    shown = [
        (
            Text(str(row["id"])),
            row["source"],
            row["received_at"],
            row["tries"],
            row["bytes"],
            row["problem"],
            row["again_at"],
        )
        for row in rows
    ]
    print_table(columns, shown, nothing="Everything that came in has been read.")
    if more:
        out.print("There are more: --limit shows them.", style="bright_black")


def retry(
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID...]", help="Which; all that was given up.", min=1, max=MOST_ID),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")] = "",
    json: Json = False,
) -> None:
    """Read again what could not be read, for instance after its provider was mended."""
    again = inbox_of.read_again(runtime(), ids or None, Operator(actor(), reason))
    left = sorted(set(ids or ()) - set(again))
    if json:
        print_json({"again": again, "not_again": left})
    else:
        out.print(f"{plural(len(again), 'arrival')} will be read again.")
        if left:
            err.print(f"Not again: {', '.join(map(str, left))} (read already, or not there).")
    if left:
        raise typer.Exit(FAILED)
