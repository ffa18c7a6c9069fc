"""What customers' browsers and mail programs fetch: pixels, links, hosted messages. No key.

Answers never wait for the note that is taken of a fetch, and never tell more than the message did.
"""

from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import anyio.to_thread
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask

from app.api.description import PAGE_CODES, page_doc
from app.api.keeping import Keeper
from app.api.pages import sorry
from app.api.parts import parts
from app.api.problems import Problem
from app.content.layout import PAGE_CSP
from app.domain.tokens import BadToken, ExpiredToken
from app.store.inbox import Arrival
from app.usecases.hearing.links import (
    CustomerErased,
    Found,
    MessageGone,
    NoSuchLink,
    fetched,
    follow,
    hosted,
    read_open,
)
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)
router = APIRouter(tags=["tracking"])
PIXEL: Final = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


@router.head("/o/{token}", include_in_schema=False)
@router.get("/o/{token}", summary="Pixel", openapi_extra=page_doc("image/gif", 200, ()))
async def pixel(request: Request, token: str) -> Response:
    """A transparent picture of one point, whatever the token is worth."""
    try:
        claims = read_open(parts(request).runtime, token, datetime.now(UTC))
    except (BadToken, ExpiredToken):
        return Response(PIXEL, media_type="image/gif")
    return Response(PIXEL, media_type="image/gif", background=_note(request, Found(claims, "")))


@router.head("/c/{token}", include_in_schema=False)
@router.get(
    "/c/{token}",
    status_code=302,
    summary="Link",
    openapi_extra=page_doc("", 302, PAGE_CODES),
)
async def click(request: Request, token: str) -> Response:
    """On to the URL that this link has in its message, and nowhere else."""
    return await _show(request, token, follow, lambda url: RedirectResponse(url, status_code=302))


@router.head("/m/{token}", include_in_schema=False)
@router.get(
    "/m/{token}",
    summary="Hosted message",
    openapi_extra=page_doc("text/html", 200, PAGE_CODES),
)
async def message(request: Request, token: str) -> Response:
    """The whole message as a page. To come here its link was followed, so it counts as a click."""
    guarded = {"Content-Security-Policy": PAGE_CSP}
    return await _show(request, token, hosted, lambda body: HTMLResponse(body, headers=guarded))


Find = Callable[[Runtime, str, datetime], Found]


async def _show(
    request: Request, token: str, find: Find, shown: Callable[[str], Response]
) -> Response:
    """Answer with what a token leads to, or with a page that says why not."""
    try:
        found = await anyio.to_thread.run_sync(
            find, parts(request).runtime, token, datetime.now(UTC)
        )
    except (BadToken, ExpiredToken, MessageGone, NoSuchLink, SQLAlchemyError) as error:
        return no_link(request, error)
    answer = shown(found.shown)
    answer.background = _note(request, found)
    return answer


def _note(request: Request, found: Found) -> BackgroundTask:
    note = fetched(
        parts(request).runtime,
        found,
        agent=request.headers.get("user-agent", ""),
        ip=request.client.host if request.client else "",
        method=request.method,
    )
    return BackgroundTask(_keep, parts(request).keeper, note)


async def _keep(keeper: Keeper, note: Arrival) -> None:
    """Keep a note. The answer has gone out: whatever goes wrong, the customer must not notice."""
    with suppress(Problem):  # the keeper has logged it
        await keeper.keep(note)


def no_link(request: Request, error: Exception) -> Response:
    """A page for people who followed a link that leads to nothing."""
    if isinstance(error, SQLAlchemyError):
        _log.warning("link_not_read", exc_info=error)
        status = 503
    else:
        status = 410 if isinstance(error, ExpiredToken | MessageGone) else 404
    erased = isinstance(error, CustomerErased)
    return sorry(request.headers.get("accept-language", ""), status, erased=erased)
