"""What waits for a bar to end: whether it may be said then, or expires before."""

from datetime import datetime
from typing import Any

import pytest

from app.usecases.telling import decisions, plain
from tests.unit.test_story import HOUR, NOW, QUIET, decision, way


@pytest.mark.parametrize(
    ("bars", "until", "hope"),
    [
        ([QUIET], NOW + HOUR / 2, "it expires then, before it may be said."),
        ([QUIET], NOW + HOUR, "it expires then, before it may be said."),
        ([QUIET], NOW + 2 * HOUR, "it may be said then."),
        (
            [way(1, "email", "muted_sender", told="text", until=NOW + HOUR)],
            NOW + HOUR / 2,
            "it expires then, before it may be said, unless the customer allows it sooner.",
        ),
        (
            [QUIET, way(2, "sms", "no_consent", told="text")],
            NOW + HOUR / 2,
            "it expires then, before it may be said, unless the customer allows it sooner.",
        ),
    ],
)
def test_a_wait_that_outlasts_the_intent_says_so(
    bars: list[dict[str, Any]], until: datetime, hope: str
) -> None:
    waits = min(until, NOW + HOUR)
    made = decision("wait", *bars, reason=bars[0]["why"], until=waits)
    assert f"wait until {plain.when(waits)}: {hope}" in decisions.decided(made, until)
