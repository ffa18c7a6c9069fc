"""What the API takes and answers, as JSON Schema says it.

Bodies are checked by the rules of the wire format (`converge_producer.wire`), which give better
reasons than a schema can; a test holds these descriptions to what really happens. One table, which
is read by its names: hence its length.
"""

from collections.abc import Sequence
from typing import Any, Final

from app.domain.decision import Reason
from app.domain.vocabulary import Channel, DeliveryState, EventType, IntentState
from app.store.timelines import SORTS
from converge_producer.wire import (
    KINDS,
    MAX_ACTIONS,
    MAX_KEY,
    MAX_MUST_KEEP,
    MAX_NAME,
    MAX_SUBJECT,
    MAX_URL,
    URGENCIES,
    WHEN_BLOCKED,
)

Schema = dict[str, Any]
EVENTS: Final = [one for one in EventType if one is not EventType.ACCEPTED]
NO_NUL: Final = "^[^\\u0000]*$"
"""What every part of an address fits: no address holds the character NUL."""


def text(most: int | None = None, **more: Any) -> Schema:
    """A string of at most so many characters."""
    return {"type": "string", **({} if most is None else {"maxLength": most}), **more}


def said(most: int | None = None, **more: Any) -> Schema:
    """Text that says something."""
    return text(most, minLength=1, **more)


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}


def shape(properties: dict[str, Schema], *, required: Sequence[str] | None = None) -> Schema:
    """An object with no other fields; all of them are there unless `required` says which."""
    names = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": names} if names else {}),
    }


def listed(items: Schema, most: int | None = None) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most})}


def ref(name: str) -> Schema:
    """The schema of this name in `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_TIME: Final = text(format="date-time")
_ID: Final = text(format="uuid")
_NUMBER: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_FREE: Final[Schema] = {"type": "object"}
_NAME: Final = maybe(said(MAX_NAME))
_CHANNEL: Final = text(enum=list(Channel))
_CURSOR: Final = maybe(text(description="give it as `cursor` for the following page"))
_WEB: Final = text(MAX_URL, pattern="^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+")
_ADDRESS: Final[Schema] = {
    "description": 'one "service:address" or {"service", "address"}, or a list of them',
    "anyOf": [{"type": kind} for kind in ("string", "object", "array", "null")],
}
_ADDRESSES: Final[Schema] = {
    "description": "one, or a list of them; null removes all",
    "anyOf": [said(), listed(said(), 20), {"type": "null"}],
}

_CUSTOMER_FIELDS: Final[dict[str, Schema]] = {
    "ref": said(200, description="the brand's own name for the customer"),
    "name": maybe(said(200)),
    "email": _ADDRESSES,
    "phone": _ADDRESSES,
    "chat": _ADDRESS,
    "social": _ADDRESS,
    "locale": maybe(said(35)),
    "timezone": maybe(said(64)),
    "attributes": maybe(_FREE),
    "as_of": maybe(text(format="date-time", description="older facts never overwrite newer")),
}
_CONTENT: Final[dict[str, Schema]] = {
    "subject": maybe(said(MAX_SUBJECT)),
    "text": maybe(said(description="Markdown; {{ names }} are filled from data")),
    "actions": maybe(listed(shape({"label": said(100), "url": _WEB}), MAX_ACTIONS)),
    "must_keep": maybe(listed(said(500), MAX_MUST_KEEP)),
    "overrides": maybe(shape({name: maybe(said()) for name in Channel}, required=())),
    "template": maybe(said(100, pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")),
}
_INTENT_FIELDS: Final[dict[str, Schema]] = {
    "key": maybe(said(MAX_KEY, description="the same key is the same intent")),
    "sender": _NAME,
    "to": {"anyOf": [said(200), ref("Customer")]},
    "topic": said(MAX_NAME),
    "kind": maybe(text(enum=list(KINDS))),
    "urgency": maybe(text(enum=list(URGENCIES))),
    "campaign": _NAME,
    "content": {
        **shape(_CONTENT, required=()),
        "anyOf": [{"required": ["text"]}, {"required": ["template"]}],
    },
    "data": maybe({**_FREE, "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$"}}),
    "policy": _NAME,
    "send_after": maybe(_TIME),
    "expires_at": maybe(_TIME),
    "replaces": maybe(said(MAX_KEY)),
    "when_blocked": maybe(text(enum=list(WHEN_BLOCKED))),
}
_ROW: Final[dict[str, Schema]] = {
    "id": _ID,
    "brand": text(),
    "state": text(enum=list(IntentState)),
    "reason": maybe(text()),
    "key": text(),
    "sender": maybe(text()),
    "topic": maybe(text()),
    "kind": text(enum=list(KINDS)),
    "urgency": text(enum=list(URGENCIES)),
    "campaign": maybe(text()),
    "policy": maybe(text()),
    "customer": text(),
    "test": _FLAG,
    "accepted_at": _TIME,
    "send_after": maybe(_TIME),
    "expires_at": _TIME,
    "ended_at": maybe(_TIME),
    "seen_as": maybe(text(enum=EVENTS)),
}
_ENTRY: Final[dict[str, Schema]] = {"at": _TIME, "what": text(), "text": text()}
_REFUSAL: Final[dict[str, Schema]] = {
    "id": _NUMBER,
    "brand": text(),
    "sender": maybe(text()),
    "key": maybe(text()),
    "intent": maybe(_ID),
    "field": text(),
    "code": text(),
    "reason": text(),
    "chunk": _ID,
    "line": _NUMBER,
    "refused_at": _TIME,
}
_ATTEMPT: Final[dict[str, Schema]] = {
    "number": _NUMBER,
    "account": text(),
    "outcome": text(),
    "reason": maybe(text()),
    "ref": maybe(text()),
    "started_at": _TIME,
    "finished_at": _TIME,
    "task": maybe(_ID),
    "worker": text(),
}
_CHOICE: Final[dict[str, Schema]] = {
    "account": text(),
    "share": {"type": "number"},
    "weight": _NUMBER,
    "cost_micros": _NUMBER,
    "errors": {"type": "number"},
    "slow": _FLAG,
    "left": maybe(text()),
}
_DELIVERY: Final[dict[str, Schema]] = {
    "id": _NUMBER,
    "step": _NUMBER,
    "channel": _CHANNEL,
    "address": text(description="masked"),
    "account": text(),
    "state": text(enum=list(DeliveryState)),
    "reason": maybe(text()),
    "attempts": listed(shape(_ATTEMPT)),
    "created_at": _TIME,
    "due_at": maybe(_TIME),
    "handed_over_at": maybe(_TIME),
    "provider_ref": maybe(text()),
    "crossed": _FLAG,
    "choice": maybe(listed(shape(_CHOICE))),
}
_EVENT: Final[dict[str, Schema]] = {
    "at": _TIME,
    "received_at": _TIME,
    "delivery": _NUMBER,
    "channel": maybe(_CHANNEL),
    "type": text(enum=EVENTS),
    "reason": text(),
    "source": text(),
}
_CONSIDERED: Final[dict[str, Schema]] = {
    "step": _NUMBER,
    "channel": _CHANNEL,
    "why": text(enum=list(Reason)),
    "endpoint_id": maybe(_NUMBER),
    "until": maybe(_TIME),
    "told": maybe(text(description="what stands in its way, or why it came first")),
}
_DECISION: Final[dict[str, Schema]] = {
    "number": _NUMBER,
    "at": _TIME,
    "cause": text(),
    "verdict": text(enum=["send", "wait", "stop"]),
    "until": maybe(_TIME),
    "reason": text(),
    "considered": listed(shape(_CONSIDERED)),
}
_STORY: Final[dict[str, Schema]] = {
    "refusals": listed(ref("Refusal")),
    "timeline": listed(shape(_ENTRY)),
    "next": shape({"at": maybe(_TIME), "text": text()}),
}

_EXAMPLE: Final = {
    "key": "order-991-shipped",
    "to": {"ref": "cust-42", "email": "ada@example.com"},
    "topic": "orders",
    "content": {
        "subject": "Order {{ number }} is on its way",
        "text": "Your order **{{ number }}** left us today.",
        "actions": [{"label": "Track it", "url": "https://shop.example/t/991"}],
    },
    "data": {"number": "991"},
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        **shape(
            {
                "type": text(),
                "title": text(),
                "status": _NUMBER,
                "detail": text(),
                "code": text(description="stable, for programs"),
                "field": text(description="what is wrong in the request"),
                "id": _ID,
                "key": text(),
                "state": text(),
            },
            required=("type", "title", "status", "detail", "code"),
        ),
        "description": "RFC 9457",
    },
    "Customer": shape(_CUSTOMER_FIELDS, required=("ref",)),
    "Intent": {
        **shape(_INTENT_FIELDS, required=("to", "topic", "content")),
        "examples": [_EXAMPLE],
    },
    "Verdict": shape(
        {
            "line": _NUMBER,
            "id": maybe(_ID),
            "key": maybe(text()),
            "status": text(enum=["accepted", "exists", "conflict", "refused"]),
            "field": text(),
            "code": text(),
            "reason": text(),
        },
        required=("line", "status"),
    ),
    "IntentRow": shape(_ROW),
    "Refusal": shape(_REFUSAL),
    "IntentShown": shape(
        {
            **_ROW,
            "seen_at": maybe(_TIME),
            "seen_on": maybe(_CHANNEL),
            "deliveries": listed(shape(_DELIVERY)),
            "events": listed(shape(_EVENT)),
            "decisions": listed(shape(_DECISION)),
            **_STORY,
        }
    ),
    "IntentRefused": shape(
        {
            "id": _ID,
            "state": text(enum=["refused"]),
            **{
                name: _REFUSAL[name]
                for name in ("brand", "field", "code", "reason", "key", "sender", "refused_at")
            },
            **_STORY,
        }
    ),
}

INTENT: Final = ref("Intent")
INTENTS: Final = listed(ref("Intent"))
ENQUEUED: Final = shape({"id": _ID, "key": text(), "status": text(enum=["accepted", "exists"])})
VERDICTS: Final = shape({"results": listed(ref("Verdict"))})
INTENT_LIST: Final = shape({"intents": listed(ref("IntentRow")), "next": _CURSOR})
INTENT_SHOWN: Final[Schema] = {"oneOf": [ref("IntentShown"), ref("IntentRefused")]}
CANCELLED: Final = shape({"id": _ID, "state": text(enum=["cancelled"])})
# The ref stands in the address. The body may repeat it, but had better not.
CUSTOMER: Final = {
    **shape({name: one for name, one in _CUSTOMER_FIELDS.items() if name != "ref"}, required=()),
    "examples": [{"email": "ada@example.com", "name": "Ada", "locale": "en-GB"}],
}
ACTIVITY: Final = {
    **shape({"channel": _CHANNEL, "at": maybe(_TIME)}, required=("channel",)),
    "examples": [{"channel": "chat"}],
}
EXPORT: Final = shape(
    {
        "format": text(enum=["converge-customer-1"]),
        "exported_at": _TIME,
        "brand": text(),
        "customer": _FREE,
        **{
            name: listed(_FREE)
            for name in (
                "endpoints",
                "activity",
                "counts",
                "audit",
                "consents",
                "messages_in",
                "refusals",
                "intents",
            )
        },
    }
)
KEPT: Final = shape({"ref": text(), "status": text(enum=["kept", "stale"])})
CUSTOMER_SHOWN: Final = shape(
    {
        **{name: _CUSTOMER_FIELDS[name] for name in ("ref", "name", "locale", "timezone")},
        "attributes": _FREE,
        "as_of": maybe(_TIME),
        "created_at": _TIME,
        "updated_at": _TIME,
        "endpoints": listed(
            shape(
                {
                    "channel": _CHANNEL,
                    "service": text(),
                    "address": text(),
                    "state": text(enum=["active", "invalid"]),
                    "reason": maybe(text()),
                }
            )
        ),
    }
)
_SAID: Final = shape(
    {
        "allow": _FLAG,
        "scope": shape(
            {
                "channel": maybe(_CHANNEL),
                "address": maybe(text(description="masked")),
                "sender": maybe(text()),
                "topic": maybe(text()),
                "kind": maybe(text(enum=list(KINDS))),
            }
        ),
        "until": maybe(_TIME),
        "source": text(),
        "by": text(enum=["customer", "brand", "law"]),
    }
)
_HAPPENED: Final[dict[str, Schema]] = {
    "at": _TIME,
    "what": text(enum=list(SORTS)),
    "text": text(description="a sentence for people"),
    "direction": maybe(text(enum=["out", "in"], description="of a message")),
    "channel": maybe(_CHANNEL),
    "address": maybe(text(description="masked")),
    "intent": maybe(_ID),
    "key": maybe(text()),
    "topic": maybe(text()),
    "sender": maybe(text()),
    "delivery": maybe(_NUMBER),
    "verdict": maybe(text(enum=["send", "wait", "stop"])),
    "until": maybe(_TIME),
    "outcome": maybe(text()),
    "event": maybe(text(enum=EVENTS)),
    "statement": {"anyOf": [_SAID, {"type": "null"}]},
}
TIMELINE: Final = shape(
    {
        "customer": text(),
        "items": listed(shape(_HAPPENED)),
        "next": _CURSOR,
    }
)
HEALTHY: Final = shape({"status": text(enum=["ok"])})
READY: Final = shape(
    {
        "status": text(enum=["ok", "unavailable"]),
        "checks": shape({name: text() for name in ("ledger", "schema", "redis")}),
    }
)
