"""The application, made for one runtime."""

from collections import defaultdict
from functools import partial
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api import customers, health, hooks, intents, tracking
from app.api.callers import Keys
from app.api.door import Door, Metrics
from app.api.parts import Parts
from app.api.problems import Problem, on_http_error, on_invalid, on_problem
from app.api.schemas import finish
from app.usecases.links import Nudge
from app.usecases.runtime import Runtime

MAX_BYTES = 5_000_000
BODY_S = 30.0
BATCHES_AT_ONCE = 4
"""Batches hold the interpreter for long; more of them at once would only wait for each other."""
NOTES_AT_ONCE = 4


def create(runtime: Runtime, *, max_bytes: int = MAX_BYTES, body_s: float = BODY_S) -> FastAPI:
    """Make the application.

    `max_bytes` is the longest request body that is read, `body_s` how many seconds it may take to
    arrive.
    """
    app = FastAPI(
        title="Converge",
        description="Say what a customer should learn; Converge decides where and when.",
        version="1",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirected POST loses its body
    )
    metrics = Metrics()
    app.state.parts = Parts(
        runtime=runtime,
        keys=Keys(runtime),
        metrics=metrics,
        nudge=Nudge(runtime.hints),
        heavy=anyio.CapacityLimiter(BATCHES_AT_ONCE),
        notes=anyio.CapacityLimiter(NOTES_AT_ONCE),
    )
    app.state.methods = defaultdict(set)
    for part in (intents, customers, tracking, hooks, health):
        app.include_router(part.router)
        for route in part.router.routes:
            if isinstance(route, APIRoute):
                app.state.methods[route.path] |= route.methods
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    secure = runtime.words.public_url.startswith("https://")
    app.add_middleware(Door, metrics=metrics, max_bytes=max_bytes, body_s=body_s, secure=secure)
    app.openapi = partial(_openapi, app, app.openapi)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI, guessed: Any) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = finish(guessed())
    return app.openapi_schema
