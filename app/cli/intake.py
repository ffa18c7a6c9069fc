"""`converge enqueue` and `converge customers import`: files in, a verdict for every line."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.text import Text

from app.cli.context import DEFAULT_BRAND, BrandName, brand_called, runtime
from app.cli.control import actor
from app.cli.failures import FAILED, Problem, told
from app.cli.lines import Record, Source, customer_records, json_records, opened
from app.cli.screen import err, out, plural, print_json_line, progress
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.people.customers import put_customers

CHUNK = 500
SHOWN = 50
"""Refusals told one by one; beyond these they are counted (`--json` tells all)."""

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file; - for standard input.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print a verdict for each line as JSON Lines.")
]

customers = typer.Typer(no_args_is_help=True, help="Customers: loaded, and what they allow.")


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    application.command("enqueue", rich_help_panel="Messages")(enqueue)
    customers.command("import")(import_customers)
    application.add_typer(customers, name="customers", rich_help_panel="Messages")


def enqueue(
    file: File,
    brand: BrandName = DEFAULT_BRAND,
    test: Annotated[bool, typer.Option("--test", help="To the sandbox, never out.")] = False,
    json: JsonLines = False,
) -> None:
    """Enqueue intents from a file of JSON Lines.

    Each line is accepted or refused by itself; the exit status is 1 if any was refused. A line
    whose key is known already is not sent twice, so a file may be enqueued again.
    """
    brand_called(brand)

    def take(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        submission = Submission(brand, uuid4(), test=test)
        return [
            {
                "status": one.status,
                "id": one.id,
                "key": one.key,
                "field": one.field,
                "code": one.code,
                "reason": one.reason,
            }
            for one in accept(runtime(), submission, documents)
        ]

    words = {"accepted": "accepted", "exists": "known already", "conflict": "refused"}
    _load(file, json_records, take, _Tally("intent", json, words))


def import_customers(
    file: File,
    brand: BrandName = DEFAULT_BRAND,
    test: Annotated[
        bool, typer.Option("--test", help="Test customers: for `enqueue --test` and test keys.")
    ] = False,
    json: JsonLines = False,
) -> None:
    """Create or change customers from a file: CSV with a header, or JSON Lines.

    The columns are ref, name, email, phone, chat, social, locale, timezone, as_of and
    attributes.NAME. An empty cell leaves what is known; null in JSON removes it. The exit status
    is 1 if any line was refused.
    """
    brand_id = brand_called(brand).id

    def take(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"status": one.status, "ref": one.ref, "field": one.field, "reason": one.reason}
            for one in put_customers(runtime(), brand_id, documents, test=test, actor=actor())
        ]

    stale = "older than what is known, or of live customers" if test else "older than what is known"
    words = {"kept": "kept", "stale": stale}
    _load(file, customer_records, take, _Tally("customer", json, words))


@dataclass(slots=True)
class _Tally:
    """Tells what became of each line, and counts it. `words` say what a status is called."""

    thing: str
    json: bool
    words: Mapping[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def note(self, line: int, verdict: Mapping[str, Any]) -> None:
        """Take one verdict: a `status`, and with a refusal its `field` and `reason`."""
        self.counts[self.words.get(verdict["status"], "refused")] += 1
        if self.json:
            print_json_line({"line": line, **verdict})
        if verdict["reason"]:
            self.refused += 1
            if not self.json and self.refused <= SHOWN:
                where = Text(f"line {line}: ", style="yellow")
                field_name = f"{verdict['field']}: " if verdict.get("field") else ""
                err.print(where + Text(f"{field_name}{verdict['reason']}"), soft_wrap=True)

    def summary(self) -> str:
        """Everything in one sentence."""
        total = sum(self.counts.values())
        parts = [f"{self.counts[word]:,} {word}" for word in sorted(self.counts)]
        return f"{plural(total, self.thing)}: {', '.join(parts) or 'the file holds none'}."


def _load(
    file: Path,
    read: Callable[[Source], Iterator[Record]],
    take: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]],
    tally: _Tally,
) -> None:
    with opened(file) as source, progress() as bar:
        task = bar.add_task(f"{file.name or 'input'}", total=source.size, told="")
        records = read(source)
        while chunk := list(islice(records, CHUNK)):
            for record, verdict in zip(chunk, _verdicts(chunk, take, tally), strict=True):
                tally.note(record.line, verdict)
            bar.update(task, completed=source.read, told=f"{sum(tally.counts.values()):,}")
    if tally.refused > SHOWN and not tally.json:
        err.print(f"… and {tally.refused - SHOWN:,} more refused; --json tells each of them.")
    (err if tally.json else out).print(tally.summary())
    if tally.refused:
        raise typer.Exit(FAILED)


def _verdicts(
    chunk: Sequence[Record],
    take: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]],
    tally: _Tally,
) -> list[dict[str, Any]]:
    """A verdict for each record: readable ones are taken together, the others have theirs."""
    readable = [record.document for record in chunk if record.document is not None]
    try:
        taken = iter(take(readable) if readable else [])
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        done = plural(sum(tally.counts.values()), "line")
        raise Problem(
            f"{known[0]}\n{done} before line {chunk[0].line} were dealt with. "
            "Run the same again: what has a key is not sent twice.",
            known[1],
        ) from error
    return [
        next(taken)
        if record.document is not None
        else {"status": "refused", "field": None, "code": "unreadable", "reason": record.reason}
        for record in chunk
    ]
