"""Tallies count right from many threads, and only what has a name."""

import threading

import pytest

from app.observe.tally import Tally


def test_counts_and_times_by_labels() -> None:
    tally = Tally()
    tally.add("converge_attempts_total", 3, outcome="accepted", account="relay")
    tally.add("converge_attempts_total", account="relay", outcome="accepted")
    tally.add("converge_attempts_total", 0, account="relay", outcome="rejected")
    for seconds in (0.004, 0.01, 0.011, 99):
        tally.observe("converge_provider_seconds", seconds, account="relay")
    assert tally.snapshot() == {
        ("converge_attempts_total", '{"account": "relay", "outcome": "accepted"}'): 4,
        ("converge_provider_seconds_bucket", '{"account": "relay", "le": "0.005"}'): 1,
        ("converge_provider_seconds_bucket", '{"account": "relay", "le": "0.01"}'): 1,
        ("converge_provider_seconds_bucket", '{"account": "relay", "le": "0.025"}'): 1,
        ("converge_provider_seconds_bucket", '{"account": "relay", "le": "+Inf"}'): 1,
        ("converge_provider_seconds_sum", '{"account": "relay"}'): pytest.approx(99.025),
    }


def test_a_name_or_label_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(KeyError):
        Tally().add("converge_atempts_total", account="relay", outcome="accepted")
    with pytest.raises(KeyError):
        Tally().add("converge_attempts_total", account="relay")


def test_threads_lose_no_count() -> None:
    tally = Tally()

    def count() -> None:
        for _ in range(5_000):
            tally.add("converge_dispatch_ticks_total")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.snapshot() == {("converge_dispatch_ticks_total", "{}"): 20_000}
