"""One trace from the producer to what came back, with ids in it and nothing of the customer."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from app.api import create
from app.observe.tracing import tracing
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.keys import create_key
from converge_producer import Customer, Intent, Producer
from tests.collector import Collector, collecting
from tests.e2e.api import BROWSER, Site, house, serving, sink
from tests.e2e.conftest import wait_for
from tests.store.conftest import House

__all__ = ["house", "sink"]
PRIVATE = ("cust-ada", "ada@example.com", "Ada Example", "12025550101", "991", "secret")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
def site(house: House, collector: Collector) -> Iterator[Site]:
    """The API of a house that traces to the collector."""
    del collector  # it is there before we look for it
    house.runtime = replace(house.runtime, tracing=tracing(os.environ))
    with serving(create(house.runtime)) as url:
        yield Site(house, url, create_key(house.runtime, "demo"))


def _intent(key: str) -> Intent:
    ada = Customer(
        ref="cust-ada", email="ada@example.com", phone="+12025550101", name="Ada Example"
    )
    text = "Your **secret** order 991, [see](https://shop.example/991)."
    return Intent(ada, "orders", text, subject="Order 991", key=key, urgency="urgent")


def test_one_trace_from_the_producer_to_what_came_back(site: Site, collector: Collector) -> None:
    house = site.house
    with Producer(site.url, site.key) as producer:
        with TracerProvider().get_tracer("shop").start_as_current_span("checkout") as span:
            its_id = producer.enqueue(_intent("traced"))
        unheard = TracerProvider(sampler=ALWAYS_OFF).get_tracer("shop")
        with unheard.start_as_current_span("checkout"):
            producer.enqueue(_intent("not sampled"))
        producer.enqueue(_intent("not traced"))
    house.run()
    house.execute("UPDATE deliveries SET due_at = now(), handed_over_at = now() - interval '1 h'")
    house.run()  # nobody has seen it: the next channel
    for mail in house.sink.messages:
        html = message_from_bytes(mail.mime, policy=policy.default).get_body(("html",))
        assert html is not None
        path = re.findall(r"https://converge\.example(/c/[\w-]{36})", str(html.get_content()))[0]
        assert site.fetch(path, agent=BROWSER).status_code == 302
    kept = "SELECT 1 FROM inbox"  # a fetch is noted after its answer
    wait_for(lambda: len(house.rows(kept)) == 3, "the three fetches are kept")
    read_feedback(house.runtime)
    wait_for(lambda: "converge.event" in collector.names, "the last span is exported")

    of = span.get_span_context()
    assert {one.trace_id for one in collector.spans} == {f"{of.trace_id:032x}"}
    assert {one.parent_id for one in collector.spans} == {f"{of.span_id:016x}"}
    assert {one.attributes["converge.intent_id"] for one in collector.spans} == {str(its_id)}
    told = [
        (one.name, one.attributes.get("converge.account"), one.attributes.get("converge.outcome"))
        for one in collector.spans
    ]
    assert sorted(told, key=str) == [
        ("converge.accept", None, None),
        ("converge.attempt", "relay", "accepted"),
        ("converge.attempt", "texts", "retryable"),
        ("converge.decide", None, "send"),
        ("converge.event", "relay", "clicked"),
    ]
    deliveries = {
        row[0] for row in house.rows("SELECT id FROM deliveries WHERE intent_id = :id", id=its_id)
    }
    spoken = [one.attributes.get("converge.delivery_id") for one in collector.spans]
    assert {one for one in spoken if one is not None} == deliveries
    assert all(0 <= one.seconds < 60 for one in collector.spans)
    for body in collector.bodies:
        assert not [word for word in PRIVATE if word.encode() in body]


def test_without_a_collector_nothing_is_traced_and_the_trace_is_kept(house: House) -> None:
    """Whoever has one may come later; a worker without one never imports the SDK."""
    assert not house.runtime.tracing.on
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    house.accept(
        {
            "to": {"ref": "ada", "email": "ada@example.com"},
            "topic": "orders",
            "content": {"text": "Hello"},
        },
        trace=trace,
    )
    house.run()
    assert house.states() == {"sent": 1}
    assert house.rows("SELECT trace FROM intents") == [(trace,)]
