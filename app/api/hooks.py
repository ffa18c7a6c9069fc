"""Webhooks of providers: verified, kept, answered; they are read by a task.

These are plain routes, before all others: reports come by the thousand a second, and what the
framework does for parameters would cost more than the work itself.
"""

from datetime import UTC, datetime
from typing import Any, Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from app.api.description import hook_doc
from app.api.parts import parts
from app.api.problems import Problem
from app.api.schemas import Schema
from app.channels.contract import BadSignature, HookRequest
from app.usecases.hearing.hooks import UnknownHook, verified

LONG: Final = 50_000
"""From so many bytes on, a body is verified beside the event loop."""
METHODS: Final = ("POST", "PUT")


async def hook(request: Request) -> Response:
    """Take what a provider reports of one account. A repeat is as welcome as the first."""
    shared = parts(request)
    account = request.path_params["account"]
    told = await _told(request, shared.runtime.words.public_url)
    try:
        if len(told.body) < LONG:
            arrival, answer = verified(shared.runtime, account, told)
        else:
            arrival, answer = await anyio.to_thread.run_sync(
                verified, shared.runtime, account, told
            )
    except UnknownHook as error:
        raise Problem(404, "not_found", "no account of this name takes reports") from error
    except BadSignature as error:
        raise Problem(403, "bad_signature", "the signature does not fit the request") from error
    await shared.keeper.keep(arrival)
    if answer:
        return Response(answer, media_type="application/json")
    return Response(status_code=204)


async def _told(request: Request, public_url: str) -> HookRequest:
    """The request as the vendor made it: many sign the URL, as they wrote it."""
    scope = request.scope
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    path = request.path_params.get("path")
    return HookRequest(
        body=await request.body(),
        headers={
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        },
        url=public_url + (scope["raw_path"] + query).decode("latin-1"),
        received_at=datetime.now(UTC),
        method=scope["method"],
        path="" if path is None else f"/{path}",
    )


class _Route(Route):
    """A route that says which it is, as the framework's own do: metrics are by route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}


ROUTES: Final = tuple(
    _Route(path, hook, methods=METHODS)
    for path in ("/hooks/{account}", "/hooks/{account}/{path:path}")
)


def describe(document: dict[str, Any]) -> None:
    """Put these routes into the description, which knows of the framework's own alone."""
    for route in ROUTES:
        operations: Schema = {}
        for method in METHODS:
            operations[method.lower()] = hook_doc(list(route.param_convertors), method)
        document["paths"][route.path_format] = operations
