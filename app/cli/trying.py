"""`converge policies try`: what would happen to a customer's intent, and why; nothing is sent."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.table import Table
from rich.text import Text

from app.cli.context import DEFAULT_BRAND, BrandName, Json, brand_called, runtime
from app.cli.declare import policies
from app.cli.failures import USAGE, Problem
from app.cli.screen import out, print_json
from app.domain.decision import WhenBlocked
from app.domain.policy import Policy
from app.domain.vocabulary import Kind, Urgency
from app.domain.zones import find_zone
from app.usecases.deciding.trying import Trial, try_policy
from app.usecases.intake.binding import DEFAULT_POLICY
from config.schema import load_policies

_TIMES = '"now", "2030-01-31T09:00Z", "2030-01-31T09:00+01:00" or "2030-01-31T09:00 Europe/Berlin"'
_YEARS = range(2000, 2200)
_COLOURS = {"send": "blue", "wait": "cyan", "stop": "bold"}


def add_to(_application: typer.Typer) -> None:
    """Add the command to the others about policies."""
    policies.command("try")(try_out)


def try_out(
    file: Annotated[
        str, typer.Argument(metavar="FILE|POLICY", help="A policies.toml, or a policy's name.")
    ],
    customer: Annotated[str, typer.Option("--customer", metavar="REF", help="For whom.")],
    at: Annotated[str, typer.Option("--at", metavar="TIME", help=f"When: {_TIMES}.")] = "now",
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help=f"Which one of the file; else {DEFAULT_POLICY}, or the only one.",
        ),
    ] = None,
    brand: BrandName = DEFAULT_BRAND,
    sender: Annotated[str | None, typer.Option("--sender", help="From whom.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="About what.")] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="Which rules bind.")] = Kind.TRANSACTIONAL,
    urgency: Annotated[Urgency, typer.Option("--urgency", help="How soon.")] = Urgency.NORMAL,
    when_blocked: Annotated[
        WhenBlocked, typer.Option("--when-blocked", help="What becomes of a blocked step.")
    ] = WhenBlocked.HOLD,
    json: Json = False,
) -> None:
    """Show what would happen to an intent for a customer, and why; nothing is sent or written.

    Step by step as time goes by, if nobody sees it: with what the customer allows and wishes, hours
    of quiet, caps and pauses as they stand now.
    """
    trial = Trial(
        customer=customer,
        policy=_policy(file, policy),
        at=_moment(at, datetime.now(UTC)),
        sender=sender,
        topic=topic,
        kind=kind,
        urgency=urgency,
        when_blocked=when_blocked,
    )
    found = try_policy(runtime(), brand_called(brand), trial)
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    out.print(
        Text.assemble(
            (f"policy {found['policy']}", "bold"),
            f" for {found['customer']} · from {found['brand']}/{found['sender']} · "
            f"{found['topic']} · {found['kind']}, {found['urgency']} · "
            f"{found['when_blocked']} when blocked",
        ),
        soft_wrap=True,
    )
    if found["refused"]:
        out.print(Text(f"It would not be taken: {found['refused']}."), soft_wrap=True)
    grid = Table.grid(padding=(0, 1), pad_edge=True)
    grid.add_column(style="bright_black", no_wrap=True)
    if found["zone"]:
        grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in found["steps"]:
        local = [f"({one['local']:%a %H:%M} there)"] if found["zone"] else []
        to = f" To {one['address']}." if one["address"] else ""
        verdict = Text(one["verdict"], style=_COLOURS[one["verdict"]])
        at = f"{one['at'].astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
        grid.add_row(at, *local, verdict, Text(one["text"] + to))
    out.print(grid)
    out.print(f"Assumed: {'; '.join(found['assumed'])}.", style="bright_black")


def _policy(file: str, name: str | None) -> Policy | str:
    """A policy of a file, or the name of one that the ledger knows."""
    path = Path(file)
    if not (path.suffix == ".toml" or path.is_file() or len(path.parts) > 1):
        if name is not None:
            raise Problem("--policy names one of a file; give a file, or the name alone.", USAGE)
        return file
    found = load_policies(path)
    listed = ", ".join(sorted(found)) or "none"
    if name is None and DEFAULT_POLICY in found:
        name = DEFAULT_POLICY  # which an intent gets that names none
    elif name is None and len(found) == 1:
        (name,) = found
    if name is None:
        raise Problem(f"Name a policy of {path.name} with --policy: {listed}.", USAGE)
    if name not in found:
        raise Problem(f"There is no policy {name!r} in {path.name} (there are: {listed}).", USAGE)
    return Policy.from_document(found[name])


def _moment(told: str, now: datetime) -> datetime:
    """Read a time, with an offset or the name of a time zone; without either it is UTC."""
    if told == "now":
        return now
    written, _, place = told.partition(" ") if "T" in told else (told, "", "")
    zone = _zone(place.strip()) if place else UTC
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise Problem(f"--at {told[:60]!r}: write {_TIMES}.", USAGE) from None
    if at.year not in _YEARS:
        raise Problem(f"--at {told[:60]!r}: the year is out of reach.", USAGE)
    if at.tzinfo is not None:
        if place:
            raise Problem(f"--at {told[:60]!r}: give an offset or a time zone, not both.", USAGE)
        return at.astimezone(UTC)
    found = at.replace(tzinfo=zone).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) != at:
        raise Problem(f"--at: {written} is skipped in {place}, where clocks go forward.", USAGE)
    return found


def _zone(name: str) -> ZoneInfo:
    zone = find_zone(name)
    if zone is None:
        raise Problem(
            f'--at: "{name[:60]}" is no time zone; names look like "Europe/Berlin".', USAGE
        )
    return zone
