"""`converge customers export`, `erase` and `link`: what is kept, and the customer's way to it."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from app.cli.consents import Ref
from app.cli.context import (
    DEFAULT_BRAND,
    BrandName,
    Json,
    brand_called,
    runtime,
    unknown_customer,
)
from app.cli.control import actor
from app.cli.intake import customers
from app.cli.screen import err, moment, out, print_json
from app.usecases.consent.inviting import LASTS_H, MOST_H, make_link
from app.usecases.consent.voices import Named, NoSuchCustomer
from app.usecases.people.erasing import erase as erasing
from app.usecases.people.exporting import export as exporting


def add_to(_application: typer.Typer) -> None:
    """Add the commands."""
    customers.command("export")(export)
    customers.command("erase")(erase)
    customers.command("link")(link)


def export(
    ref: Ref,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; else standard output."),
    ] = None,
    brand: BrandName = DEFAULT_BRAND,
) -> None:
    """Write everything that is kept of a customer as one JSON document.

    Addresses and texts are in full: a file is readable by you alone.
    """
    pieces = exporting(runtime(), brand_called(brand).id, ref, actor())
    if pieces is None:
        raise unknown_customer(ref, brand)
    if output is None or str(output) == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    _write(output, pieces)
    err.print(f"Wrote {output}.", style="bright_black")


def erase(
    ref: Ref,
    brand: BrandName = DEFAULT_BRAND,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a customer: what was said to them and by them, their addresses and names.

    Open intents are cancelled. That something was sent, and what became of it, stays, of nobody. An
    address that said no keeps its no. It cannot be undone.
    """
    brand_id = brand_called(brand).id
    if not yes:
        typer.confirm(f"Erase {ref} for good?", abort=True, err=True)
    if not erasing(runtime(), brand_id, ref, actor()):
        raise unknown_customer(ref, brand)
    out.print("Erased.")


def link(
    ref: Ref,
    hours: Annotated[
        int, typer.Option("--hours", min=1, max=MOST_H, help="How long it is good.")
    ] = LASTS_H,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")] = "",
    brand: BrandName = DEFAULT_BRAND,
    json: Json = False,
) -> None:
    """Print a link to a customer's preference centre, with the right to do everything there.

    Whoever has it can see, correct, download and erase what is kept: give it to the customer alone.
    The links in messages choose what may be sent, and no more.
    """
    whom = Named(brand_called(brand).id, ref)
    try:
        made = make_link(runtime(), whom, actor=actor(), reason=reason, hours=hours)
    except NoSuchCustomer:
        raise unknown_customer(ref, brand) from None
    if json:
        print_json(made)
        return
    out.print(made["url"], soft_wrap=True)
    err.print(f"Good until {moment(made['expires_at'])}.", style="bright_black")


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(pieces)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
