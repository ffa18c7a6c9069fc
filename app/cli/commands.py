"""The application that `converge` runs: every command, and how its failures are told."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.text import Text

from app.cli import (
    audited,
    consents,
    control,
    declare,
    demo,
    doctor,
    fleet,
    inbox,
    intake,
    keys,
    limits,
    look,
    privacy,
    processes,
    trying,
    up,
)
from app.cli.failures import told
from app.cli.screen import err, out
from app.observe.logging import configure_logging

application = typer.Typer(
    name="converge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Say what a customer should learn; Converge decides where and when, and stops once it "
    "was seen.",
)
for part in (
    demo,
    up,
    processes,
    declare,
    trying,
    intake,
    consents,
    privacy,
    audited,
    look,
    inbox,
    control,
    limits,
    fleet,
    keys,
    doctor,
):
    part.add_to(application)


def _say_version(asked: bool) -> None:
    if asked:
        out.print(f"converge {version('converge')}", highlight=False)
        raise typer.Exit


@application.callback()
def _every_command(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log.")] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    configure_logging("info" if verbose else "warning", "auto" if verbose else "console")


def run() -> None:
    """Run `converge`; ends with status 0, 1 (it failed) or 2 (it was not asked rightly)."""
    try:
        application()
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        text, status = known
        err.print(Text("Error: ", style="bold red") + Text(text), soft_wrap=True)
        sys.exit(status)
