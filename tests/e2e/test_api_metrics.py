"""Metrics: from the ledger, the same from every process, and with the ledger away."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine

from app.api import create
from app.observe.measures import GAUGES, MEASURES
from app.observe.tally import Tally
from app.usecases.operating.control import Operator, Target, pause
from app.usecases.operating.fleet import Member, beat
from app.usecases.operating.upkeep import upkeep
from app.usecases.runtime import CatalogCache
from tests.e2e.api import Site, intent, serving

Samples = dict[str, float]


def scrape(url: str) -> Samples:
    """Every sample of a page, by name and labels as they are written."""
    answer = requests.get(f"{url}/metrics", timeout=20)
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for one in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(one.labels.items()))
            key = f"{one.name}{{{labels}}}" if labels else one.name
            assert key not in found, "a series told twice"
            found[key] = one.value
    return found


def until(url: str, **expected: float) -> Samples:
    """The page, once these samples are as expected."""
    deadline = time.monotonic() + 20
    while True:
        page = scrape(url)
        wrong = {name: page.get(name) for name in expected if page.get(name) != expected[name]}
        if not wrong:
            return page
        assert time.monotonic() < deadline, wrong
        time.sleep(0.2)


@pytest.fixture
def other(site: Site) -> Iterator[str]:
    """A second API process of the same installation."""
    with serving(create(replace(site.house.runtime, tally=Tally()))) as url:
        yield url


def test_a_message_is_counted_on_its_whole_way_and_every_process_says_so(
    site: Site, other: str
) -> None:
    runtime = site.house.runtime
    site.post("/v1/intents", intent())
    site.post("/v1/intents", intent("nobody"))
    site.house.tick()
    site.house.work()
    # A process of its own, which has counted nothing: what this one counts, its API tells.
    beat(replace(runtime, tally=Tally()), Member("email-1@host", ("email.normal", "email.bulk")))
    site.house.execute("UPDATE workers SET seen_at = now() + interval '10 minutes'")  # it stays
    site.house.hints.in_broker = {"intents": 3, "dead": 1}
    expected = {
        'converge_queue_messages{queue="intents"}': 3,
        'converge_queue_messages{queue="dead"}': 1,
        'converge_intents_total{verdict="accepted"}': 1,
        'converge_intents_total{verdict="refused"}': 1,
        'converge_refusals_total{code="unknown_customer"}': 1,
        'converge_claims_total{account="relay",result="claimed"}': 1,
        'converge_attempts_total{account="relay",outcome="accepted"}': 1,
        'converge_provider_seconds_count{account="relay"}': 1,
        'converge_provider_seconds_bucket{account="relay",le="+Inf"}': 1,
        'converge_permit_wait_seconds_count{account="relay"}': 1,
        'converge_consumers{queue="email.normal"}': 1,
        'converge_consumers{queue="email.urgent"}': 0,
        'converge_api_requests_total{method="POST",route="/v1/intents",status="201"}': 1,
        "converge_ledger_up": 1,
        "converge_redis_up": 1,
        "converge_hints_repeated_total": 0,
    }
    until(site.url, **expected)
    page = until(other, **expected)
    assert page["converge_dispatch_ticks_total"] >= 1
    assert 0 < page['converge_provider_seconds_sum{account="relay"}'] < 30


def test_what_waits_is_told_by_lane_and_nothing_of_customers(site: Site) -> None:
    site.post("/v1/intents", intent(campaign="spring", key="held"))
    site.post("/v1/intents", intent(key="due", urgency="bulk"))
    pause(site.house.runtime, Target(campaign="spring"), Operator("ops", "a test"))
    site.house.execute("UPDATE deliveries SET due_at = now() - interval '90 seconds'")
    page = until(
        site.url,
        **{
            'converge_deliveries_held{channel="email",lane="normal"}': 1,
            'converge_deliveries_due{channel="email",lane="normal"}': 0,
            'converge_deliveries_due{channel="email",lane="bulk"}': 1,
            'converge_deliveries_oldest_due_seconds{channel="email",lane="normal"}': 0,
            'converge_account_breaker_open{account="relay",channel="email"}': 0,
            "converge_pauses": 1,
        },
    )
    late = page['converge_deliveries_oldest_due_seconds{channel="email",lane="bulk"}']
    assert 90 <= late < 120
    text = requests.get(f"{site.url}/metrics", timeout=20).text
    for private in ("ada", "example.com", "991", "spring", site.key):
        assert re.search(rf"\b{re.escape(private)}\b", text) is None
    told = set(re.findall(r"^# HELP (\S+) ", text, re.MULTILINE))
    assert told == {one.name for one in (*GAUGES, *MEASURES)}


def test_lost_leases_lost_hints_and_failures_are_counted(site: Site) -> None:
    site.post("/v1/intents", intent(key="lost"))
    site.house.tick()
    site.house.execute("UPDATE deliveries SET due_at = now() WHERE state = 'queued'")
    site.house.tick()
    until(site.url, converge_hints_repeated_total=1)
    site.house.execute(
        "UPDATE deliveries SET state = 'sending', claim_token = :token, losses = 2, due_at = now()",
        token=UUID(int=1),
    )
    for _ in range(2):  # the lease has ended, and its worker was heard out
        site.house.execute("UPDATE deliveries SET due_at = now()")
        site.house.tick()
    until(
        site.url,
        converge_leases_ended_total=1,
        converge_failures_total=1,
        converge_deliveries_failed=1,
    )


def test_counts_outlive_the_process_that_counted(site: Site) -> None:
    runtime = site.house.runtime
    gone = replace(runtime, tally=Tally())
    gone.tally.add("converge_leases_ended_total", 7)
    beat(gone, Member("email-1@host", ("email.normal",)), "stopped")
    until(site.url, converge_leases_ended_total=7)
    assert upkeep(runtime)["tallies_folded"] == 1
    page = until(site.url, converge_leases_ended_total=7)
    assert page['converge_consumers{queue="email.normal"}'] == 0


def test_a_ledger_that_is_away_is_told_and_no_error(site: Site) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    broken = replace(site.house.runtime, engine=nowhere, catalog=CatalogCache(nowhere))
    with serving(create(broken)) as url:
        assert scrape(url) == {"converge_ledger_up": 0, "converge_redis_up": 1}
