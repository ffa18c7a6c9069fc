"""What customers' browsers and mail programs fetch: pixels, links, hosted messages. No key.

Answers never wait for the note that is taken of a fetch, and never tell more than the message did.
"""

from base64 import b64decode
from datetime import UTC, datetime
from typing import Final

import anyio.to_thread
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask

from app.api.parts import Parts, parts
from app.api.schemas import PAGE_CODES, page_doc
from app.content.layout import PAGE_CSP, page
from app.domain.tokens import BadToken, Claims, ExpiredToken
from app.domain.vocabulary import EventType
from app.usecases.links import Fetch, NoSuchLink, fetched, follow, hosted, note_fetch, read_open

_log = structlog.get_logger(__name__)
router = APIRouter(tags=["tracking"])
PIXEL: Final = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_WORDS: Final = {
    404: (
        "This link leads nowhere",
        "It may have been copied incompletely. Please open it from the message itself.",
    ),
    410: ("This link has expired", "Please ask the sender for a new message."),
    503: ("One moment, please", "This page cannot be shown right now. Please try again shortly."),
}


@router.head("/o/{token}", include_in_schema=False)
@router.get("/o/{token}", summary="Pixel", openapi_extra=page_doc("image/gif", 200, ()))
async def pixel(request: Request, token: str) -> Response:
    """A transparent picture of one point, whatever the token is worth."""
    try:
        claims = read_open(parts(request).runtime, token, datetime.now(UTC))
    except (BadToken, ExpiredToken):
        return Response(PIXEL, media_type="image/gif")
    return Response(
        PIXEL, media_type="image/gif", background=_note(request, claims, EventType.OPENED)
    )


@router.head("/c/{token}", include_in_schema=False)
@router.get(
    "/c/{token}",
    status_code=302,
    summary="Link",
    openapi_extra=page_doc("", 302, PAGE_CODES),
)
async def click(request: Request, token: str) -> Response:
    """On to the URL that this link has in its message, and nowhere else."""
    runtime = parts(request).runtime
    try:
        claims, url = await anyio.to_thread.run_sync(follow, runtime, token, datetime.now(UTC))
    except (BadToken, ExpiredToken, NoSuchLink, SQLAlchemyError) as error:
        return _sorry(error)
    answer = RedirectResponse(url, status_code=302)
    answer.background = _note(request, claims, EventType.CLICKED)
    return answer


@router.head("/m/{token}", include_in_schema=False)
@router.get(
    "/m/{token}",
    summary="Hosted message",
    openapi_extra=page_doc("text/html", 200, PAGE_CODES),
)
async def message(request: Request, token: str) -> Response:
    """The whole message as a page. To come here its link was followed, so it counts as a click."""
    runtime = parts(request).runtime
    try:
        claims, body = await anyio.to_thread.run_sync(hosted, runtime, token, datetime.now(UTC))
    except (BadToken, ExpiredToken, NoSuchLink, SQLAlchemyError) as error:
        return _sorry(error)
    return HTMLResponse(
        body,
        headers={"Content-Security-Policy": PAGE_CSP},
        background=_note(request, claims, EventType.CLICKED),
    )


def _note(request: Request, claims: Claims, event: EventType) -> BackgroundTask:
    fetch = fetched(
        claims,
        event,
        agent=request.headers.get("user-agent", ""),
        ip=request.client.host if request.client else "",
        method=request.method,
    )
    return BackgroundTask(_keep, parts(request), fetch)


async def _keep(shared: Parts, fetch: Fetch) -> None:
    await anyio.to_thread.run_sync(
        note_fetch, shared.runtime, fetch, shared.nudge, limiter=shared.notes
    )


def _sorry(error: Exception) -> Response:
    """A plain page for people: no code, no token, nothing to click."""
    if isinstance(error, SQLAlchemyError):
        _log.warning("link_not_read", exc_info=error)
        status = 503
    else:
        status = 410 if isinstance(error, ExpiredToken) else 404
    title, words = _WORDS[status]
    body = page(locale="en", title=title, sender="", body=f"<p>{words}</p>", actions=[])
    headers = {"Content-Security-Policy": PAGE_CSP}
    if status == 503:
        headers["Retry-After"] = "5"
    return HTMLResponse(body, status, headers)
