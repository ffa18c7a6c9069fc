"""What the demo shows: figures while it runs, and a report at the end."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.cli.machine import Machine
from app.cli.screen import COLOURS, activation, out, plural
from app.cli.story import timeline
from app.domain.vocabulary import Channel
from app.usecases.intake.submission import Verdict

PLAIN_EVERY_S = 5.0
BAR = 72
WIDTH = 78
_STATES = ("seen", "open", "exhausted", "expired", "cancelled")
_BAR_COLOURS = {"seen": "green", "open": "cyan", "exhausted": "yellow", "expired": "yellow"}


@dataclass(slots=True)
class Progress:
    """The figures so far. Times are monotonic seconds."""

    began: float
    enqueued_at: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    refused: list[Verdict] = field(default_factory=list)
    story: dict[str, Any] | None = None
    finished: bool = False
    waiting: int = 0
    most_waiting: int = 0
    pace: float = 0.0
    fastest: float = 0.0
    _sent: tuple[float, int] = (0.0, 0)

    @property
    def open(self) -> int:
        """Intents that are not settled yet."""
        return int(self.figures["states"].get("open", 0))

    @property
    def elapsed_s(self) -> float:
        """Since the first intent."""
        return time.monotonic() - self.enqueued_at

    def take(self, figures: dict[str, Any], lanes: list[dict[str, Any]]) -> None:
        """Take new figures, and those of the queues; the pace is that of the last second or so."""
        now, sent = time.monotonic(), sum(one["sent"] for one in figures["channels"])
        before, sent_before = self._sent
        if before and now - before >= 1:
            self.pace = (sent - sent_before) / (now - before)
            self.fastest = max(self.fastest, self.pace)
        if not before or now - before >= 1:
            self._sent = now, sent
        self.waiting = sum(lane["due"] + lane["hinted"] for lane in lanes)
        self.most_waiting = max(self.most_waiting, self.waiting)
        order = list(Channel)
        figures["channels"].sort(key=lambda one: order.index(one["channel"]))
        self.figures = figures


class Watcher:
    """Shows figures in place on a terminal; a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._live = Live(console=out, refresh_per_second=8, transient=True)
        self._plain_at = 0.0
        self._waiting = ""

    def __enter__(self) -> Self:
        if out.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def waits(self, what: str) -> None:
        """Say what is not ready yet."""
        if self._live.is_started:
            self._live.update(Text(f"  waiting for {what} …", style="bright_black"))
        elif what.partition(" (")[0] != self._waiting:
            self._waiting = what.partition(" (")[0]
            out.print(f"  waiting for {self._waiting} …")

    def begins(self, machine: Machine, people: int) -> None:
        """Say that everything runs, and where one may look."""
        of = machine.settings
        out.print(
            f"Everything runs. {plural(people, 'customer')} loaded; their intents go in now.\n"
            f"Look on at {of.sandbox_url} (their screens) and {machine.flower_url} (Flower, "
            f"{of.flower_credentials.replace(':', ' / ')}).\n"
        )

    def shows(self, progress: Progress) -> None:
        """Show the figures."""
        if self._live.is_started:
            self._live.update(_board(progress))
        elif time.monotonic() - self._plain_at > PLAIN_EVERY_S:
            self._plain_at = time.monotonic()
            out.print(_line(progress), soft_wrap=True)

    def ends(self, progress: Progress) -> None:
        """Leave the last figures."""
        if self._live.is_started:
            self._live.stop()
        else:
            out.print(_line(progress), soft_wrap=True)


def _line(progress: Progress) -> str:
    figures = progress.figures
    states = ", ".join(
        f"{figures['states'][state]} {state}" for state in _STATES if state in figures["states"]
    )
    sent = ", ".join(f"{one['channel']} {one['sent']}" for one in figures["channels"])
    return (
        f"  {progress.elapsed_s:3.0f} s  {figures['intents']} intents: {states or 'none yet'};  "
        f"handed over: {sent or 'none yet'};  escalated {figures['escalated']};  "
        f"{progress.pace:.0f} messages/s"
    )


def _board(progress: Progress) -> Panel:
    figures = progress.figures
    states = figures["states"]
    total = max(figures["intents"], 1)
    bar = Text()
    for state in _STATES:
        share = round(BAR * states.get(state, 0) / total)
        bar.append("━" * share, style=_BAR_COLOURS.get(state, "bright_black"))
    legend = Text("   ").join(
        Text.assemble((f"{states[state]:,} ", "bold"), (state, COLOURS[state]))
        for state in _STATES
        if state in states
    )
    facts = Text("   ").join(
        Text.assemble((f"{value:,} ", "bold"), (name, "bright_black"))
        for name, value in (
            ("escalated", figures["escalated"]),
            ("messages/s", round(progress.pace)),
            ("wait their turn", progress.waiting),
            ("tried again", figures["retries"]),
        )
    )
    return Panel(
        Group(bar, legend, Text(), _channels(figures), Text(), facts),
        title=f"{plural(figures['intents'], 'intent')} · {progress.elapsed_s:.0f} s",
        title_align="left",
        border_style="cyan",
        width=WIDTH,
        padding=(1, 2),
    )


def _channels(figures: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", min_width=8)
    for _ in range(3):
        grid.add_column(justify="right")
    grid.add_column()
    heads = ("messages", "handed over", "reached")
    grid.add_row("", *(Text(head, style="bright_black") for head in heads), "")
    most = max((one["deliveries"] for one in figures["channels"]), default=1)
    for one in figures["channels"]:
        reached = round(20 * one["reached"] / most)
        rest = round(20 * one["deliveries"] / most) - reached
        bar = Text.assemble(("█" * reached, "green"), ("░" * rest, "bright_black"))
        numbers = (f"{one[name]:,}" for name in ("deliveries", "sent", "reached"))
        grid.add_row(one["channel"], *numbers, bar)
    return grid


def print_report(progress: Progress, people: int, limits: str) -> None:
    """Print what came of it all."""
    figures = progress.figures
    out.print(
        Panel(
            Group(_facts(progress, people, limits), Text(), _channels(figures)),
            title="What came of it",
            title_align="left",
            border_style="green",
            width=WIDTH,
            padding=(1, 2),
        )
    )
    if progress.story is not None:
        out.print(_told(progress.story))
    out.print(_next_steps())


def _facts(progress: Progress, people: int, limits: str) -> Table:
    figures = progress.figures
    states, waited = figures["states"], figures["time_to_seen_s"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    reached, total = figures["reached"], max(figures["intents"], 1)
    grid.add_row("Intents", f"{total:,} for {plural(people, 'customer')}")
    grid.add_row("Reached", Text(f"{reached:,} ({reached / total:.0%})", style="bold green"))
    left = [f"{states[state]} {state}" for state in _STATES[1:] if states.get(state)]
    grid.add_row("Not reached", ", ".join(left) or "nobody")
    grid.add_row("Escalated", f"{figures['escalated']:,} went on to another channel")
    if waited["p50"] is not None:
        grid.add_row(
            "Time to seen", f"median {waited['p50']:.1f} s, nine of ten in {waited['p90']:.1f} s"
        )
    grid.add_row(
        "Messages",
        f"{sum(one['sent'] for one in figures['channels']):,} handed over, "
        f"at most {progress.fastest:.0f} a second",
    )
    grid.add_row(
        "Trouble",
        f"{figures['failed']:,} bounced or failed, {figures['retries']:,} tried again, "
        f"{figures['crossed']:,} crossed",
    )
    grid.add_row(
        "Limits",
        f"{limits}; up to {progress.most_waiting:,} messages waited their turn",
    )
    for verdict in progress.refused:
        grid.add_row("Refused", f"{verdict.key}: {verdict.field}: {verdict.reason}")
    return grid


def _told(story: dict[str, Any]) -> Panel:
    return Panel(
        timeline(story["timeline"]),
        title=f"One of them: {story['key']}",
        title_align="left",
        border_style="blue",
        width=WIDTH,
        padding=(1, 1),
    )


def _next_steps() -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(style="bright_black")
    first = activation()
    if first:
        grid.add_row(first, "so that it is found")
    for command, why in (
        ("converge up", "the same, kept running"),
        ("converge customers import examples/customers.csv", ""),
        ("converge enqueue examples/intents.jsonl", ""),
        ("converge why cust-017", "what they got, and why"),
        ("converge queues", "what waits"),
        ("converge --help", "everything else"),
    ):
        grid.add_row(command, why)
    return Panel(
        grid,
        title="Try next",
        title_align="left",
        border_style="bright_black",
        width=WIDTH,
        padding=(1, 2),
    )
