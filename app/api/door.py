"""The door: every request passes it. It bounds bodies, counts, and lets no fault out as it is."""

import asyncio
import time
from typing import Final

import structlog
from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import FAULT, UNAVAILABLE, Problem
from app.observe.tally import Tally
from app.store.session import LEDGER_AWAY

_log = structlog.get_logger(__name__)

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
HSTS: Final = "max-age=31536000"

HOOK_FACTOR: Final = 3
"""So many times longer than other bodies a webhook may be: who sends it chooses its length, and a
homeserver repeats what is refused before all that comes after it (100 events of 65 kB)."""
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class Door:
    """ASGI middleware around the whole application.

    A request's body is bounded by `max_bytes` (a webhook's by more), and by `body_s` seconds until
    all of it is there.
    """

    def __init__(
        self, app: ASGIApp, tally: Tally, max_bytes: int, *, body_s: float, secure: bool
    ) -> None:
        self._app = app
        self._tally = tally
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
            max_bytes = self._max_bytes * (HOOK_FACTOR if _is_hook(scope["path"]) else 1)
            _look(Headers(scope=scope), max_bytes, scope["path"])
            _refuse_nul(scope)
            body = _Bounded(
                receive,
                max_bytes,
                asyncio.get_running_loop().time() + self._body_s,
                scope["path"],
            )
            await self._app(scope, body, answer)
        except ClientDisconnect:
            return  # nobody is left to be answered
        except Exception as error:
            if answer.status is not None:
                raise
            await _for(error, scope)(scope, receive, answer)
        finally:
            route = _route(scope)
            took_s = time.perf_counter() - began
            status, method = answer.status or 0, _method(scope)
            self._tally.add(
                "converge_api_requests_total", route=route, method=method, status=status
            )
            self._tally.observe("converge_api_request_seconds", took_s, route=route)


def _is_hook(path: str) -> bool:
    return path.startswith("/hooks/")


def _look(headers: Headers, max_bytes: int, path: str) -> None:
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
    if length.isascii() and length.isdigit() and int(length) > max_bytes:
        raise too_large(max_bytes, path)


class _Bounded:
    """Receives a body, and stops where it gets too long, however it was announced, or too late."""

    def __init__(self, receive: Receive, max_bytes: int, deadline: float | None, path: str) -> None:
        self._receive = receive
        self._path = path
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._deadline = deadline

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout_at(self._deadline):  # costs a third of what anyio's does
                message = await self._receive()
        except TimeoutError:
            raise too_slow() from None
        if message["type"] == "http.request":
            if not message.get("more_body", False):
                self._deadline = None  # from here on it waits for the caller to leave
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._max_bytes, self._path)
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


def too_slow() -> Problem:
    """The problem of a body that took too long."""
    return Problem(
        408,
        "too_slow",
        "the body did not arrive in time; send it faster, or in several batches",
        field="body",
        headers={"Connection": "close"},
    )


def too_large(max_bytes: int, path: str = "") -> Problem:
    """The problem of a body over the limit."""
    if _is_hook(path):
        instead = "of the mail that came back, its report and the head of ours are enough"
    else:
        instead = "send intents in several batches"
    return Problem(
        413,
        "too_large",
        f"the body is longer than {max_bytes} bytes; {instead}",
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
    if isinstance(error, LEDGER_AWAY):
        _log.warning("ledger_unavailable", route=_route(scope), exc_info=error)
        return UNAVAILABLE.response()
    _log.error("request_failed", route=_route(scope), exc_info=error)
    return FAULT.response()


def _route(scope: Scope) -> str:
    """The route's pattern: paths hold tokens and refs, which are nobody's to read."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
