"""What the routes of one application share, and how they reach it."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import anyio
import orjson
from fastapi import Query, Request, Response

from app.api.callers import Keys
from app.api.keeping import Keeper
from app.api.problems import Problem
from app.api.schemas import NO_NUL
from app.api.scrape import Scrape
from app.store.keys import Key
from app.usecases.consent.voices import Named
from app.usecases.operating.keys import KeyRates
from app.usecases.runtime import Runtime

Said = Annotated[str | None, Query(json_schema_extra={"pattern": NO_NUL})]
"""A query parameter that is a string, or left out."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One application's parts. `heavy` bounds the batches that are in work."""

    runtime: Runtime
    keys: Keys
    rates: KeyRates
    scrape: Scrape
    keeper: Keeper
    heavy: anyio.CapacityLimiter


def named(key: Key, ref: str) -> Named:
    """The customer that a caller means, as far as the caller's key reaches."""
    return Named(key.brand_id, ref, key.reach)


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
        if error.msg.startswith("depth limit"):
            raise Problem(422, "invalid", "is nested too deeply", field="body") from error
        why = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise Problem(
            400, "malformed", f"the body cannot be read as JSON: {why}", field="body"
        ) from error
