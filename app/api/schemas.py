"""What the API takes and answers, as OpenAPI says it.

Bodies are checked by the rules of the wire format (`converge_producer.wire`), which give better
reasons than a schema can; a test holds these descriptions to what really happens.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from app.domain.vocabulary import Channel, DeliveryState, EventType, IntentState
from converge_producer.wire import (
    KINDS,
    MAX_ACTIONS,
    MAX_KEY,
    MAX_MUST_KEEP,
    MAX_NAME,
    MAX_SUBJECT,
    MAX_URL,
    URGENCIES,
)

Schema = dict[str, Any]
RESPONSES: Final = "x-responses"
"""Where an operation keeps its answers until `openapi` puts them in place of the framework's."""
PROBLEM_TYPE: Final = "application/problem+json"
PAGE_CODES: Final = (404, 410, 503)


def _text(most: int | None = None, **more: Any) -> Schema:
    return {"type": "string", **({} if most is None else {"maxLength": most}), **more}


def _maybe(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}


def _object(properties: dict[str, Schema], *, required: Sequence[str] | None = None) -> Schema:
    """An object with no other fields; all of them are there unless `required` says which."""
    names = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": names} if names else {}),
    }


def _list(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most})}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_TIME: Final = _text(format="date-time")
_ID: Final = _text(format="uuid")
_NUMBER: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_FREE: Final[Schema] = {"type": "object"}
_NAME: Final = _maybe(_text(MAX_NAME))
_CHANNEL: Final = _text(enum=list(Channel))
_CURSOR: Final = _maybe(_text(description="give it as `cursor` for the following page"))
_ADDRESS: Final[Schema] = {
    "description": 'one "service:address" or {"service", "address"}, or a list of them',
    "anyOf": [{"type": kind} for kind in ("string", "object", "array", "null")],
}
_ADDRESSES: Final[Schema] = {
    "description": "one, or a list of them; null removes all",
    "anyOf": [_text(), _list(_text(), 20), {"type": "null"}],
}

_CUSTOMER_FIELDS: Final[dict[str, Schema]] = {
    "ref": _text(200, description="the brand's own name for the customer"),
    "name": _maybe(_text(200)),
    "email": _ADDRESSES,
    "phone": _ADDRESSES,
    "chat": _ADDRESS,
    "social": _ADDRESS,
    "locale": _maybe(_text(35)),
    "timezone": _maybe(_text(64)),
    "attributes": _maybe(_FREE),
    "as_of": _maybe(_text(format="date-time", description="older facts never overwrite newer")),
}
_CONTENT: Final[dict[str, Schema]] = {
    "subject": _maybe(_text(MAX_SUBJECT)),
    "text": _maybe(_text(description="Markdown; {{ names }} are filled from data")),
    "actions": _maybe(_list(_object({"label": _text(100), "url": _text(MAX_URL)}), MAX_ACTIONS)),
    "must_keep": _maybe(_list(_text(500), MAX_MUST_KEEP)),
    "overrides": _maybe(_object({name: _maybe(_text()) for name in Channel}, required=())),
    "template": _maybe(_text(100)),
}
_INTENT_FIELDS: Final[dict[str, Schema]] = {
    "key": _maybe(_text(MAX_KEY, description="the same key is the same intent")),
    "sender": _NAME,
    "to": {"anyOf": [_text(200), _ref("Customer")]},
    "topic": _text(MAX_NAME),
    "kind": _maybe(_text(enum=list(KINDS))),
    "urgency": _maybe(_text(enum=list(URGENCIES))),
    "campaign": _NAME,
    "content": _object(_CONTENT, required=()),
    "data": _maybe(_FREE),
    "policy": _NAME,
    "send_after": _maybe(_TIME),
    "expires_at": _maybe(_TIME),
    "replaces": _maybe(_text(MAX_KEY)),
}
_ROW: Final[dict[str, Schema]] = {
    "id": _ID,
    "brand": _text(),
    "state": _text(enum=list(IntentState)),
    "reason": _maybe(_text()),
    "key": _text(),
    "sender": _maybe(_text()),
    "topic": _maybe(_text()),
    "kind": _text(enum=list(KINDS)),
    "urgency": _text(enum=list(URGENCIES)),
    "campaign": _maybe(_text()),
    "policy": _maybe(_text()),
    "customer": _text(),
    "test": _FLAG,
    "accepted_at": _TIME,
    "send_after": _maybe(_TIME),
    "expires_at": _TIME,
    "ended_at": _maybe(_TIME),
    "seen_as": _maybe(_text(enum=list(EventType))),
}
_ENTRY: Final[dict[str, Schema]] = {"at": _TIME, "what": _text(), "text": _text()}
_REFUSAL: Final[dict[str, Schema]] = {
    "id": _NUMBER,
    "brand": _text(),
    "sender": _maybe(_text()),
    "key": _maybe(_text()),
    "intent": _maybe(_ID),
    "field": _text(),
    "code": _text(),
    "reason": _text(),
    "chunk": _ID,
    "line": _NUMBER,
    "refused_at": _TIME,
}
_ATTEMPT: Final[dict[str, Schema]] = {
    "number": _NUMBER,
    "account": _text(),
    "outcome": _text(),
    "reason": _maybe(_text()),
    "ref": _maybe(_text()),
    "started_at": _TIME,
    "finished_at": _TIME,
    "task": _maybe(_ID),
    "worker": _text(),
}
_DELIVERY: Final[dict[str, Schema]] = {
    "id": _NUMBER,
    "step": _NUMBER,
    "channel": _CHANNEL,
    "address": _text(description="masked"),
    "account": _text(),
    "state": _text(enum=list(DeliveryState)),
    "reason": _maybe(_text()),
    "attempts": _list(_object(_ATTEMPT)),
    "created_at": _TIME,
    "due_at": _maybe(_TIME),
    "handed_over_at": _maybe(_TIME),
    "provider_ref": _maybe(_text()),
    "crossed": _FLAG,
}
_EVENT: Final[dict[str, Schema]] = {
    "at": _TIME,
    "received_at": _TIME,
    "delivery": _NUMBER,
    "channel": _maybe(_CHANNEL),
    "type": _text(enum=list(EventType)),
    "reason": _text(),
    "source": _text(),
}
_CONSIDERED: Final[dict[str, Schema]] = {
    "step": _NUMBER,
    "channel": _CHANNEL,
    "why": _text(),
    "endpoint_id": _maybe(_NUMBER),
}
_DECISION: Final[dict[str, Schema]] = {
    "number": _NUMBER,
    "at": _TIME,
    "cause": _text(),
    "verdict": _text(enum=["send", "wait", "stop"]),
    "until": _maybe(_TIME),
    "reason": _text(),
    "considered": _list(_object(_CONSIDERED)),
}
_STORY: Final[dict[str, Schema]] = {
    "refusals": _list(_ref("Refusal")),
    "timeline": _list(_object(_ENTRY)),
    "next": _object({"at": _maybe(_TIME), "text": _text()}),
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        **_object(
            {
                "type": _text(),
                "title": _text(),
                "status": _NUMBER,
                "detail": _text(),
                "code": _text(description="stable, for programs"),
                "field": _text(description="what is wrong in the request"),
                "id": _ID,
                "key": _text(),
                "state": _text(),
            },
            required=("type", "title", "status", "detail", "code"),
        ),
        "description": "RFC 9457",
    },
    "Customer": _object(_CUSTOMER_FIELDS, required=("ref",)),
    "Intent": _object(_INTENT_FIELDS, required=("to", "topic", "content")),
    "Verdict": _object(
        {
            "line": _NUMBER,
            "id": _maybe(_ID),
            "key": _maybe(_text()),
            "status": _text(enum=["accepted", "exists", "conflict", "refused"]),
            "field": _text(),
            "code": _text(),
            "reason": _text(),
        },
        required=("line", "status"),
    ),
    "IntentRow": _object(_ROW),
    "Refusal": _object(_REFUSAL),
    "IntentShown": _object(
        {
            **_ROW,
            "seen_at": _maybe(_TIME),
            "seen_on": _maybe(_CHANNEL),
            "deliveries": _list(_object(_DELIVERY)),
            "events": _list(_object(_EVENT)),
            "decisions": _list(_object(_DECISION)),
            **_STORY,
        }
    ),
    "IntentRefused": _object(
        {
            "id": _ID,
            "state": _text(enum=["refused"]),
            **{
                name: _REFUSAL[name]
                for name in ("brand", "field", "code", "reason", "key", "sender", "refused_at")
            },
            **_STORY,
        }
    ),
}

INTENT: Final = _ref("Intent")
INTENTS: Final = _list(_ref("Intent"))
ENQUEUED: Final = _object({"id": _ID, "key": _text(), "status": _text(enum=["accepted", "exists"])})
VERDICTS: Final = _object({"results": _list(_ref("Verdict"))})
INTENT_LIST: Final = _object({"intents": _list(_ref("IntentRow")), "next": _CURSOR})
INTENT_SHOWN: Final[Schema] = {"oneOf": [_ref("IntentShown"), _ref("IntentRefused")]}
CANCELLED: Final = _object({"id": _ID, "state": _text(enum=["cancelled"])})
# The ref stands in the address, so the body need not repeat it.
CUSTOMER: Final = _object(_CUSTOMER_FIELDS, required=())
KEPT: Final = _object({"ref": _text(), "status": _text(enum=["kept", "stale"])})
CUSTOMER_SHOWN: Final = _object(
    {
        **{name: _CUSTOMER_FIELDS[name] for name in ("ref", "name", "locale", "timezone")},
        "attributes": _FREE,
        "as_of": _maybe(_TIME),
        "created_at": _TIME,
        "updated_at": _TIME,
        "endpoints": _list(
            _object(
                {
                    "channel": _CHANNEL,
                    "service": _text(),
                    "address": _text(),
                    "state": _text(enum=["active", "invalid"]),
                    "reason": _maybe(_text()),
                }
            )
        ),
    }
)
TIMELINE: Final = _object(
    {
        "customer": _text(),
        "items": _list(
            _object({"intent": _ID, "key": _text(), "topic": _maybe(_text()), **_ENTRY})
        ),
        "next": _CURSOR,
    }
)
HEALTHY: Final = _object({"status": _text(enum=["ok"])})
READY: Final = _object(
    {
        "status": _text(enum=["ok", "unfit"]),
        "checks": _object({name: _text() for name in ("ledger", "schema", "redis")}),
    }
)


def doc(
    answers: dict[int, Schema | None],
    errors: Sequence[int] = (),
    *,
    body: Schema | None = None,
    by_line: str | None = None,
    key: bool = True,
    kind: str = "application/json",
) -> Schema:
    """An operation's answers by status (a schema, or None for no body), errors and body.

    `by_line` is the media type in which the body may also come, one `Intent` to a line.
    """
    responses: Schema = {}
    for status, schema in answers.items():
        content = {} if schema is None else {"content": {kind: {"schema": schema}}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **content}
    for status in (*errors, *((401, 503) if key else ())):
        responses.setdefault(str(status), _problem(HTTPStatus(status).phrase))
    responses["default"] = _problem("Any other error")
    request: Schema = {}
    if body is not None:
        content = {"application/json": {"schema": body}}
        if by_line:
            content[by_line] = {"schema": _text(description="one Intent as JSON to a line")}
        request = {"requestBody": {"required": True, "content": content}}
    return {RESPONSES: responses, **request}


def page_doc(kind: str, status: int, errors: Sequence[int]) -> Schema:
    """An operation for browsers: what it answers, and errors that are plain pages."""
    content = {"content": {kind: {"schema": _text()}}} if kind else {}
    responses: Schema = {str(status): {"description": HTTPStatus(status).phrase, **content}}
    for error in errors:
        page = {"text/html": {"schema": _text()}}
        responses[str(error)] = {"description": HTTPStatus(error).phrase, "content": page}
    responses["default"] = _problem("Any other error")
    return {RESPONSES: responses}


def finish(document: Schema) -> Schema:
    """Put our answers and schemas in place of those that the framework guesses."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"] = operation.pop(RESPONSES)
    document.setdefault("components", {})["schemas"] = SCHEMAS
    return document


def _problem(description: str) -> Schema:
    return {
        "description": description,
        "content": {PROBLEM_TYPE: {"schema": _ref("Problem")}},
    }
