"""An intent's story, for people: where it stands, what happened, and what comes next."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.screen import COLOURS, moment, out

_WHAT = {
    "accepted": "white",
    "decided": "cyan",
    "attempt": "blue",
    "event": "green",
    "ended": "bold",
    "refused": "red",
}


def show_intent(found: dict[str, Any], console: Console = out) -> None:
    """Print an intent as `inspect.show_intent` has it, refused ones included."""
    state = found["state"]
    line = Text.assemble(
        (str(found["id"]), "bold"),
        "  ",
        (state, COLOURS.get(state, "red")),
    )
    if found.get("reason"):
        line.append(f" ({found['reason']})")
    console.print(line, soft_wrap=True)
    if state == "refused":
        console.print(f"  {found['field']}: {found['reason']} ({found['code']})", soft_wrap=True)
    else:
        console.print(Text(f"  {_about(found)}"), soft_wrap=True)
    console.print(timeline(found))
    later = found["next"]
    if later and later.get("text"):
        at = f"{moment(later['at'])}  " if later.get("at") else ""
        console.print(Text.assemble(("  next  ", "bright_black"), f"{at}{later['text']}"))
    console.print()


def timeline(found: dict[str, Any]) -> Table:
    """What happened, in order."""
    grid = Table.grid(padding=(0, 1), pad_edge=True)
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in found["timeline"]:
        what = Text(one["what"], style=_WHAT.get(one["what"], ""))
        grid.add_row(moment(one["at"]), what, Text(one["text"]))
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
