"""The world over HTTP: the wire that sandbox providers send to, its state, and a page to watch.

`POST /wire/{channel}`, `Authorization: Bearer SECRET`, a JSON object:
`id` (idempotency key), `to`, `from`, `service`, `text`, `html` (or null), `mime` (base64, for
email; or null), `hook` (the account that receipts go to). Answers:

| status | body | meaning |
|---|---|---|
| 200 | `{"ref": "..."}` | taken; the same `id` gets the same `ref` and is not shown twice |
| 400 | `{"error": "unknown_recipient"}` | nobody has this address |
| 400 | `{"error": "malformed", "field": "..."}` | the field is missing or of a wrong type |
| 401, 404, 413 | `{"error": "..."}` | wrong secret; no such channel; over 10 MB |
"""

import asyncio
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader

from app.sandbox.people import READS, SLOW_ACCEPT_S, Nature, nature_of
from app.sandbox.world import Shown, World

MAX_BYTES = 10_000_000
STATE_MESSAGES = 100
PAGE_SCREENS = 60

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class _Malformed(Exception):
    """A field of the request is missing or of a wrong type; the argument is its name."""


def create_app(world: World, secret: str) -> FastAPI:
    """Build the sandbox's web application."""
    app = FastAPI(title="Converge sandbox", openapi_url=None)
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = templates.get_template("page.html")
    expected = f"Bearer {secret}".encode()

    @app.post("/wire/{channel}")
    async def wire(channel: str, request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, expected):
            return _error(401, "unauthorized")
        if channel not in READS:
            return _error(404, "unknown_channel")
        if int(request.headers.get("content-length") or 0) > MAX_BYTES:
            return _error(413, "too_large")
        try:
            return await _take(world, channel, _document(await request.body()))
        except _Malformed as malformed:
            return _error(400, "malformed", field=str(malformed))

    @app.get("/state")
    async def state(to: str | None = None) -> JSONResponse:
        messages = world.latest(STATE_MESSAGES) if to is None else world.to(to)
        counts: dict[str, dict[str, int]] = {}
        for (channel, what), count in sorted(world.counts.items()):
            counts.setdefault(channel, {})[what] = count
        return JSONResponse({"counts": counts, "messages": [_json(shown) for shown in messages]})

    @app.get("/")
    async def watch() -> HTMLResponse:
        screens = list(world.screens(PAGE_SCREENS))
        return HTMLResponse(page.render(screens=screens, counts=world.counts, channels=READS))

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return app


async def _take(world: World, channel: str, document: Mapping[str, Any]) -> JSONResponse:
    message_id, to = _text(document, "id"), _text(document, "to")
    sender, service = _text(document, "from"), _text(document, "service", optional=True)
    text, hook = _text(document, "text", optional=True), _text(document, "hook", optional=True)
    mime = _bytes(document, "mime")
    if not message_id or not to:
        raise _Malformed("to" if message_id else "id")
    if hook and not _ACCOUNT.fullmatch(hook):
        raise _Malformed("hook")
    nature = nature_of(to)
    if nature is Nature.BOUNCES:
        world.refuse(channel)
        return _error(400, "unknown_recipient")
    if nature is Nature.SLOW:
        await asyncio.sleep(SLOW_ACCEPT_S)
    ref = world.known(message_id)
    if ref is None and mime:
        ref = world.take_mail(sender, to, mime, message_id)
    elif ref is None:
        ref = world.take(channel, to, sender, text, service, hook, message_id)
    return JSONResponse({"ref": ref})


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        raise _Malformed("body") from None
    if not isinstance(document, dict):
        raise _Malformed("body")
    return document


def _text(document: Mapping[str, Any], name: str, *, optional: bool = False) -> str:
    value = document.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise _Malformed(name)
    return value


def _bytes(document: Mapping[str, Any], name: str) -> bytes:
    try:
        return binascii.a2b_base64(_text(document, name, optional=True), strict_mode=True)
    except ValueError:
        raise _Malformed(name) from None


def _error(status: int, error: str, **more: str) -> JSONResponse:
    return JSONResponse({"error": error, **more}, status)


def _json(shown: Shown) -> dict[str, Any]:
    return {
        "channel": shown.channel,
        "service": shown.service,
        "to": shown.to,
        "from": shown.sender,
        "subject": shown.subject,
        "text": shown.text,
        "urls": list(shown.urls),
        "ref": shown.ref,
        "at": shown.at.isoformat(timespec="milliseconds"),
        "deeds": list(shown.deeds),
    }
