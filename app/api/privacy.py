"""What is kept of a customer, given out whole, and erased; and the link by which they do both."""

from typing import Any, Final

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from app.api.callers import Caller
from app.api.customers import Ref
from app.api.description import doc
from app.api.parts import answer, json_body, named, parts
from app.api.preference_schemas import LINK, LINK_WISHED
from app.api.problems import Problem, unknown_customer
from app.api.schemas import EXPORT
from app.store.keys import Key
from app.usecases.consent.inviting import LASTS_H, MOST_H, make_link
from app.usecases.people.erasing import erase
from app.usecases.people.exporting import export
from converge_producer import InvalidIntent
from converge_producer.checks import fields

router = APIRouter(prefix="/v1/customers", tags=["customers"])
_AS_A_FILE: Final = {
    "Content-Disposition": 'attachment; filename="customer.json"',
    "Cache-Control": "no-store",
}


@router.get(
    "/{ref:ref}/export",
    summary="Everything that is kept of a customer",
    openapi_extra=doc({200: EXPORT}, (403, 404)),
)
async def give_out(request: Request, key: Caller, ref: Ref) -> Response:
    """One JSON document with all that is kept of a customer, written as it is read.

    Addresses and texts are in full. That it was asked for is noted in the audit trail. 403: the key
    reaches not all of it.
    """
    _reaches_all(key)
    runtime = parts(request).runtime
    pieces = await anyio.to_thread.run_sync(export, runtime, key.brand_id, ref, _by(key))
    if pieces is None:
        raise unknown_customer()
    return StreamingResponse(pieces, media_type="application/json", headers=_AS_A_FILE)


@router.delete(
    "/{ref:ref}",
    status_code=204,
    summary="Erase a customer",
    openapi_extra=doc({204: None}, (403, 404)),
)
async def delete(request: Request, key: Caller, ref: Ref) -> Response:
    """Erase a customer: all that was said to them and by them, their addresses and names.

    Open intents are cancelled. That something was sent, and what became of it, stays, of nobody. An
    address that said no keeps its no. 403: the key reaches not all of it.
    """
    _reaches_all(key)
    runtime = parts(request).runtime
    if not await anyio.to_thread.run_sync(erase, runtime, key.brand_id, ref, _by(key)):
        raise unknown_customer()
    return Response(status_code=204)


@router.post(
    "/{ref:ref}/preferences/link",
    status_code=201,
    summary="A link to a customer's preference centre",
    openapi_extra=doc(
        {201: LINK}, (400, 403, 404, 413, 415, 422), body=LINK_WISHED, needs_body=False
    ),
)
async def invite(request: Request, key: Caller, ref: Ref) -> Response:
    """Make a link by which a customer sees and changes everything, downloads and erases it.

    Give it to nobody else, and only to whom you know to be the customer. The body may be left out.
    It is noted in the audit trail. 403: the key reaches not all of the customer.
    """
    _reaches_all(key)
    hours = _hours(await json_body(request) if await request.body() else {})

    def made() -> Response:
        runtime = parts(request).runtime
        return answer(make_link(runtime, named(key, ref), actor=_by(key), hours=hours), 201)

    return await anyio.to_thread.run_sync(made)


def _hours(document: Any) -> int:
    try:
        fields({"hours": _whole_hours}, document)
    except InvalidIntent as error:
        raise Problem(422, "invalid", error.reason, field=error.field or "body") from error
    return LASTS_H if document.get("hours") is None else int(document["hours"])


def _whole_hours(value: Any) -> None:
    if isinstance(value, bool) or value not in range(1, MOST_H + 1):
        raise InvalidIntent("", f"must be a whole number between 1 and {MOST_H}")


def _reaches_all(key: Key) -> None:
    if key.test or key.senders is not None:
        raise Problem(
            403,
            "key_too_narrow",
            "this is about the intents of all senders; give a live key that is for no sender alone",
            field="Authorization",
        )


def _by(key: Key) -> str:
    return f"key {key.prefix}"
