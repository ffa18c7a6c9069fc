"""`converge worker`, `api`, `beat` and `flower`: one part of a fleet that spans machines.

Each becomes the process that it names, so that signals and exit statuses are that one's own.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from app.cli.context import settings
from app.cli.failures import USAGE, Problem
from app.cli.ports import environment

FLEETS = ("core", "email", "sms", "chat", "social", "all")


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    for command in (worker, api, beat, flower):
        application.command(rich_help_panel="Run")(command)


def worker(
    fleet: Annotated[str, typer.Argument(metavar="FLEET", help=f"One of: {', '.join(FLEETS)}.")],
) -> None:
    """Run the workers of a fleet on this machine.

    core accepts, decides, dispatches and reads feedback; email, sms, chat and social deliver; all
    is everything that one machine needs.
    """
    if fleet not in FLEETS:
        raise Problem(f"There is no fleet {fleet!r}. Name one of: {', '.join(FLEETS)}.", USAGE)
    _become("workers", fleet)


def api() -> None:
    """Serve the HTTP API, the links in messages and the webhooks of providers."""
    _become("app.api.server")


def beat() -> None:
    """Tick the dispatcher. Any number may run: a tick twice does no harm."""
    _become("workers", "beat")


def flower() -> None:
    """Show the fleet in Flower, read-only and behind a password."""
    of = settings()
    user, _, password = of.flower_credentials.partition(":")
    made = "" if of.flower_basic_auth else f" (user {user}, password {password})"
    typer.echo(f"Flower on http://{of.flower_host}:{of.flower_port}{made}", err=True)
    _become("workers", "flower")


def _become(*module: str) -> NoReturn:
    """Go on as `python -m MODULE`, with the settings that were found."""
    os.environ.update(environment(settings()))
    sys.stdout.flush()
    os.execv(sys.executable, (sys.executable, "-m", *module))  # noqa: S606  # our own modules
