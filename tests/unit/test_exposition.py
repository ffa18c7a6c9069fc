"""The page of /metrics before anything was counted, and after."""

import re

import yaml

from app.observe.exposition import render
from app.observe.measures import BY_NAME
from app.usecases.telling.plain import OUTCOMES
from tests.unit.test_observe_files import RULES

GAUGES = {"converge_account_breaker_open": {("relay", "email"): 0.0}}


def page(totals: dict[tuple[str, str], float] | None = None) -> dict[str, float]:
    lines = render(GAUGES, totals or {}).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_what_was_never_counted_is_told_as_nothing() -> None:
    fresh = page()
    for series in (
        "converge_dispatch_ticks_total",
        'converge_settle_retries_total{account="relay"}',
        'converge_permits_denied_total{account="relay"}',
        'converge_claims_total{account="relay",result="rejected"}',
        'converge_attempts_total{account="relay",outcome="rejected"}',
        'converge_intents_total{verdict="refused"}',
    ):
        assert fresh[series] == 0, series


def test_what_was_counted_stands_beside_what_was_not() -> None:
    told = page({("converge_settle_retries_total", '{"account": "gone"}'): 3.0})
    assert told['converge_settle_retries_total{account="gone"}'] == 3
    assert told['converge_settle_retries_total{account="relay"}'] == 0


def test_every_count_that_an_alert_takes_the_increase_of_begins_at_nothing() -> None:
    """But for those of the API: which routes there are, and what they answer, only time tells."""
    rules = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    named = {
        name
        for rule in rules
        for name in re.findall(r"(?:increase|rate)\((converge_\w+)", rule["expr"])
    }
    told = {series.partition("{")[0] for series in page()}
    assert named - told == {"converge_api_requests_total"}


def test_the_outcomes_told_are_those_that_there_are() -> None:
    assert set(BY_NAME["converge_attempts_total"].words) == OUTCOMES.keys()
