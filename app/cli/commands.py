"""The application that `converge` runs: every command, and how its failures are told."""

import sys
from typing import Annotated

import typer
from rich.text import Text

from app.cli import control, declare, demo, doctor, intake, keys, look, processes, up
from app.cli.failures import told
from app.cli.screen import err
from app.observe.logging import configure_logging

application = typer.Typer(
    name="converge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Say what a customer should learn; Converge decides where and when, and stops once it "
    "was seen.",
)
for part in (demo, up, processes, declare, intake, look, control, keys, doctor):
    part.add_to(application)


@application.callback()
def _every_command(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log.")] = False,
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
