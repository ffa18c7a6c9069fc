"""Customers over HTTP: kept, read, removed, and everything that was said to them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import anyio.to_thread
import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from app.api.callers import Caller
from app.api.description import doc
from app.api.parts import Said, answer, json_body, named, parts
from app.api.problems import Problem
from app.api.schemas import ACTIVITY, CUSTOMER, CUSTOMER_SHOWN, KEPT, NO_NUL, TIMELINE
from app.domain.vocabulary import Channel
from app.store.keys import Key
from app.usecases.people.addresses import ADDRESS_FIELDS
from app.usecases.people.customers import get_customer, note_active, put_customers
from app.usecases.people.timelines import customer_timeline
from converge_producer import InvalidIntent
from converge_producer.checks import fields, moment, one_of

_ACTIVITY: Final = {"channel": one_of(list(Channel)), "at": moment}
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""So far ahead of ours the clock of whoever tells may be."""


class _RefConvertor(Convertor[str]):
    """A ref in an address. It is the brand's own and may hold a slash, but no address below it."""

    regex = r"(?:(?!/(?:timeline|preferences|preferences/link|consents|activity|export)$).)+"

    def convert(self, value: str) -> str:
        """Take it as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Give it as it is."""
        return value


register_url_convertor("ref", _RefConvertor())
router = APIRouter(prefix="/v1/customers", tags=["customers"])
Ref = Annotated[str, Path(json_schema_extra={"pattern": NO_NUL})]


@router.get(
    "/{ref:ref}/timeline",
    summary="What happened between the brand and a customer",
    openapi_extra=doc({200: TIMELINE}, (404, 422)),
)
async def timeline(
    request: Request,
    key: Caller,
    ref: Ref,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Said = None,
) -> Response:
    """Messages out and in, what came back, decisions and consents, over all channels, newest first.

    Each has a sentence for people, and fields for programs. `next` is the cursor of what was
    before. A key for some senders sees what is theirs, and what customers answered to it.
    """

    def told() -> Response:
        items, after = customer_timeline(
            parts(request).runtime, named(key, ref), limit=limit, cursor=cursor
        )
        return answer({"customer": ref, "items": items, "next": after})

    return await anyio.to_thread.run_sync(told)


@router.put(
    "/{ref:ref}",
    summary="Create or change a customer",
    openapi_extra=doc({200: KEPT}, (400, 403, 413, 415, 422), body=CUSTOMER),
)
async def put(request: Request, key: Caller, ref: Ref) -> Response:
    """Create or change a customer: a field left out stays, null removes it.

    `status` is `stale` where `as_of` is older than what is known, and where a test key speaks of
    a live customer: then nothing was changed. 403: a key for some senders takes addresses away.
    """
    document = await json_body(request)
    if isinstance(document, dict):
        if document.setdefault("ref", ref) != ref:
            raise Problem(422, "invalid", "must be the ref in the address", field="ref")
        _refuse_unkeepable(document)
        _refuse_to_take_away(key, document)

    def kept() -> Response:
        runtime, actor = parts(request).runtime, f"key {key.prefix}"
        (verdict,) = put_customers(runtime, key.brand_id, [document], test=key.test, actor=actor)
        if verdict.status == "refused":
            raise Problem(422, "invalid", verdict.reason or "", field=verdict.field or "body")
        return answer({"ref": verdict.ref, "status": verdict.status})

    return await anyio.to_thread.run_sync(kept)


@router.get(
    "/{ref:ref}",
    summary="Show a customer",
    openapi_extra=doc({200: CUSTOMER_SHOWN}, (404,)),
)
async def show(request: Request, key: Caller, ref: Ref) -> Response:
    """What is known of a customer. Addresses are in full: it is the brand's own record.

    A key for some senders sees them masked, and no attributes.
    """
    runtime = parts(request).runtime
    return answer(await anyio.to_thread.run_sync(get_customer, runtime, named(key, ref)))


@router.post(
    "/{ref:ref}/activity",
    status_code=204,
    summary="Say where a customer is",
    openapi_extra=doc({204: None}, (400, 404, 413, 415, 422), body=ACTIVITY),
)
async def active(request: Request, key: Caller, ref: Ref) -> Response:
    """Say that a customer is, or was, active on a channel; decisions prefer where they are.

    What they open, follow, read and write is noted by itself.
    """
    channel, at = _activity(await json_body(request))
    runtime = parts(request).runtime
    await anyio.to_thread.run_sync(note_active, runtime, named(key, ref), channel, at)
    return Response(status_code=204)


def _activity(document: Any) -> tuple[Channel, datetime | None]:
    """Which channel, and when; raises `Problem`."""
    try:
        fields(_ACTIVITY, document, required=("channel",))
    except InvalidIntent as error:
        raise Problem(422, "invalid", error.reason, field=error.field or "body") from error
    if document["channel"] is None:
        raise Problem(422, "invalid", "is required", field="channel")
    at = moment(document["at"]) if document.get("at") is not None else None
    if at is not None and at > datetime.now(UTC) + CLOCKS_DIFFER:
        raise Problem(422, "invalid", "is still to come; nobody was active then", field="at")
    return Channel(document["channel"]), at


def _refuse_to_take_away(key: Key, document: dict[str, Any]) -> None:
    """Addresses are for all senders: one of them corrects what is wrong, and takes nothing away."""
    gone = [name for name in ADDRESS_FIELDS if name in document and not document[name]]
    if gone and not key.reach.whole:
        raise Problem(
            403,
            "key_too_narrow",
            f"{gone[0]}: addresses are for all senders; give a key that is for no sender alone",
            field="Authorization",
        )


def _refuse_unkeepable(document: dict[str, Any]) -> None:
    """JSON can say what the ledger cannot keep."""
    try:
        written = orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise Problem(422, "invalid", "is nested too deeply", field="attributes") from error
    if b"\\u0000" in written:
        raise Problem(422, "invalid", "must not hold the character NUL", field="body")
