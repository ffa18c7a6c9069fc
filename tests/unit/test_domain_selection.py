"""Accounts: shares by weight, cost and health, and turns that keep to them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.selection import TURNS, Candidate, Left, considered, pick, turns, weigh


def shares(*candidates: Candidate) -> dict[str, float]:
    return {one.candidate.name: one.share for one in weigh(candidates)}


def test_weights_are_shares() -> None:
    got = shares(Candidate("a", weight=3), Candidate("b", weight=1))
    assert got == {"a": 0.75, "b": 0.25}


def test_an_account_that_costs_twice_as_much_has_half_the_share() -> None:
    got = shares(Candidate("a", cost_micros=100), Candidate("b", cost_micros=200))
    assert got["a"] == pytest.approx(2 * got["b"])


def test_an_undeclared_cost_does_not_count() -> None:
    got = shares(Candidate("a", cost_micros=0), Candidate("b", cost_micros=500))
    assert got == {"a": 0.5, "b": 0.5}


def test_errors_take_traffic_away_by_degrees_and_never_all() -> None:
    falling = [
        shares(Candidate("a", errors=errors), Candidate("b"))["a"]
        for errors in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
    ]
    assert falling == sorted(falling, reverse=True)
    assert falling[2] > 0.35
    assert falling[4] < 0.15
    assert 0 < falling[-1] < 0.03


def test_slowness_counts_against_the_fastest_and_only_where_it_is_felt() -> None:
    quick = shares(Candidate("a", latency_s=0.2), Candidate("b", latency_s=0.002))
    assert quick["a"] == quick["b"], "a fifth of a second hurts nobody"
    both = shares(Candidate("a", latency_s=5.0), Candidate("b", latency_s=4.0))
    assert both["a"] == both["b"], "both are slow"
    slow = shares(Candidate("a", latency_s=5.0), Candidate("b", latency_s=0.1))
    assert slow["a"] < 0.1
    unknown = shares(Candidate("a"), Candidate("b", latency_s=0.1))
    assert unknown["a"] == unknown["b"]


def test_what_is_left_out_gets_nothing_and_says_why() -> None:
    weighed = weigh([Candidate("a", left=Left.UNHEALTHY), Candidate("b", weight=2)])
    assert [one.share for one in weighed] == [0.0, 1.0]
    assert [one["left"] for one in considered(weighed)] == ["unhealthy", None]
    nobody = weigh([Candidate("a", left=Left.PAUSED)])
    assert pick(nobody, 0.3) is None


candidates = st.lists(
    st.builds(
        Candidate,
        name=st.text("abc", min_size=1, max_size=3),
        weight=st.integers(1, 50),
        cost_micros=st.integers(0, 100_000),
        errors=st.floats(0, 1),
        latency_s=st.none() | st.floats(0.001, 60),
        left=st.none() | st.sampled_from(list(Left)),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
)
points = st.floats(0, 1, exclude_max=True)


@given(candidates, points)
def test_shares_make_a_whole_and_a_pick_is_always_one_that_may(
    given_ones: list[Candidate], point: float
) -> None:
    weighed = weigh(given_ones)
    able = [one for one in given_ones if one.left is None]
    assert sum(one.share for one in weighed) == pytest.approx(1.0 if able else 0.0)
    assert all((one.share > 0) == (one.candidate.left is None) for one in weighed)
    chosen = pick(weighed, point)
    assert (chosen in able) if able else (chosen is None)


@given(st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.01, 1), min_size=1), points)
def test_turns_keep_to_the_shares(wanted: dict[str, float], point: float) -> None:
    order = turns(wanted, point)
    if len(wanted) == 1:
        assert order == list(wanted)
        return
    total = sum(wanted.values())
    for name, count in Counter(order).items():
        assert abs(count - TURNS * wanted[name] / total) <= 1.0 + 1e-6
