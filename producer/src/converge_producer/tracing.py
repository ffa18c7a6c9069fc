"""The trace that an enqueue belongs to, where the caller's service traces (OpenTelemetry)."""

import sys


def traceparent() -> str | None:
    """Return the active span's context as a `traceparent` (W3C Trace Context), or None.

    OpenTelemetry is not imported: where nobody else did, no span is active.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 0xFF:02x}"
