"""An intent's story, for people: where it stands, what happened, and what comes next."""

from typing import Any

from rich.console import Console, Group
from rich.text import Text

from app.cli.screen import COLOURS, moment, out, table

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


def timeline(found: dict[str, Any]) -> Group:
    """What happened, a line each, in order."""
    lines = [
        Text.assemble(
            (f"  {moment(one['at'])}  ", "bright_black"),
            (f"{one['what']:<9}", _WHAT.get(one["what"], "")),
            one["text"],
            overflow="fold",
        )
        for one in found["timeline"]
    ]
    return Group(*lines)


def deliveries(found: dict[str, Any]) -> Any:
    """The deliveries of an intent as a table."""
    columns = ("step", "channel", "address", "account", "state", "reason", "handed over")
    names = ("step", "channel", "address", "account", "state", "reason", "handed_over_at")
    return table(columns, [[one[name] for name in names] for one in found["deliveries"]])


def _about(found: dict[str, Any]) -> str:
    parts = [f"for {found['customer']}", f"from {found['brand']}/{found['sender']}"]
    parts += [f"{found['topic']}", f"{found['kind']}, {found['urgency']}"]
    parts += [f"policy {found['policy']}", f"key {found['key']}"]
    if found["campaign"]:
        parts.append(f"campaign {found['campaign']}")
    if found["test"]:
        parts.append("test")
    return " · ".join(parts)
