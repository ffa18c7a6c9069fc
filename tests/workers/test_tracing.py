"""A trace from a service, over the broker, into the worker processes; and what they count."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from app.usecases.operating.metrics import measure
from tests.collector import Collector, collecting
from tests.workers.fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
FEW = 20


@pytest.fixture(scope="module", autouse=True)
def collector() -> Iterator[Collector]:
    """Autouse, so that the processes of the fleet find it in their environment."""
    with collecting() as collector, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield collector


def test_a_trace_goes_over_the_broker_into_every_worker(fleet: Fleet, collector: Collector) -> None:
    with TracerProvider().get_tracer("shop").start_as_current_span("checkout") as span:
        fleet.enqueue("traced", FEW)
    fleet.enqueue("silent", FEW)
    for campaign in ("traced", "silent"):
        fleet.at_rest(campaign, FEW).check()
    # Each process exports its spans when it comes to it: whoever accepts may be later than all who
    # send.
    fleet.wait(lambda: "converge.accept" in collector.names)
    fleet.wait(lambda: sum(one.name == "converge.attempt" for one in collector.spans) >= FEW)
    context = span.get_span_context()
    assert {one.trace_id for one in collector.spans} == {f"{context.trace_id:032x}"}
    assert collector.names == {"converge.accept", "converge.attempt"}
    assert not any(b"example.com" in body for body in collector.bodies)


def test_what_the_workers_counted_comes_together_in_the_ledger(fleet: Fleet) -> None:
    fleet.enqueue("counted", FEW)
    fleet.at_rest("counted", FEW).check()
    accepted = fleet.count("SELECT count(*) FROM intents")
    tries = fleet.count("SELECT count(*) FROM attempts WHERE outcome = 'accepted'")

    def together() -> bool:
        totals = measure(fleet.runtime).totals or {}
        return (
            totals.get(("converge_intents_total", '{"verdict": "accepted"}')) == accepted
            and totals.get(
                ("converge_attempts_total", '{"account": "relay", "outcome": "accepted"}')
            )
            == tries
        )

    fleet.wait(together)
    gauges = measure(fleet.runtime).gauges
    assert gauges["converge_consumers"]["email.urgent",] == 1
    assert gauges["converge_consumers"]["control",] == 1
