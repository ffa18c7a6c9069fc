"""The small checks that the wire format is made of.

A check takes a value and raises `InvalidIntent` with a path relative to that value. Paths grow on
the way out (`InvalidIntent.under`), so a good intent pays nothing for them.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from converge_producer.errors import InvalidIntent

Check = Callable[[Any], object]
"""What it returns, such as the value as it was read, is of no account here."""

_FARTHEST_OFFSET = timedelta(hours=16)  # the ledger keeps no other
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_SHOWABLE = re.compile(r"[A-Za-z_][\w-]{0,39}")


def fail(reason: str) -> InvalidIntent:
    """Build the error for the value at hand."""
    return InvalidIntent("", reason)


def text(most: int, *, lines: bool = False) -> Check:
    """Make a check for a string that says something, of at most `most` characters.

    Without `lines`, line breaks and control characters are refused: such values end in headers.
    """

    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise fail(f"must be a string, not {kind_of(value)}")
        if not value or value.isspace():
            raise fail("must not be empty")
        if len(value) > most:
            raise fail(f"must have at most {most} characters")
        if not lines and not value.isprintable() and _CONTROL.search(value):
            raise fail("must not contain line breaks or control characters")

    return check


def matching(pattern: str, what: str, most: int) -> Check:
    """Make a check for a string that matches a whole pattern; `what` completes "must be"."""
    whole = re.compile(pattern)
    is_text = text(most)

    def check(value: Any) -> None:
        is_text(value)
        if whole.fullmatch(value) is None:
            raise fail(f"must be {what}")

    return check


def one_of(words: Collection[str]) -> Check:
    """Make a check for one word of a closed list."""
    known = frozenset(words)
    listed = ", ".join(words)

    def check(value: Any) -> None:
        if isinstance(value, str) and value in known:
            return
        raise fail(f"must be one of {listed}{_did_you_mean(value, words)}")

    return check


def each(check_item: Check, most: int, *, or_one: bool = False) -> Check:
    """Make a check for a list of at most `most` items; with `or_one` also for a bare item."""

    def check(value: Any) -> None:
        if not isinstance(value, list | tuple):
            if or_one:
                check_item(value)
                return
            raise fail(f"must be a list, not {kind_of(value)}")
        if len(value) > most:
            raise fail(f"must have at most {most} entries")
        for place, item in enumerate(value):
            try:
                check_item(item)
            except InvalidIntent as problem:
                raise problem.under(f"[{place}]") from None

    return check


def fields(
    checks: Mapping[str, Check],
    value: Any,
    *,
    required: tuple[str, ...] = (),
    hints: Mapping[str, str] | None = None,
) -> None:
    """Check an object field by field: unknown ones are named, null counts as left out."""
    if not isinstance(value, dict):
        raise fail(f"must be an object, not {kind_of(value)}")
    for name, inner in value.items():
        check = checks.get(name)
        if check is None:
            raise _unknown(name, checks, hints or {})
        if inner is not None:
            try:
                check(inner)
            except InvalidIntent as problem:
                raise problem.under(name) from None
    for name in required:
        if value.get(name) is None:
            raise InvalidIntent(name, "is required")


def moment(value: Any) -> datetime:
    """Read an ISO 8601 time with an offset (RFC 3339 and its relatives)."""
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            raise fail('must be an ISO 8601 time such as "2030-01-31T09:00:00Z"') from None
    else:
        raise fail(f"must be an ISO 8601 string, not {kind_of(value)}")
    offset = when.utcoffset()
    if offset is None:
        raise fail("must say its UTC offset (an aware datetime), or nobody knows which hour it is")
    if abs(offset) >= _FARTHEST_OFFSET:
        raise fail("must lie within 16 hours of UTC, as all clocks on Earth do")
    if not 1970 <= when.year <= 9998:  # beyond these, conversion to UTC overflows
        raise fail("must lie between the years 1970 and 9998")
    return when


def kind_of(value: Any) -> str:
    """Name a value's type as JSON does, never the value."""
    if value is None:
        return "null"
    for types, name in (
        (bool, "a boolean"),
        (str, "a string"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, types):
            return name
    return type(value).__name__


def _unknown(name: Any, known: Collection[str], hints: Mapping[str, str]) -> InvalidIntent:
    # A name that is no plain word may be somebody's data put in the wrong place: do not repeat it.
    if not isinstance(name, str) or not _SHOWABLE.fullmatch(name):
        return fail("has a field whose name is no field of this format")
    hint = hints.get(name)
    return InvalidIntent(name, hint or f"unknown field{_did_you_mean(name, known)}")


def _did_you_mean(value: Any, known: Collection[str]) -> str:
    close = difflib.get_close_matches(value, known, n=1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""
