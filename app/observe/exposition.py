"""Metrics as text, in the format of prometheus.io/docs/instrumenting/exposition_formats."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.observe.measures import GAUGES, MEASURES, Measure

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client does not say

Values = tuple[str, ...]
Gauges = Mapping[str, Mapping[Values, float]]
"""Values by a gauge's name and by its labels' values, in the measure's order."""
Totals = Mapping[tuple[str, str], float]
"""Counts by name and labels (a JSON object), as `Tally.snapshot` has them."""


def render(gauges: Gauges, totals: Totals | None = None) -> bytes:
    """Write down what is known; counts only where they are (None: the ledger is away).

    Counts of names and labels that this release does not know are left out or added together.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Known(gauges, totals))
    return generate_latest(registry)


_OF_EVERY_ACCOUNT: Final = "converge_account_breaker_open"
"""The gauge that has a series for each account that takes live work."""


class _Known(Collector):
    def __init__(self, gauges: Gauges, totals: Totals | None) -> None:
        self._gauges = gauges
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order of the lists."""
        for gauge in GAUGES:
            if gauge.name in self._gauges:
                family = GaugeMetricFamily(gauge.name, gauge.told, labels=gauge.labels)
                for values, value in self._gauges[gauge.name].items():
                    family.add_metric(values, value)
                yield family
        if self._totals is not None:
            counts = _by_name(self._totals.items())
            accounts = [values[0] for values in self._gauges.get(_OF_EVERY_ACCOUNT, ())]
            for measure in MEASURES:
                if measure.buckets:
                    yield _histogram(measure, counts)
                else:
                    yield _counter(measure, counts, accounts)


_Counts = Mapping[str, Mapping[Values, float]]


def _by_name(totals: Iterable[tuple[tuple[str, str], float]]) -> _Counts:
    """Sums by the names that samples have and by their labels' values."""
    labels = {
        name: (*measure.labels, *more)
        for measure in MEASURES
        for name, more in (
            (measure.name, ()),
            (f"{measure.name}_bucket", ("le",)),
            (f"{measure.name}_sum", ()),
        )
    }
    counts: dict[str, dict[Values, float]] = defaultdict(lambda: defaultdict(float))
    for (name, worded), value in totals:
        said = json.loads(worded)
        counts[name][tuple(said.get(label, "") for label in labels.get(name, ()))] += value
    return counts


def _counter(measure: Measure, counts: _Counts, accounts: Sequence[str]) -> Metric:
    family = CounterMetricFamily(measure.name, measure.told, labels=measure.labels)
    for values, value in {**_none_yet(measure, accounts), **counts.get(measure.name, {})}.items():
        family.add_metric(values, value)
    return family


def _none_yet(measure: Measure, accounts: Sequence[str]) -> dict[Values, float]:
    """The series that are sure to come, so that a rate of them is known from the first one on;
    none for labels whose values only time tells."""
    values = [accounts if label == "account" else measure.words for label in measure.labels]
    return dict.fromkeys(product(*values), 0.0)


def _histogram(measure: Measure, counts: _Counts) -> Metric:
    family = HistogramMetricFamily(measure.name, measure.told, labels=measure.labels)
    own = counts.get(f"{measure.name}_bucket", {})
    for values, total_s in counts.get(f"{measure.name}_sum", {}).items():
        up_to, cumulative = 0.0, []
        for most in (*map(repr, measure.buckets), "+Inf"):
            up_to += own.get((*values, most), 0.0)
            cumulative.append((most, up_to))
        family.add_metric(values, cumulative, total_s)
    return family
