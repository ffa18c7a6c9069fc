"""`python -m benchmarks [--quick] [--only NAME ...]`: measure everything, or parts of it.

Writes `benchmarks/results.json` (or `--output FILE`) when everything was measured, and prints the
figures beside their goals. It never fails for a figure: a machine has moods.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from app.observe.logging import configure_logging
from benchmarks import baselines, pressure, report, ticks
from benchmarks import hooks as webhooks
from benchmarks import vendor as vendors
from benchmarks.converge import converge
from benchmarks.decisions import decisions
from benchmarks.intake_http import http_intake
from benchmarks.place import UNLIMITED, Place
from benchmarks.report import Findings


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: messages, rows, rounds, and seconds."""

    rounds: int = 3
    mails: int = 50_000
    empty_tasks: int = 3_000
    by_hand: int = 800
    http: int = 20_000
    hooks: int = 20_000
    vendor: int = 6_000
    decisions: int = 10_000
    many_rows: int = 1_000_000
    few_rows: int = 1_000
    ticks: int = 300
    limit_per_s: int = 200
    limit_s: float = 20
    backlog: int = 200_000
    urgent_s: float = 20
    memory_warm_up: int = 20_000
    memory: int = 200_000


QUICK = Sizes(
    rounds=1,
    mails=1_500,
    empty_tasks=300,
    by_hand=40,
    http=1_000,
    hooks=1_000,
    vendor=400,
    decisions=1_000,
    many_rows=20_000,
    ticks=20,
    limit_s=3,
    backlog=2_000,
    urgent_s=2,
    memory_warm_up=1_000,
    memory=2_000,
)
"""Shows that everything runs; its figures mean nothing."""

Measure = Callable[[Place, int, Sizes, Findings], None]


def rounds(place: Place, port: int, sizes: Sizes, findings: Findings) -> None:
    """(a), (b), (c) and (d) in turns, so that a mood of the machine meets all of them."""
    for number in range(1, sizes.rounds + 1):
        with _step(f"round {number} of {sizes.rounds}: (a) bare loop"):
            bare, cost = baselines.bare(place, port, sizes.mails)
            findings.note("bare_loop_per_s", bare)
        with _step("    (b) empty Celery tasks"):
            findings.note("empty_tasks_per_s", baselines.empty_tasks(place, sizes.empty_tasks))
        with _step("    (c) by hand"):
            findings.note("by_hand_per_s", baselines.by_hand(place, port, sizes.by_hand))
        with _step("    (d) Converge: whole way, then intake and delivery apart"):
            took = converge(place, sizes.mails)
            findings.note("whole_way_per_s", took.whole_way)
            findings.note("intake_per_s", took.intake)
            findings.note("delivery_phase_per_s", took.delivery_phase)
            findings.costs_us = {"(a) bare loop": cost, **took.costs_us}
        with _step("    intake over HTTP"):
            findings.note("intake_http_per_s", http_intake(place, sizes.http))
    findings.ratio("delivered_vs_bare_loop", "whole_way_per_s", "bare_loop_per_s")
    findings.ratio("delivery_phase_vs_bare_loop", "delivery_phase_per_s", "bare_loop_per_s")
    findings.ratio("delivered_vs_empty_tasks", "whole_way_per_s", "empty_tasks_per_s")
    findings.ratio("delivered_vs_by_hand", "whole_way_per_s", "by_hand_per_s")
    findings.rates["delivered_per_s"] = findings.median("whole_way_per_s")
    findings.rates["intake_producer_per_s"] = findings.median("intake_per_s")
    findings.rates["intake_http_per_s"] = findings.median("intake_http_per_s")


def tick(place: Place, _port: int, sizes: Sizes, findings: Findings) -> None:
    """The dispatcher over few and many rows."""
    with _step(f"a tick over {sizes.few_rows:,} and over {sizes.many_rows:,} rows"):
        few, many, ratio = ticks.tick_ratio(place, sizes.many_rows, sizes.few_rows, sizes.ticks)
    findings.ratios["tick_1m_vs_1k"] = ratio
    findings.more["tick_s"] = {"few_rows": round(few, 6), "many_rows": round(many, 6)}


def limit(place: Place, _port: int, sizes: Sizes, findings: Findings) -> None:
    """A limit shared by four processes."""
    with _step(f"a limit of {sizes.limit_per_s}/s over 4 worker processes"):
        shares = pressure.limited(place, sizes.limit_per_s, 4, sizes.limit_s)
    findings.ratios["limit_peak"] = shares.peak
    findings.ratios["limit_used"] = shares.used


def urgent(place: Place, port: int, sizes: Sizes, findings: Findings) -> None:
    """Urgent intents over a backlog, with a slow account."""
    with _step(f"urgent intents while {sizes.backlog:,} bulk ones wait"):
        found = pressure.urgent(place, port, sizes.backlog, sizes.urgent_s)
    findings.rates["urgent_p95_s"] = found.from_enqueue
    findings.more["urgent"] = {name: round(value, 4) for name, value in asdict(found).items()}


def hooks(place: Place, _port: int, sizes: Sizes, findings: Findings) -> None:
    """Receipts kept by one API process, and read into events."""
    for number in range(1, sizes.rounds + 1):
        with _step(f"webhooks, round {number} of {sizes.rounds}: {sizes.hooks:,} receipts"):
            found = webhooks.hooks(place, sizes.hooks)
        findings.note("hooks_kept_per_s", found.kept)
        findings.note("hooks_bare_per_s", found.bare)
        findings.note("hooks_read_per_s", found.read)
    findings.ratio("hooks_kept_vs_bare", "hooks_kept_per_s", "hooks_bare_per_s")
    findings.rates["hooks_kept_per_s"] = findings.median("hooks_kept_per_s")
    findings.rates["hooks_read_per_s"] = findings.median("hooks_read_per_s")


def vendor(place: Place, port: int, sizes: Sizes, findings: Findings) -> None:
    """One worker process at an HTTP provider that answers in 100 ms."""
    for number in range(1, sizes.rounds + 1):
        with _step(f"an HTTP provider of 100 ms, round {number} of {sizes.rounds}"):
            bare, ours = vendors.http_provider(place, port, sizes.vendor)
        findings.note("vendor_bare_per_s", bare.per_s)
        findings.note("vendor_per_s", ours.per_s)
        findings.note("vendor_in_air", ours.in_air)
        findings.more["vendor"] = {"bare": asdict(bare), "ours": asdict(ours)}
    findings.ratio("vendor_vs_bare_pool", "vendor_per_s", "vendor_bare_per_s")
    findings.rates["vendor_in_air"] = findings.median("vendor_in_air")


def decide(place: Place, _port: int, sizes: Sizes, findings: Findings) -> None:
    """Decisions of customers who have said and wished for everything that they can."""
    for number in range(1, sizes.rounds + 1):
        with _step(f"{sizes.decisions:,} decisions, round {number} of {sizes.rounds}"):
            findings.note("decisions_per_s", decisions(place, sizes.decisions))
    findings.rates["decisions_per_s"] = findings.median("decisions_per_s")


def memory(place: Place, port: int, sizes: Sizes, findings: Findings) -> None:
    """Memory of a worker over very many messages."""
    with _step(f"memory of the mail worker over {sizes.memory:,} messages"):
        found = pressure.memory_growth(place, port, sizes.memory_warm_up, sizes.memory)
    findings.rates["worker_rss_growth"] = (found.after - found.before) / found.before
    findings.more["worker_rss"] = asdict(found)


MEASURES: dict[str, Measure] = {
    "rounds": rounds,
    "tick": tick,
    "limit": limit,
    "urgent": urgent,
    "hooks": hooks,
    "vendor": vendor,
    "decide": decide,
    "memory": memory,
}


@contextmanager
def _step(what: str) -> Iterator[None]:
    print(f"{what} ...", end=" ", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.0f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--output", type=Path, default=None, help="where to write the JSON")
    arguments = parser.parse_args(argv)
    configure_logging("error", "json")
    sizes = QUICK if arguments.quick else Sizes()
    findings = Findings(more={"load_at_start": round(os.getloadavg()[0], 2)})
    print("starting Postgres, Redis and a mail sink", flush=True)
    with Place() as place, place.sink() as port:
        place.accounts(relay=(port, UNLIMITED))
        for name in arguments.only:
            MEASURES[name](place, port, sizes, findings)
    complete = arguments.only == list(MEASURES) and not arguments.quick
    output = arguments.output or (report.RESULTS if complete else None)
    if output is not None:
        report.write(findings.document(asdict(sizes)), output)
    print(f"\n{report.table(findings)}\n")
    if findings.costs_us:
        print("Processor microseconds a message, by process (last round):")
        print(report.cost_table(findings.costs_us))
    return 0


if __name__ == "__main__":
    sys.exit(main())
