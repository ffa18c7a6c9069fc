"""Preferences and consents of one customer over HTTP."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from app.api.callers import Caller
from app.api.customers import Ref
from app.api.description import doc
from app.api.parts import Said, answer, json_body, named, parts
from app.api.preference_schemas import (
    CONSENT_LIST,
    PREFERENCES,
    PREFERENCES_WISHED,
    STATEMENTS,
    STATEMENTS_KEPT,
)
from app.api.problems import Problem
from app.store.keys import Key
from app.usecases.consent.preferences import change_preferences, read_preferences
from app.usecases.consent.statements import list_statements, say_by_names
from app.usecases.consent.voices import Voice, checked
from converge_producer.checks import one_of, text

router = APIRouter(prefix="/v1/customers", tags=["customers"])
_WHO: Final = one_of(("brand", "customer"))
_EVIDENCE: Final = text(200)


@router.get(
    "/{ref:ref}/preferences",
    summary="What a customer allows and wishes",
    openapi_extra=doc({200: PREFERENCES}, (404,)),
)
async def show(request: Request, key: Caller, ref: Ref) -> Response:
    """What a customer chose, and what holds `now` because of it, by topic and channel.

    `off` are the noes in force that no other field shows, such as a STOP to one number. A key for
    some senders sees what is about these or about none, with addresses masked.
    """
    runtime = parts(request).runtime
    return await _told(lambda: read_preferences(runtime, named(key, ref)))


@router.put(
    "/{ref:ref}/preferences",
    summary="Change what a customer allows and wishes",
    openapi_extra=doc(
        {200: PREFERENCES}, (400, 403, 404, 409, 413, 415, 422), body=PREFERENCES_WISHED
    ),
)
async def change(request: Request, key: Caller, ref: Ref) -> Response:
    """Change what the body names; a field left out stays, and an answer of GET may be put back.

    `by` says whose word it is: the brand's unless said. 409: the customer said no in person, which
    the brand alone cannot take back. Nothing is changed then. 403: the key reaches not all of it.
    """
    if key.senders is not None:
        raise _too_narrow(
            "preferences are for all senders; give a key that is for no sender alone, or say "
            "consents to your own senders"
        )
    document = await json_body(request)
    voice = _voice(key)
    if isinstance(document, dict):
        voice = _voice(key, document.pop("by", None), document.pop("evidence", None))
    runtime = parts(request).runtime
    return await _told(lambda: change_preferences(runtime, named(key, ref), document, voice))


@router.get(
    "/{ref:ref}/consents",
    summary="What a customer ever allowed or forbade",
    openapi_extra=doc({200: CONSENT_LIST}, (404, 422)),
)
async def history(
    request: Request,
    key: Caller,
    ref: Ref,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Said = None,
) -> Response:
    """Every statement, the newest first; `in_force` where nothing said since takes it back.

    A key for some senders sees what is about these or about none, with addresses masked and without
    who wrote it down and the evidence.
    """
    runtime = parts(request).runtime

    def told() -> Any:
        found, after = list_statements(runtime, named(key, ref), limit=limit, cursor=cursor)
        return {"customer": ref, "consents": found, "next": after}

    return await _told(told)


@router.post(
    "/{ref:ref}/consents",
    status_code=201,
    summary="Say what a customer allows or forbids",
    openapi_extra=doc(
        {201: STATEMENTS_KEPT, 200: STATEMENTS_KEPT},
        (400, 404, 409, 413, 415, 422),
        body=STATEMENTS,
    ),
)
async def say(request: Request, key: Caller, ref: Ref) -> Response:
    """Write one statement down, or several at once: all, or none.

    What a scope leaves out fits anything. What was said under a `key` before says nothing new and
    is told as it was kept: the answer is 200 where nothing was new. 409: something else was said
    under that key.
    """
    document = await json_body(request)
    runtime = parts(request).runtime

    written = await anyio.to_thread.run_sync(
        lambda: say_by_names(runtime, named(key, ref), document, _voice(key))
    )
    return answer({"consents": written.kept}, 201 if written.new else 200)


async def _told(work: Callable[[], Any]) -> Response:
    """Answer with what a use case returns."""
    return answer(await anyio.to_thread.run_sync(work), 200)


def _voice(key: Key, by: Any = None, evidence: Any = None) -> Voice:
    if by is not None:
        checked("by", _WHO, by)
    if evidence is not None:
        checked("evidence", _EVIDENCE, evidence)
    return Voice(
        "api",
        own=by == "customer",
        actor=f"key {key.prefix}",
        evidence=evidence or "",
    )


def _too_narrow(detail: str) -> Problem:
    return Problem(403, "key_too_narrow", detail, field="Authorization")
