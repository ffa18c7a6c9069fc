"""An intent's story, for people: where it stands, what happened, and what comes next."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.screen import COLOURS, moment, out
from app.usecases.telling.plain import end

_WHAT = {
    "accepted": "white",
    "decided": "cyan",
    "attempt": "blue",
    "event": "green",
    "ended": "bold",
    "refused": "red",
    "message": "green",
    "consent": "magenta",
}
_KEY = 20
"""Characters of an intent's key that a customer's timeline shows."""


def show_intent(found: dict[str, Any], console: Console = out) -> None:
    """Print an intent as `inspect.show_intent` has it, refused ones included."""
    state = found["state"]
    line = Text.assemble(
        (str(found["id"]), "bold"),
        "  ",
        (state, COLOURS.get(state, "red")),
    )
    if found.get("reason") and found.get("ended_at"):
        line.append(f" ({end(found['reason'])})")
    console.print(line, soft_wrap=True)
    if state == "refused":
        console.print(f"  {found['field']}: {found['reason']}", soft_wrap=True)
    else:
        console.print(Text(f"  {_about(found)}"), soft_wrap=True)
    console.print(timeline(found["timeline"]))
    console.print(Text.assemble(("  next  ", "bright_black"), _next(found)))
    console.print()


def show_next(found: dict[str, Any], console: Console = out) -> None:
    """Print of an open intent what happens next, and its id, by which all of it is shown."""
    console.print(
        Text.assemble((found["key"], "bold"), ("  next  ", "bright_black"), _next(found)),
        Text(f"(converge status {found['id']})", style="bright_black"),
        soft_wrap=True,
    )


def _next(found: dict[str, Any]) -> str:
    later = found["next"]
    at = f"{moment(later['at'])}  " if later["at"] else ""
    return f"{at}{later['text']}"


def timeline(entries: Iterable[dict[str, Any]]) -> Table:
    """What happened, in the order given; of a customer's also of which intent, by its key."""
    listed = list(entries)
    keyed = any("key" in one for one in listed)
    grid = Table.grid(padding=(0, 1), pad_edge=True)
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(no_wrap=True)
    if keyed:
        grid.add_column(style="bright_black", no_wrap=True, overflow="ellipsis", max_width=_KEY)
    grid.add_column(overflow="fold")
    for one in listed:
        what = Text(one["what"], style=_WHAT.get(one["what"], ""))
        key = [Text(one["key"] or "")] if keyed else []
        grid.add_row(moment(one["at"]), what, *key, Text(one["text"]))
    return grid


def _about(found: dict[str, Any]) -> str:
    parts = [f"for {found['customer']}", f"from {found['brand']}/{found['sender']}"]
    parts += [f"{found['topic']}", f"{found['kind']}, {found['urgency']}"]
    parts += [f"policy {found['policy']}", f"key {found['key']}"]
    if found["campaign"]:
        parts.append(f"campaign {found['campaign']}")
    if found["test"]:
        parts.append("test")
    return " · ".join(parts)
