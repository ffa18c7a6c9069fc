"""Files of records, read a line at a time: bad lines are told by number and spoil no other."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final

import orjson

from app.cli.failures import USAGE, Problem
from converge_producer.customer import CUSTOMER_CHECKS

MAX_LINE: Final = 2_000_000
"""Bytes; an intent of the largest size fits, however its JSON is written."""
ATTRIBUTE: Final = "attributes."
_COLUMNS: Final = tuple(name for name in CUSTOMER_CHECKS if name != "attributes")


@dataclass(frozen=True, slots=True)
class Record:
    """What a line holds: a document, or the reason why it holds none. Lines count from 1."""

    line: int
    document: dict[str, Any] | None = None
    reason: str = ""


@dataclass(slots=True)
class Source:
    """An open file. `size` is in bytes, None for standard input; `read` is how far it was read."""

    stream: IO[bytes]
    size: int | None
    read: int = 0

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line with its number; None for one that is too long to be kept."""
        number = 0
        while line := self.stream.readline(MAX_LINE):
            number += 1
            self.read += len(line)
            whole = len(line) < MAX_LINE or line.endswith(b"\n")
            while not line.endswith(b"\n") and (line_rest := self.stream.readline(MAX_LINE)):
                self.read += len(line_rest)
                whole = False
                line = line_rest
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line if whole else None


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a file, or standard input for `-`; raises `Problem`."""
    if str(path) == "-":
        yield Source(sys.stdin.buffer, None)
        return
    try:
        with path.open("rb") as stream:
            yield Source(stream, path.stat().st_size)
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}.", USAGE) from None


def json_records(source: Source) -> Iterator[Record]:
    """Read JSON Lines; blank lines are passed over."""
    for number, line in source.lines():
        if line is None:
            yield Record(number, reason=f"is longer than {MAX_LINE:,} bytes")
        elif not line.isspace():
            yield _json_record(number, line)


def customer_records(source: Source) -> Iterator[Record]:
    """Read customers as JSON Lines or CSV: what the file begins with tells which it is."""
    begin = source.stream.peek(64)[:64].lstrip(b"\xef\xbb\xbf \t\r\n")  # type: ignore[attr-defined]  # a buffered file has it
    return json_records(source) if begin[:1] in (b"{", b"[") else _csv_records(source)


def _json_record(number: int, line: bytes) -> Record:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        hint = "; write one object a line, without a list around them" if line[:1] == b"[" else ""
        return Record(
            number, reason=f"cannot be read as JSON: {error.msg} (column {error.colno}){hint}"
        )
    if not isinstance(document, dict):
        return Record(number, reason="must be a JSON object, one on each line")
    return Record(number, document)


def _csv_records(source: Source) -> Iterator[Record]:
    rows = csv.reader(_text_lines(source), strict=True)
    header = _next_row(rows)
    if isinstance(header, str) or header is None:
        raise Problem(f"The file has no CSV header: {header or 'it is empty'}.", USAGE)
    _check_header([name.strip() for name in header])
    names = [name.strip() for name in header]
    while (row := _next_row(rows)) is not None:
        line = rows.line_num
        if isinstance(row, str):
            yield Record(line, reason=row)
        elif len(row) > len(names):
            yield Record(line, reason=f"has {len(row)} cells, the header names {len(names)}")
        elif any(row):
            yield Record(line, _customer(names, row))


def _next_row(rows: Any) -> list[str] | str | None:
    """The next row, the reason why it cannot be read, or None at the end."""
    try:
        row: list[str] = next(rows)
    except StopIteration:
        return None
    except csv.Error as error:
        return f"is not CSV: {error}"
    return "is not UTF-8 text" if any("\ufffd" in cell for cell in row) else row


def _text_lines(source: Source) -> Iterator[str]:
    for _, line in source.lines():
        yield (line if line is not None else b"\xff\n").decode("utf-8", "replace")


def _check_header(names: list[str]) -> None:
    if "ref" not in names:
        raise Problem(
            f"The CSV header has no column ref. It may name: {', '.join(_COLUMNS)}, "
            f"and {ATTRIBUTE}NAME.",
            USAGE,
        )
    for name in names:
        if name in _COLUMNS or (name.startswith(ATTRIBUTE) and name != ATTRIBUTE):
            continue
        close = get_close_matches(name, _COLUMNS, 1)
        hint = f"did you mean {close[0]}?" if close else f"call it {ATTRIBUTE}{name or 'NAME'}?"
        raise Problem(f"The CSV header has an unknown column {name!r}; {hint}", USAGE)
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Problem(f"The CSV header names {', '.join(sorted(twice))} twice.", USAGE)


def _customer(names: list[str], row: list[str]) -> dict[str, Any]:
    """A row as a customer document; an empty cell is a field left out."""
    document: dict[str, Any] = {}
    attributes = {}
    for name, cell in zip(names, row, strict=False):
        value = cell.strip()
        if not value:
            continue
        if name.startswith(ATTRIBUTE):
            attributes[name.removeprefix(ATTRIBUTE)] = value
        else:
            document[name] = value
    return document | ({"attributes": attributes} if attributes else {})
