"""Webhooks of providers: verified, kept, answered; they are read by a task."""

from datetime import UTC, datetime

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from app.api.parts import Parts, parts
from app.api.problems import Problem
from app.api.schemas import doc
from app.channels.contract import BadSignature, HookRequest
from app.usecases.hooks import UnknownHook, receive

router = APIRouter(tags=["webhooks"])


@router.post(
    "/hooks/{account}",
    status_code=204,
    summary="A provider's report",
    openapi_extra=doc({204: None}, (403, 404, 413, 415, 503), key=False),
)
async def hook(request: Request, account: str) -> Response:
    """Take what a provider reports of one account. A repeat is as welcome as the first."""
    query = f"?{request.url.query}" if request.url.query else ""
    shared = parts(request)
    told = HookRequest(
        body=await request.body(),
        headers={name.lower(): value for name, value in request.headers.items()},
        url=f"{shared.runtime.words.public_url}/hooks/{account}{query}",
        received_at=datetime.now(UTC),
    )
    return await anyio.to_thread.run_sync(_receive, shared, account, told)


def _receive(shared: Parts, account: str, told: HookRequest) -> Response:
    try:
        new = receive(shared.runtime, account, told)
    except UnknownHook as error:
        raise Problem(404, "not_found", "no account of this name takes reports") from error
    except BadSignature as error:
        raise Problem(403, "bad_signature", "the signature does not fit the body") from error
    if new:
        shared.nudge()
    return Response(status_code=204)
