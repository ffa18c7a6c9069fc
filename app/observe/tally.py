"""Tallies: what one process counts since it began; the ledger sums all of them."""

import json
import threading
from bisect import bisect_left
from collections import defaultdict

from app.observe.measures import BY_NAME

Series = tuple[str, tuple[tuple[str, str], ...]]


class Tally:
    """Counters and histograms of this process; safe over threads, about a microsecond a count.

    Names and their labels are those of `measures`; another name raises `KeyError`, which is a bug.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Series, float] = defaultdict(float)

    def add(self, name: str, value: float = 1.0, **labels: object) -> None:
        """Count `value` more; nothing is counted for 0."""
        if value:
            series = name, _worded(name, labels)
            with self._lock:
                self._counts[series] += value

    def observe(self, name: str, seconds: float, **labels: object) -> None:
        """Put a time into its histogram: `name_bucket` (each with its own alone) and `name_sum`."""
        worded = _worded(name, labels)
        buckets = BY_NAME[name].buckets
        place = bisect_left(buckets, seconds)
        most = repr(buckets[place]) if place < len(buckets) else "+Inf"
        with self._lock:
            self._counts[f"{name}_bucket", (*worded, ("le", most))] += 1
            self._counts[f"{name}_sum", worded] += seconds

    def snapshot(self) -> dict[tuple[str, str], float]:
        """All counts by name and labels (a JSON object)."""
        with self._lock:
            counts = dict(self._counts)
        return {(name, json.dumps(dict(labels))): value for (name, labels), value in counts.items()}


def _worded(name: str, labels: dict[str, object]) -> tuple[tuple[str, str], ...]:
    """The labels in the measure's order."""
    return tuple((label, str(labels[label])) for label in BY_NAME[name].labels)
