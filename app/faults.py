"""What is wrong with a value that was typed, in our own words: settings, declarations, queries.

pydantic finds the faults; its texts speak of patterns and strings, and repeat what was given, which
may be a secret. So every type of its errors that can arise has words here.
docs.pydantic.dev/latest/errors/validation_errors
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError

Place = tuple[str | int, ...]
_OWN: Final = frozenset({"value_error", "assertion_error"})
_UNKNOWN: Final = "extra_forbidden"

_WHOLE: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_YES_OR_NO: Final = "must be true or false"
_LIST: Final = 'must be a list: ["…"], with commas between'
_TABLE: Final = "must be a table"
_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    _UNKNOWN: "is not known here",
    "string_type": 'must be a text: "…"',
    "string_pattern_mismatch": "has not the form that it must have",
    "string_unicode": "must be UTF-8",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _YES_OR_NO,
    "bool_parsing": _YES_OR_NO,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _TABLE,
    "model_type": _TABLE,
    "model_attributes_type": _TABLE,
    "path_type": "must be the path of a file",
    "path_not_file": "must be the path of a file that is there",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_too_long": "must be of {max_length} characters or fewer",
    "too_long": "must hold {max_length} at most",
}
_TOO_SHORT: Final[Mapping[str, str]] = {
    "string_too_short": "must be of {min_length} characters or more",
    "too_short": "must hold {min_length} or more",
}


class Fault(NamedTuple):
    """Where something is wrong, from the outermost name on, and what."""

    place: Place
    text: str


def in_words(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors, without what was given."""
    kind, bounds = error["type"], error.get("ctx", {})
    if kind in _OWN:
        return str(error["msg"]).split(", ", 1)[-1]
    if kind in _TOO_SHORT:
        empty = bounds["min_length"] == 1
        return "must not be empty" if empty else _TOO_SHORT[kind].format(**bounds)
    return _WORDS.get(kind, _WORDS["string_pattern_mismatch"]).format(**bounds)


def unknown(name: str, known: Collection[str]) -> str:
    """That a name is none of those known, and which was meant or which there are."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"is not known here; did you mean {close[0]}?"
    return f"is not known here; known are {', '.join(sorted(known))}" if known else _WORDS[_UNKNOWN]


def faults(error: ValidationError, form: Any, also: Collection[str] = ()) -> Iterator[Fault]:
    """All faults, in the order found. `form` is the type that was wanted, which tells what names
    are known where one is not; `also` are others that may stand beside the outermost."""
    for each in error.errors(include_url=False, include_input=False):
        place = tuple(part for part in each["loc"] if part != "[key]")
        text = in_words(each)
        if each["type"] == _UNKNOWN:
            known = _fields(form, place[:-1])
            text = unknown(str(place[-1]), [*known, *(also if len(place) == 1 else ())])
        yield Fault(place, text)


def fitting(pattern: str, form: str) -> AfterValidator:
    """Demand that a text is of a pattern, from its first character to its last.

    `form` says in words what it must be; it goes on from "must be".
    """
    whole: Callable[[str], re.Match[str] | None] = re.compile(pattern, re.ASCII).fullmatch

    def check(value: str) -> str:
        if whole(value) is None:
            raise ValueError(f"must be {form}")
        return value

    return AfterValidator(check)


WEB_FORM: Final = "a web address such as https://example.com"
WebAddress = Annotated[str, fitting("https?://.+", WEB_FORM)]


def _fields(form: Any, place: Sequence[str | int]) -> list[str]:
    """The names that a table at this place may hold; none where it is no table of ours."""
    for part in place:
        form = _inner(form, part)
    form = _bare(form)
    if not (isinstance(form, type) and issubclass(form, BaseModel)):
        return []
    return [field.alias or name for name, field in form.model_fields.items()]


def _inner(form: Any, part: str | int) -> Any:
    form = _bare(form)
    if isinstance(form, type) and issubclass(form, BaseModel):
        for name, field in form.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
        return None
    return get_args(form)[-1] if get_origin(form) in (dict, list) else None


def _bare(form: Any) -> Any:
    """A type without its annotations, and without the None that may stand for it."""
    while get_origin(form) in (Annotated, Union, UnionType):
        form = next((each for each in get_args(form) if each is not type(None)), None)
    return form
