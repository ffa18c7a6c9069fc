"""The application, made for one runtime."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from socket import gethostname
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api import (
    centre,
    console,
    customers,
    health,
    hooks,
    intents,
    preferences,
    privacy,
    tracking,
    unsubscribe,
)
from app.api.callers import Keys
from app.api.description import finish
from app.api.door import Door
from app.api.keeping import Keeper
from app.api.parts import Parts
from app.api.problems import (
    Problem,
    on_bad_field,
    on_http_error,
    on_invalid,
    on_overruled,
    on_problem,
    on_unknown_customer,
    on_used_key,
)
from app.api.scrape import Scrape
from app.usecases.consent.voices import NoSuchCustomer, Overruled, UsedKey
from app.usecases.errors import FieldError
from app.usecases.hearing.links import Nudge
from app.usecases.operating.fleet import Member, Pulse
from app.usecases.operating.keys import KeyRates
from app.usecases.runtime import Runtime

MAX_BYTES = 5_000_000
BODY_S = 30.0
BATCHES_AT_ONCE = 4
"""Batches hold the interpreter for long; more of them at once would only wait for each other."""

_HANDLERS = {
    Problem: on_problem,
    FieldError: on_bad_field,
    Overruled: on_overruled,
    UsedKey: on_used_key,
    NoSuchCustomer: on_unknown_customer,
    HTTPException: on_http_error,
    RequestValidationError: on_invalid,
}


def create(
    runtime: Runtime,
    *,
    max_bytes: int = MAX_BYTES,
    body_s: float = BODY_S,
    rate: float | None = None,
) -> FastAPI:
    """Make the application.

    `max_bytes` is the longest request body that is read (a webhook may be three times as long),
    `body_s` how many seconds it may take to arrive, `rate` how many intents a second a key may
    enqueue that has no rate of its own.
    """
    app = FastAPI(
        title="Converge",
        description="Say what a customer should learn; Converge decides where and when.",
        version="1",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirected POST loses its body
        lifespan=partial(_beating, runtime),
    )
    app.state.parts = Parts(
        runtime=runtime,
        keys=Keys(runtime),
        rates=KeyRates(runtime.limits, rate),
        scrape=Scrape(runtime),
        keeper=Keeper(runtime, Nudge(runtime.hints)),
        heavy=anyio.CapacityLimiter(BATCHES_AT_ONCE),
    )
    app.state.methods = defaultdict(set)
    for hook in hooks.ROUTES:
        app.router.routes.append(hook)
        app.state.methods[hook.path] |= hook.methods
    for part in (
        intents,
        preferences,
        privacy,
        customers,
        tracking,
        unsubscribe,
        centre,
        console,
        health,
    ):
        app.include_router(part.router)
        for route in part.router.routes:
            if isinstance(route, APIRoute):
                app.state.methods[route.path] |= route.methods
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    secure = runtime.words.public_url.startswith("https://")
    app.add_middleware(Door, tally=runtime.tally, max_bytes=max_bytes, body_s=body_s, secure=secure)
    app.openapi = partial(_openapi, app, app.openapi)  # type: ignore[method-assign]  # FastAPI's own way to change it
    return app


@asynccontextmanager
async def _beating(runtime: Runtime, app: FastAPI) -> AsyncIterator[None]:
    """While it serves, this process is one of the fleet: what it counts reaches the ledger."""
    del app
    pulse = Pulse(runtime, Member(f"api@{gethostname()}"))
    pulse.start()
    yield
    await anyio.to_thread.run_sync(pulse.stop)


def _openapi(app: FastAPI, guessed: Any) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = guessed()
        hooks.describe(document)
        app.openapi_schema = finish(document)
    return app.openapi_schema
