"""What the commands show: tables for people, JSON for programs, progress where somebody watches."""

import shutil
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
"""Results."""
err = Console(stderr=True, highlight=False)
"""Everything else: progress, problems, advice."""

COLOURS = {
    "open": "cyan",
    "seen": "green",
    "exhausted": "yellow",
    "expired": "yellow",
    "cancelled": "bright_black",
    "failed": "red",
    "unknown": "magenta",
    "sent": "blue",
    "delivered": "blue",
}

_SENTENCE = 24
"""Characters that a sentence in a table has for itself, however narrow the screen."""


def print_json(value: Any) -> None:
    """Print one JSON document on standard output: times in ISO 8601, in UTC."""
    told = orjson.dumps(
        value,
        default=str,
        option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE,
    )
    sys.stdout.write(told.decode())


def print_json_line(value: Any) -> None:
    """Print one JSON document on one line."""
    told = orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
    sys.stdout.write(told.decode())


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    title: str = "",
    nothing: str = "",
    wrapped: Collection[str] = (),
) -> None:
    """Print a table, or `nothing` where it has no rows; a name that ends with # is of numbers.

    A row is one line, as wide as it must be: ids can be copied, and `grep` finds whole rows. Only
    the columns `wrapped`, which are sentences, make do with the width of the screen.
    """
    if not rows:
        out.print(nothing)
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bright_black")
    for column in columns:
        justify: JustifyMethod = "right" if column.endswith("#") else "left"
        sentence = column in wrapped
        made.add_column(
            column.rstrip("#"),
            justify=justify,
            no_wrap=not sentence,
            overflow="fold" if sentence else "ellipsis",
            min_width=_SENTENCE if sentence else None,
        )
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    wide = out.options.update(max_width=10_000)
    least, most = Measurement.get(out, wide, made)
    made.width = min(most, max(least, out.width)) if wrapped else most
    if title:
        out.print(title, style="bold")
    out.print(made, crop=False, width=made.width)


def cell(value: Any) -> Text:
    """One value, as people read it; a state has its colour."""
    if value is None or value == "":
        return Text("-", style="bright_black")
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(moment(value))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:,.1f}")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(str(value), style=COLOURS.get(str(value), ""))


def moment(value: datetime) -> str:
    """A time of today by its hour, any other with its date; in UTC, which it says."""
    at = value.astimezone(UTC)
    form = "%H:%M:%SZ" if at.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%SZ"
    return at.strftime(form)


def activation() -> str | None:
    """The command after which `converge` is found, where it is not found yet."""
    script = Path(sys.executable).with_name("activate")
    if shutil.which("converge") or not script.exists():
        return None
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return f". {shown}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 intent`, `2,000 intents`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def progress() -> Progress:
    """A progress bar on standard error; nothing where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
