"""Goals, the table that people read, and the JSON that is kept."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of the report: its section and name, what it says, and what it should be."""

    section: str
    name: str
    says: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether the goal is reached."""
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)

    @property
    def wanted(self) -> str:
        """The goal as text."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


GOALS = (
    Goal("ratios", "delivered_vs_bare_loop", "(d) the whole way / (a) bare loop", 0.5),
    Goal("ratios", "delivery_phase_vs_bare_loop", "(d) delivery phase / (a) bare loop", 0.65),
    Goal("ratios", "delivered_vs_empty_tasks", "(d) the whole way / (b) empty tasks", 5),
    Goal("ratios", "delivered_vs_by_hand", "(d) the whole way / (c) by hand", 20),
    Goal("ratios", "tick_1m_vs_1k", "a tick over 1,000,000 rows / over 1,000", at_most=1.5),
    Goal("ratios", "limit_peak", "the fullest second / the limit", at_most=1.05),
    Goal("ratios", "limit_used", "average / the limit", 0.97),
    Goal("rates", "delivered_per_s", "(d) mails a second, the whole way", 3500),
    Goal("rates", "intake_producer_per_s", "intents a second, enqueue_many to commit", 10_000),
    Goal("rates", "intake_http_per_s", "intents a second, HTTP batches", 5_000),
    Goal("ratios", "hooks_kept_vs_bare", "webhooks kept / answered and let go", 0.25),
    Goal("rates", "hooks_kept_per_s", "webhooks kept a second, one API process", 1_500),
    Goal("rates", "hooks_read_per_s", "webhooks read into events a second", 5_000),
    Goal("ratios", "vendor_vs_bare_pool", "HTTP provider of 100 ms / bare thread pool", 0.8),
    Goal("rates", "vendor_in_air", "requests of one worker in the air, on average", 64),
    Goal("rates", "decisions_per_s", "decisions a second with consents and caps", 5_000),
    Goal("rates", "urgent_p95_s", "urgent intents: 95 % handed over within (s)", at_most=1.0),
    Goal("rates", "worker_rss_growth", "memory of the mail worker, growth", at_most=0.05),
)


@dataclass(slots=True)
class Findings:
    """What was measured: figures by section and name, every round, and where the time went."""

    ratios: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    costs_us: dict[str, dict[str, float]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        """Keep one round's figure."""
        self.rounds.setdefault(name, []).append(round(value, 4))

    def median(self, name: str) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, of: str, to: str) -> None:
        """A ratio of two medians of the same rounds."""
        self.ratios[name] = self.median(of) / self.median(to)

    def document(self, sizes: Mapping[str, float]) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "sizes": dict(sizes),
            "ratios": {name: round(value, 4) for name, value in self.ratios.items()},
            "rates": {name: round(value, 4) for name, value in self.rates.items()},
            "met": {
                goal.name: goal.met(getattr(self, goal.section)[goal.name])
                for goal in GOALS
                if goal.name in getattr(self, goal.section)
            },
            "rounds": self.rounds,
            "costs_us": self.costs_us,
            **self.more,
        }


def machine() -> dict[str, Any]:
    """Facts that the figures depend on. A load well above 0 at the start means that we shared."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "processors": os.cpu_count(),
        "model": model,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def write(document: Mapping[str, Any], path: Path) -> None:
    """Keep the results."""
    path.write_text(json.dumps(document, indent=2) + "\n")


def table(findings: Findings) -> str:
    """The figures beside their goals."""
    lines = [f"{'':46}{'measured':>12}  {'goal':>10}"]
    for goal in GOALS:
        value = getattr(findings, goal.section).get(goal.name)
        if value is None:
            lines.append(f"{goal.says:46}{'-':>12}  {goal.wanted:>10}  not measured")
        else:
            said = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
            verdict = "met" if goal.met(value) else "MISSED"
            lines.append(f"{goal.says:46}{said:>12}  {goal.wanted:>10}  {verdict}")
    return "\n".join(lines)


def cost_table(costs_us: Mapping[str, Mapping[str, float]]) -> str:
    """Processor microseconds a message, by process."""
    names: Sequence[str] = list(dict.fromkeys(name for cost in costs_us.values() for name in cost))
    width = max(map(len, costs_us), default=0) + 2
    lines = [" " * width + "".join(f"{name:>14}" for name in names)]
    for step, cost in costs_us.items():
        cells = "".join(f"{cost[name]:14.1f}" if name in cost else f"{'':14}" for name in names)
        lines.append(f"{step:{width}}{cells}")
    return "\n".join(lines)
