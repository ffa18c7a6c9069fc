"""One connection's server side: what comes before a body is bounded in bytes, number and time.

uvicorn bounds none of these with httptools: a header without an end fills the memory, and a head
that comes a byte a minute holds its connection for ever. Bodies are bounded by the door.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.problems import MEDIA_TYPE, Problem

HEAD_BYTES: Final = 32_000
HEADERS: Final = 100
HEAD_S: Final = 15.0


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with bounds (`uvicorn.run(http=BoundedHttp)`)."""

    head_s = HEAD_S

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unread = 0  # bytes in a row that came to nothing yet
        self._came_to_something = False
        self._head_bytes = 0  # of the request that is being read
        self._head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio types it wider
        """Expect a head from now on."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; stop where a head gets too long."""
        self._came_to_something = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._unread = 0 if self._came_to_something else self._unread + len(data)
        if self._unread > HEAD_BYTES:
            self._refuse(_too_long())
        elif self._head_due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def on_message_begin(self) -> None:
        """Begin to count: many a head comes whole, in one read."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take the address, or a part of it; raises when the head gets too long."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer; raises when there are too many, or too long ones."""
        if len(self.headers) >= HEADERS:
            raise ValueError("too many headers")
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("too long a head")

    def on_headers_complete(self) -> None:
        """Begin with the request."""
        self._came_to_something = True
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._came_to_something = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the request."""
        self._came_to_something = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too many headers."""
        many = self.headers is not None and len(self.headers) >= HEADERS
        long = self._head_bytes > HEAD_BYTES
        self._refuse(_too_long() if many or long else Problem(400, "malformed", msg))

    def _expect_head(self) -> None:
        self._head_due = self.loop.call_later(self.head_s, self._late)

    def _head_came(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _late(self) -> None:
        self._head_due = None
        if not self.transport.is_closing():
            self._refuse(Problem(408, "too_slow", "no request arrived in time"))

    def _refuse(self, problem: Problem) -> None:
        body = orjson.dumps(problem.document)
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _too_long() -> Problem:
    return Problem(
        431,
        "head_too_long",
        f"a request's address and headers may have {HEAD_BYTES} bytes and {HEADERS} headers",
        field="headers",
    )
