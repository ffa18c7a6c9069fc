"""The producer says which trace an enqueue belongs to, and only where there is one."""

import subprocess
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from app.observe.tracing import sampled
from converge_producer import Intent, Producer
from converge_producer.tracing import traceparent
from tests.unit.test_producer_http import Api, api, producer

__all__ = ["api", "producer"]


def test_a_request_carries_the_active_span_and_no_other(api: Api, producer: Producer) -> None:
    tracer = TracerProvider().get_tracer("shop")
    producer.enqueue(Intent("ada", "orders", "Hello"))
    with tracer.start_as_current_span("checkout") as span:
        producer.enqueue(Intent("ada", "orders", "Hello"))
    before, during = (headers.get("traceparent") for _, headers, _ in api.requests)
    assert before is None
    of = span.get_span_context()
    assert during == f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"
    assert sampled(during) == during
    assert all("trace" not in intent for _, _, sent in api.requests for intent in sent)


def test_a_span_that_nobody_records_is_carried_and_not_kept() -> None:
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("shop")
    with tracer.start_as_current_span("checkout"):
        carried = traceparent()
    assert carried is not None
    assert int(carried[-2:], 16) & 1 == 0
    assert sampled(carried) is None


def test_without_opentelemetry_nothing_is_imported() -> None:
    code = (
        "import sys, converge_producer.tracing as t; assert t.traceparent() is None; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_traceparent_is_not_kept() -> None:
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    assert sampled(good) == good
    bad = (None, 7, "", good[:-1], good + "-x", good.upper(), good.replace("a" * 32, "0" * 32))
    for one in (*bad, good.replace("b" * 16, "0" * 16), good.replace("00-", "01-", 1), good + "\n"):
        assert sampled(one) is None, one
