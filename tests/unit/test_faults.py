"""What is said of a value that was typed wrongly, whoever typed it and wherever."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core._pydantic_core import list_all_errors

from app.faults import faults, fitting, in_words

OURS = ("Input", "should", "String", "Field", "pattern", "{")


@pytest.mark.parametrize("known", list_all_errors(), ids=lambda one: one["type"])
def test_no_text_of_pydantics_is_passed_on(known: Any) -> None:
    if known["type"] in ("value_error", "assertion_error"):
        return  # those are our own sentences
    # Whatever may stand in a bound, here it is a number.
    context = {"gt": 1, "ge": 1, "lt": 1, "le": 1, **(known["example_context"] or {})}
    told = in_words({"type": known["type"], "msg": "Input should be else", "ctx": context})
    assert told
    assert not any(word in told for word in OURS), told


class _Leaf(BaseModel, extra="forbid"):
    colour: Annotated[str, fitting("[a-z]+", "one word")] = "green"
    size: Annotated[int | None, Field(ge=1)] = None


class _Tree(BaseModel, extra="forbid"):
    kind: str = Field("", alias="sort")
    leaves: list[_Leaf] = Field(default_factory=list)
    named: dict[str, _Leaf] | None = None


@pytest.mark.parametrize(
    ("given", "place", "said"),
    [
        ({"a": {"srot": ""}}, ("a", "srot"), "is not known here; did you mean sort?"),
        (
            {"a": {"leaves": [{"zzz": 1}]}},
            ("a", "leaves", 0, "zzz"),
            "is not known here; known are colour, size",
        ),
        (
            {"a": {"named": {"x": {"colr": 1}}}},
            ("a", "named", "x", "colr"),
            "is not known here; did you mean colour?",
        ),
        ({"a": {"leaves": [{"size": 0}]}}, ("a", "leaves", 0, "size"), "must be 1 or more"),
        ({"a": {"leaves": [{"colour": "a\n"}]}}, ("a", "leaves", 0, "colour"), "must be one word"),
        ({"a": 3}, ("a",), "must be a table"),
    ],
)
def test_a_fault_is_told_with_its_place_and_the_way_out(
    given: Any, place: tuple[str | int, ...], said: str
) -> None:
    form = dict[str, _Tree]
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(form).validate_python(given)
    assert list(faults(caught.value, form)) == [(place, said)]


def test_ours_goes_on_after_its_commas() -> None:
    assert in_words({"type": "value_error", "msg": "Value error, a, b"}) == "a, b"
