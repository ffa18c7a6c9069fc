"""What the routes of one application share, and how they reach it."""

from dataclasses import dataclass
from typing import Any, cast

import anyio
import orjson
from fastapi import Request, Response

from app.api.callers import Keys
from app.api.door import Metrics
from app.api.problems import Problem
from app.usecases.links import Nudge
from app.usecases.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Parts:
    """One application's parts. `heavy` bounds the batches, `notes` the fetches that are in work."""

    runtime: Runtime
    keys: Keys
    metrics: Metrics
    nudge: Nudge
    heavy: anyio.CapacityLimiter
    notes: anyio.CapacityLimiter


def parts(request: Request) -> Parts:
    """The parts of the application that a request came to."""
    return cast("Parts", request.app.state.parts)


def answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; orjson writes `datetime` and `UUID` as strings."""
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def media_type(request: Request) -> str:
    """The type of the request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request) -> Any:
    """The request's body, which must be JSON; raises `Problem`."""
    given = media_type(request)
    if given not in ("application/json", ""):
        raise Problem(
            415,
            "media_type",
            "send JSON with Content-Type: application/json",
            field="Content-Type",
            headers={"Accept": "application/json"},
        )
    return parse(await request.body())


def parse(body: bytes) -> Any:
    """Read JSON; raises `Problem` that says where it breaks, and quotes nothing."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, "malformed", f"the body is not JSON ({where})", field="body") from error
