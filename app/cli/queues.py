"""What `converge queues` shows: what waits where, who takes it, and what holds it."""

from typing import Any

from rich.text import Text

from app.cli.limits import per_second
from app.cli.screen import out, print_table
from app.usecases.telling import inspect
from converge_producer.queues import (
    CONTROL,
    DEAD_LETTERS,
    DECISIONS,
    FEEDBACK,
    INTENTS,
    LANE_QUEUES,
)

NOBODY = Text("none!", style="bold red")


def show_queues(state: dict[str, Any]) -> None:
    """Show the answer of `queue_state`, the most pressing first."""
    _lanes(state)
    out.print()
    _elsewhere(state)
    for show in (_pauses, _workers, _accounts):
        show(state)


def _lanes(state: dict[str, Any]) -> None:
    columns = (
        "channel",
        "lane",
        "due#",
        "oldest#",
        "held#",
        "held by",
        "hinted#",
        "sending#",
        "workers#",
    )
    rows = [
        (
            lane["channel"],
            lane["lane"],
            _count(lane["due"]),
            _age(lane["oldest_due_s"]),
            _count(lane["held"]),
            ", ".join(lane["held_why"]),
            _count(lane["hinted"]),
            _count(lane["sending"]),
            _workers_of(lane["consumers"]),
        )
        for lane in state["lanes"]
    ]
    print_table(columns, rows, nothing="Nothing waits to be sent.")


def _elsewhere(state: dict[str, Any]) -> None:
    """The queues that are no lane's: without a worker all stands still, so it is always told.

    Of a lane what the broker holds is told here, where it holds something.
    """
    waits = {
        INTENTS: None,  # they are in the broker alone
        DECISIONS: _count(state["intents_due"]),
        FEEDBACK: _count(state["inbox_waiting"]),
        CONTROL: None,
    }
    held = state["broker"]
    lanes = [name for name in LANE_QUEUES if held and held[name]]
    rows = [
        (
            name,
            waits.get(name),
            Text("?", style="yellow") if held is None else _count(held[name]),
            _workers_of(state["consumers"][name]),
        )
        for name in (*waits, *lanes)
    ]
    print_table(("queue", "due#", "in broker#", "workers#"), rows)
    if held is None:
        out.print("The broker is away: what waits there is not known.", style="yellow")
    elif held[DEAD_LETTERS]:
        told = f"Chunks that killed their workers and were put aside: {held[DEAD_LETTERS]}."
        out.print(f"{told} `python -m workers revive` puts them back.", style="bold red")
    if state["inbox_unreadable"]:
        count = inspect.told(state["inbox_unreadable"])
        told = f"Webhooks that could not be read: {count}; `converge inbox list` shows them."
        out.print(told, style="yellow")


def _pauses(state: dict[str, Any]) -> None:
    if not state["pauses"]:
        return
    named = ("brand", "channel", "account", "sender", "campaign")
    rows = [
        (*(one[name] for name in named), one["reason"], one["actor"], one["started_at"])
        for one in state["pauses"]
    ]
    out.print()
    print_table((*named, "reason", "by", "since"), rows, title="Paused")


def _workers(state: dict[str, Any]) -> None:
    """How many there are; those that take no new work are named."""
    out.print()
    idle = [one for one in state["workers"] if one["state"] != "running"]
    running = len(state["workers"]) - len(idle)
    if not state["workers"]:
        out.print(Text("No worker runs.", style="bold red"))
        return
    told = f"Worker processes that take work: {running}"
    if not idle:
        out.print(f"{told}.")
        return
    out.print(f"{told}; these take none:")
    rows = [
        (one["name"], one["state"], one["drain_asked_at"], ", ".join(one["queues"])) for one in idle
    ]
    print_table(("worker", "state", "drain asked", "queues"), rows)


def _accounts(state: dict[str, Any]) -> None:
    rows = []
    for one in state["accounts"]:
        found = one["limit_set"]
        rate = per_second(one["limit_per_s"])
        rows.append(
            (
                one["name"],
                one["channel"],
                one["sandbox"],
                one["state"],
                one["until"],
                Text(rate, style="bold yellow") if found else rate,
                (found["until"] or "lifted") if found else None,
                found["reason"] if found else None,
            )
        )
    columns = ("account", "channel", "sandbox", "state", "until", "limit/s#", "set until", "why")
    out.print()
    print_table(columns, rows, title="Accounts")


def _workers_of(consumers: int) -> Text:
    return Text(str(consumers)) if consumers else NOBODY


def _count(count: int) -> Text:
    return Text(inspect.told(count), style="bold" if count else "bright_black")


def _age(seconds: float | None) -> Text:
    return Text("" if seconds is None else f"{seconds:,.0f} s")
