"""Intents over HTTP: taken one by one or in batches, listed, shown, cancelled."""

from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID, uuid4

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from app.api.batches import BATCH_TYPES, NDJSON, take_batch
from app.api.callers import Caller, hold_to_rate, may_see
from app.api.description import doc
from app.api.parts import Parts, Said, answer, json_body, media_type, parts
from app.api.problems import Problem
from app.api.schemas import (
    CANCELLED,
    ENQUEUED,
    INTENT,
    INTENT_LIST,
    INTENT_SHOWN,
    INTENTS,
    VERDICTS,
)
from app.domain.vocabulary import IntentState
from app.observe.tracing import sampled
from app.store.keys import Key
from app.usecases.intake.accept import accept
from app.usecases.intake.refusing import FAULT
from app.usecases.intake.submission import Submission, Verdict
from app.usecases.operating.control import Operator, cancel_intents
from app.usecases.runtime import Runtime
from app.usecases.telling.inspect import list_intents, show_intent

router = APIRouter(prefix="/v1/intents", tags=["intents"])
FILTERS = ("customer", "sender", "key", "campaign", "state", "limit", "cursor")


@router.post(
    "",
    status_code=201,
    summary="Enqueue one intent",
    openapi_extra=doc(
        {201: ENQUEUED, 200: ENQUEUED},
        (400, 409, 413, 415, 422, 429),
        body=INTENT,
        links={"show": ("intent_id", "id"), "cancel": ("intent_id", "id")},
    ),
)
async def enqueue(request: Request, key: Caller) -> Response:
    """Take one intent: 201, or 200 when the same one was there, after it is safe in the ledger.

    409: its key is taken by another content. 422: it was refused; `field` says what is wrong.
    """
    document = await json_body(request)
    trace = sampled(request.headers.get("traceparent"))
    verdict = await anyio.to_thread.run_sync(_accept_one, parts(request), key, document, trace)
    if verdict.status == "conflict":
        raise _said_no(409, verdict)
    if verdict.status == "refused":
        raise _said_no(500 if verdict.code == FAULT.code else 422, verdict)
    return answer(
        {"id": verdict.id, "key": verdict.key, "status": verdict.status},
        201 if verdict.status == "accepted" else 200,
        {"Location": f"/v1/intents/{verdict.id}"},
    )


@router.post(
    "/batch",
    summary="Enqueue many intents",
    openapi_extra=doc({200: VERDICTS}, (400, 413, 415, 422, 429), body=INTENTS, by_line=NDJSON),
)
async def enqueue_batch(request: Request, key: Caller) -> Response:
    """Take many intents, as a JSON array or one to a line; the answer has a verdict for each.

    One that is refused does not stop the others. `line` counts from 1: lines, or places in the
    array.
    """
    shared = parts(request)
    given = media_type(request)
    if given not in BATCH_TYPES:
        raise Problem(
            415,
            "media_type",
            f"send a JSON array (application/json) or one intent to a line ({NDJSON})",
            field="Content-Type",
            headers={"Accept": f"application/json, {NDJSON}"},
        )
    body = await request.body()
    trace = sampled(request.headers.get("traceparent"))
    results = await anyio.to_thread.run_sync(
        take_batch, shared, key, body, given, trace, limiter=shared.heavy
    )
    return Response(results, media_type="application/json")


@router.get("", summary="List intents", openapi_extra=doc({200: INTENT_LIST}, (422,)))
async def find(
    request: Request,
    key: Caller,
    customer: Said = None,
    sender: Said = None,
    named: Annotated[Said, Query(alias="key")] = None,
    campaign: Said = None,
    state: Annotated[str | None, Query(json_schema_extra={"enum": list(IntentState)})] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Said = None,
) -> Response:
    """The brand's intents, the newest first; `next` is the cursor of the following page."""
    unknown = sorted(set(request.query_params) - set(FILTERS))
    if unknown:
        raise Problem(
            422,
            "unknown_filter",
            f"there is no such filter; there are {', '.join(FILTERS)}",
            field=unknown[0][:60],
        )

    def listed() -> Response:
        rows, after = list_intents(
            parts(request).runtime,
            key.brand_id,
            customer=customer,
            sender=sender,
            key=named,
            campaign=campaign,
            state=state,
            limit=limit,
            cursor=cursor,
            senders=key.senders,
            test=True if key.test else None,
        )
        return answer({"intents": rows, "next": after})

    return await anyio.to_thread.run_sync(listed)


@router.get(
    "/{intent_id}",
    summary="Show an intent",
    operation_id="show",
    openapi_extra=doc({200: INTENT_SHOWN}, (404,)),
)
async def show(request: Request, key: Caller, intent_id: str) -> Response:
    """Everything that happened to an intent, why, and what happens next."""
    shown = await anyio.to_thread.run_sync(visible, parts(request).runtime, key, intent_id)
    return answer(shown)


@router.post(
    "/{intent_id}/cancel",
    summary="Cancel an intent",
    operation_id="cancel",
    openapi_extra=doc({200: CANCELLED}, (404, 409)),
)
async def cancel(request: Request, key: Caller, intent_id: str) -> Response:
    """Say no more of an intent. What is being handed over this moment cannot be recalled.

    409: it has ended otherwise. Cancelling again changes nothing.
    """

    def cancelled() -> Response:
        runtime = parts(request).runtime
        found = visible(runtime, key, intent_id)
        by = Operator(f"key {key.prefix}", "over the API")
        done = found["state"] == "open" and cancel_intents(runtime, [found["id"]], by)
        state = "cancelled" if done else visible(runtime, key, intent_id)["state"]
        if state != "cancelled":
            raise Problem(
                409, "ended", f"the intent has ended already: {state}", more={"state": state}
            )
        return answer({"id": found["id"], "state": state})

    return await anyio.to_thread.run_sync(cancelled)


def _accept_one(shared: Parts, key: Key, document: Any, trace: str | None) -> Verdict:
    hold_to_rate(shared.rates, key, 1)
    submission = Submission(key.brand, uuid4(), key.senders, test=key.test, trace=trace)
    (verdict,) = accept(shared.runtime, submission, [document])
    return verdict


def visible(runtime: Runtime, key: Key, intent_id: str) -> dict[str, Any]:
    """An intent that the key reaches; any other is as if it were not there."""
    found = None
    with suppress(ValueError):
        found = show_intent(runtime, UUID(intent_id), key.brand_id)
    if found is None or not may_see(key, found):
        raise Problem(404, "not_found", "there is no intent with this id", field="id")
    return found


def _said_no(status: int, verdict: Verdict) -> Problem:
    more = {name: value for name, value in (("id", verdict.id), ("key", verdict.key)) if value}
    return Problem(
        status,
        verdict.code or "refused",
        verdict.reason or "",
        field=verdict.field or "body",
        more=more,
    )
