"""Customers over HTTP: kept, read, removed, and everything that was said to them."""

from typing import Annotated, Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, Query, Request, Response

from app.api.callers import Caller
from app.api.parts import answer, json_body, parts
from app.api.problems import Problem
from app.api.schemas import CUSTOMER, CUSTOMER_SHOWN, KEPT, TIMELINE, doc
from app.store.keys import Key
from app.usecases.customers import delete_customer, get_customer, put_customers
from app.usecases.inspect import BadFilter, list_intents, show_intents
from app.usecases.runtime import Runtime

# Refs are the brand's own and may hold a slash.
router = APIRouter(prefix="/v1/customers", tags=["customers"])


@router.get(
    "/{ref:path}/timeline",
    summary="What was said to a customer",
    openapi_extra=doc({200: TIMELINE}, (404, 422)),
)
async def timeline(
    request: Request,
    key: Caller,
    ref: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> Response:
    """What happened to a customer's intents, the newest first, a page of intents at a time."""

    def told() -> Response:
        runtime = parts(request).runtime
        if get_customer(runtime, key.brand_id, ref) is None:
            raise _unknown()
        try:
            items, after = _timeline(runtime, key, ref, limit, cursor)
        except BadFilter as bad:
            raise Problem(422, "invalid", bad.reason, field=bad.field) from bad
        return answer({"customer": ref, "items": items, "next": after})

    return await anyio.to_thread.run_sync(told)


@router.put(
    "/{ref:path}",
    summary="Create or change a customer",
    openapi_extra=doc({200: KEPT}, (400, 413, 415, 422), body=CUSTOMER),
)
async def put(request: Request, key: Caller, ref: str) -> Response:
    """Create or change a customer: a field left out stays, null removes it.

    `status` is `stale` where `as_of` is older than what is known, and where a test key speaks of
    a live customer: then nothing was changed.
    """
    document = await json_body(request)
    if isinstance(document, dict):
        if document.setdefault("ref", ref) != ref:
            raise Problem(422, "invalid", "must be the ref in the address", field="ref")
        _refuse_unkeepable(document)

    def kept() -> Response:
        (verdict,) = put_customers(parts(request).runtime, key.brand_id, [document], test=key.test)
        if verdict.status == "refused":
            raise Problem(422, "invalid", verdict.reason or "", field=verdict.field or "body")
        return answer({"ref": verdict.ref, "status": verdict.status})

    return await anyio.to_thread.run_sync(kept)


@router.get(
    "/{ref:path}",
    summary="Show a customer",
    openapi_extra=doc({200: CUSTOMER_SHOWN}, (404,)),
)
async def show(request: Request, key: Caller, ref: str) -> Response:
    """What is known of a customer. Addresses are in full: it is the brand's own record."""
    runtime = parts(request).runtime
    found = await anyio.to_thread.run_sync(get_customer, runtime, key.brand_id, ref)
    if found is None:
        raise _unknown()
    return answer(found)


@router.delete(
    "/{ref:path}",
    status_code=204,
    summary="Remove a customer",
    openapi_extra=doc({204: None}, (403, 404)),
)
async def delete(request: Request, key: Caller, ref: str) -> Response:
    """Remove a customer with all addresses; open intents are cancelled.

    What was said before stays counted, without the person. 403: the key reaches not all of them.
    """
    if key.test or key.senders is not None:
        raise Problem(
            403,
            "key_too_narrow",
            "this ends the intents of all senders; give a live key that is for no sender alone",
            field="Authorization",
        )
    runtime = parts(request).runtime
    by = f"key {key.prefix}"
    if not await anyio.to_thread.run_sync(delete_customer, runtime, key.brand_id, ref, by):
        raise _unknown()
    return Response(status_code=204)


def _timeline(
    runtime: Runtime, key: Key, ref: str, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    rows, after = list_intents(
        runtime,
        key.brand_id,
        customer=ref,
        limit=limit,
        cursor=cursor,
        senders=key.senders,
        test=True if key.test else None,
    )
    items = [
        {"intent": intent["id"], "key": intent["key"], "topic": intent["topic"], **entry}
        for intent in show_intents(runtime, [row["id"] for row in rows])
        for entry in reversed(intent["timeline"])
    ]
    return items, after


def _refuse_unkeepable(document: dict[str, Any]) -> None:
    """JSON can say what the ledger cannot keep."""
    try:
        written = orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise Problem(422, "invalid", "is nested too deeply", field="attributes") from error
    if b"\\u0000" in written:
        raise Problem(422, "invalid", "must not hold the character NUL", field="body")


def _unknown() -> Problem:
    return Problem(404, "not_found", "there is no customer with this ref", field="ref")
