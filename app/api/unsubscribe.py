"""The one-click link of mails (RFC 8058): POST acts, GET asks; no key, no cookie, no redirect.

Mail programs post `List-Unsubscribe=One-Click`, people press the button of the page. Neither body
says anything that the token does not, so none is read. Scanners follow links, and change nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from app.api.description import page_doc
from app.api.pages import page
from app.api.parts import parts
from app.api.tracking import no_link
from app.content.speech import speech
from app.domain.tokens import BadToken, ExpiredToken
from app.usecases.hearing.links import MessageGone, NoSuchLink
from app.usecases.hearing.unsubscribing import Unsubscription, asked, unsubscribe
from app.usecases.runtime import Runtime

router = APIRouter(tags=["tracking"])
_CODES = (404, 410, 503)
_BODY = {
    "requestBody": {
        "content": {
            kind: {"schema": {"type": "object"}}
            for kind in ("application/x-www-form-urlencoded", "multipart/form-data")
        }
    }
}


@router.head("/u/{token}", include_in_schema=False)
@router.get("/u/{token}", summary="Unsubscribe?", openapi_extra=page_doc("text/html", 200, _CODES))
async def ask(request: Request, token: str) -> Response:
    """A page with one button; to come here changes nothing."""
    return await _answer(request, token, asked, done=False)


@router.post(
    "/u/{token}",
    summary="Unsubscribe",
    openapi_extra={**page_doc("text/html", 200, _CODES), **_BODY},
)
async def act(request: Request, token: str) -> Response:
    """Unsubscribe, whatever the body says. It is in effect when this is answered."""
    return await _answer(request, token, unsubscribe, done=True)


Do = Callable[[Runtime, str, datetime], Unsubscription]


async def _answer(request: Request, token: str, do: Do, *, done: bool) -> Response:
    try:
        told = await anyio.to_thread.run_sync(do, parts(request).runtime, token, datetime.now(UTC))
    except (BadToken, ExpiredToken, NoSuchLink, MessageGone, SQLAlchemyError) as error:
        return no_link(request, error)
    return page(
        "unsubscribe.html",
        speech(told.locale),
        done=done,
        kind=told.kind.value,
        who=told.who,
        preferences=told.preferences,
    )
