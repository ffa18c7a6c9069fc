"""`converge drain`: workers finish what runs and take nothing new."""

import time
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from app.cli.context import runtime
from app.cli.control import actor
from app.cli.failures import Problem
from app.cli.screen import err, out, plural
from app.store.fleet import Present
from app.usecases.operating import fleet
from app.usecases.operating.control import Operator

LOOK_S = 0.5


def add_to(application: typer.Typer) -> None:
    """Add the command."""
    application.command(rich_help_panel="Control")(drain)


def drain(
    worker: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKER",
            help="As Flower and `queues --json` name it; @HOST: all there; else all there are.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Let them take work again.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="0: do not wait.")
    ] = 60,
) -> None:
    """Let workers finish what runs and take nothing new, so that they may be stopped.

    What they had fetched goes back for others. A drained worker stays, idle, until it is stopped or
    told to take work again; one that is started anew takes work.

    To have fewer containers: drain @CONTAINER, remove it, then set --scale.
    """
    meant = fleet.drain(runtime(), worker, Operator(actor(), reason), undo=undo)
    if not meant:
        out.print("No worker is there.")
        return
    wanted = "running" if undo else "drained"
    verb = "take work again" if undo else "drain"
    for one in meant:
        was = one.drain_asked_at is None if undo else one.drain_asked_at is not None
        out.print(f"{one.name} {'was' if was else 'is'} asked to {verb}{' already' * was}.")
    if wait:
        _wait({one.id: one for one in meant}, wanted, wait)


def _wait(meant: dict[UUID, Present], wanted: str, wait_s: float) -> None:
    """Tell of each as it gets there; raises `Problem` for those that do not in time."""
    deadline = time.monotonic() + wait_s
    pending = set(meant)
    with err.status("") as status:
        while pending:
            now = {one.id: one for one in fleet.workers(runtime())}
            for key in sorted(pending, key=lambda each: meant[each].name):
                if key not in now:
                    out.print(f"{meant[key].name} has ended.")
                    pending.discard(key)
                elif now[key].state == wanted:
                    out.print(f"{meant[key].name} {_done(wanted)}.")
                    pending.discard(key)
            if not pending:
                return
            status.update(f"Waiting for {_names([meant[key] for key in pending])} …")
            if time.monotonic() > deadline:
                raise Problem(
                    f"Not done within {wait_s:g} s: {_names([meant[key] for key in pending])}. "
                    "The order stands; `converge queues` shows how far it is."
                )
            time.sleep(LOOK_S)


def _done(wanted: str) -> str:
    return "is drained" if wanted == "drained" else "takes work again"


def _names(some: Sequence[Present]) -> str:
    if len(some) > 5:
        return plural(len(some), "worker")
    return ", ".join(sorted(one.name for one in some))
