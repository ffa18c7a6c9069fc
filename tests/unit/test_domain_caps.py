"""Caps: a rolling window, counted by slots."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.caps import SLOTS, Cap

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
DAY = 86_400.0


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="most must be 1 or more"):
        Cap("none", 0, DAY)


@given(
    st.integers(1, 5),
    st.floats(60, 30 * DAY),
    st.lists(st.floats(0, 3), max_size=12),
)
def test_no_window_ever_holds_more(most: int, window_s: float, gaps: list[float]) -> None:
    """Sending whenever it is allowed, no stretch of a window has more than the cap in it."""
    cap = Cap("some", most, window_s)
    now, sent = NOW, list[datetime]()
    counts: Counter[datetime] = Counter()
    for gap in gaps:
        now += timedelta(seconds=gap * window_s)
        free = cap.free_at(counts, now)
        if free is not None:
            assert free > now
            assert free <= now + timedelta(seconds=window_s * (1 + 2 / SLOTS))
            now = free
            assert cap.free_at(counts, now) is None, "it is free when it said it would be"
        sent.append(now)
        counts[cap.slot(now)] += 1
    for first in sent:
        within = [at for at in sent if first <= at < first + timedelta(seconds=window_s)]
        assert len(within) <= most


def test_it_is_free_again_a_window_later_and_a_slot_at_most() -> None:
    cap = Cap("daily", 2, DAY)
    counts = {cap.slot(NOW): 2}
    assert cap.free_at({cap.slot(NOW): 1}, NOW) is None
    free = cap.free_at(counts, NOW)
    assert free is not None
    assert timedelta(seconds=DAY) <= free - NOW <= timedelta(seconds=DAY * (1 + 1 / SLOTS))
