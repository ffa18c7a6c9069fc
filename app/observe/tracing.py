"""Traces from producer to attempt, exported by OTLP over HTTP. Ids alone: no text, no address.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or its form for traces) is set; the SDK reads that and the
other `OTEL_` variables itself. Who enqueues decides which messages are traced: an intent that came
with a sampled `traceparent` has spans, all others have none.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

_TRACEPARENT: Final = re.compile(
    r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_SAMPLED: Final = 1
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def sampled(traceparent: object) -> str | None:
    """A `traceparent` (W3C Trace Context, version 00) that is well formed and sampled, or None."""
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return found[0] if found and int(found[3], 16) & _SAMPLED else None


class Tracing:
    """Writes spans down after the fact; without a tracer it does nothing. Safe over threads."""

    def __init__(self, tracer: Any = None) -> None:
        self._tracer = tracer

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    def record(
        self,
        name: str,
        trace: str | None,
        began: datetime,
        ended: datetime,
        **attributes: str | int,
    ) -> None:
        """Record a span under a kept `traceparent`; times are aware, attributes ids and words."""
        if self._tracer is None or trace is None:
            return
        span = self._tracer.start_span(
            name,
            context=_parent(trace),
            start_time=_nanoseconds(began),
            attributes={f"converge.{key}": value for key, value in attributes.items()},
        )
        span.end(_nanoseconds(ended))


def tracing(environment: Mapping[str, str]) -> Tracing:
    """Tracing as the environment asks for; the SDK is imported only if it does."""
    if not any(environment.get(name) for name in _ENDPOINTS):
        return Tracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What the environment says of the service wins.
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "converge"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("converge"))


def _parent(trace: str) -> Any:
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    _, trace_id, span_id, flags = trace.split("-")
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                int(trace_id, 16),
                int(span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(int(flags, 16)),
            )
        )
    )


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
