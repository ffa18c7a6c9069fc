"""A collector of traces on loopback: OTLP over HTTP, as `tracing` exports it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Span:
    """What was told of one span."""

    name: str
    trace_id: str
    parent_id: str
    attributes: dict[str, Any]
    seconds: float


@dataclass
class Collector:
    """What came in: the spans, and the bytes that they came in."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        told = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        self.spans += [
            Span(
                one.name,
                one.trace_id.hex(),
                one.parent_span_id.hex(),
                {a.key: a.value.int_value or a.value.string_value for a in one.attributes},
                (one.end_time_unix_nano - one.start_time_unix_nano) / 1e9,
            )
            for resource in told.resource_spans
            for scope in resource.scope_spans
            for one in scope.spans
        ]

    @property
    def names(self) -> set[str]:
        """The names of all spans so far."""
        return {span.name for span in self.spans}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect until the block ends."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
