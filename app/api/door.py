"""The door: every request passes it. It bounds bodies, counts, and lets no fault out as it is."""

import time
from typing import Final

import anyio
import structlog
from fastapi import Response
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import FAULT, UNAVAILABLE, Problem

_log = structlog.get_logger(__name__)

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
HSTS: Final = "max-age=31536000"


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """What this process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "converge_api_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "converge_api_request_seconds",
            "Time to answer, by route.",
            ["route"],
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.intents = Counter(
            "converge_api_intents_total",
            "Intents handed in over HTTP, by verdict.",
            ["verdict"],
            registry=self.registry,
        )


class Door:
    """ASGI middleware around the whole application.

    A request's body is bounded by `max_bytes`, and by `body_s` seconds until all of it is there.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, max_bytes: int, *, body_s: float, secure: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._body_s = body_s
        self._headers = {**HEADERS, **({"Strict-Transport-Security": HSTS} if secure else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _Answer(send, self._headers)
        try:
            self._look(Headers(scope=scope))
            _refuse_nul(scope)
            body = _Bounded(receive, self._max_bytes, anyio.current_time() + self._body_s)
            await self._app(scope, body, answer)
        except ClientDisconnect:
            return  # nobody is left to be answered
        except Exception as error:
            if answer.status is not None:
                raise
            await _for(error, scope)(scope, receive, answer)
        finally:
            route = _route(scope)
            self._metrics.requests.labels(route, _method(scope), answer.status or 0).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _look(self, headers: Headers) -> None:
        """Refuse by its head what need not be read."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(
                415,
                "content_encoding",
                "compressed bodies are not taken; send it as it is",
                field="Content-Encoding",
                headers={"Accept-Encoding": "identity"},
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise too_large(self._max_bytes)


class _Bounded:
    """Receives a body, and stops where it gets too long, however it was announced, or too late."""

    def __init__(self, receive: Receive, max_bytes: int, deadline: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._deadline = deadline

    async def __call__(self) -> Message:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            message = await self._receive()
        if scope.cancelled_caught:
            raise TOO_SLOW
        if message["type"] == "http.request":
            if not message.get("more_body", False):
                self._deadline = float("inf")  # from here on it waits for the caller to leave
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._max_bytes)
        return message


class _Answer:
    """Sends an answer, with the headers that all have, and remembers its status."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send = send
        self._headers = headers
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)


TOO_SLOW: Final = Problem(
    408,
    "too_slow",
    "the body did not arrive in time; send it faster, or in several batches",
    field="body",
    headers={"Connection": "close"},
)


def too_large(max_bytes: int) -> Problem:
    """The problem of a body over the limit."""
    return Problem(
        413,
        "too_large",
        f"the body is longer than {max_bytes} bytes; send intents in several batches",
        field="body",
    )


def _refuse_nul(scope: Scope) -> None:
    """Nothing of ours has this character in it, and the ledger cannot even be asked for it."""
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise Problem(400, "malformed", "the address holds the character NUL", field="URL")


def _for(error: Exception, scope: Scope) -> Response:
    """What an error that nobody caught is answered with; its text stays here."""
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, PoolTimeout) or (
        isinstance(error, DBAPIError) and type(error).__name__ in _AWAY
    ):
        _log.warning("ledger_unavailable", route=_route(scope), exc_info=error)
        return UNAVAILABLE.response()
    _log.error("request_failed", route=_route(scope), exc_info=error)
    return FAULT.response()


_AWAY: Final = ("OperationalError", "InterfaceError", "InternalError")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def _route(scope: Scope) -> str:
    """The route's pattern: paths hold tokens and refs, which are nobody's to read."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
