"""The wire format of an intent: one JSON object, checked by hand because every intent pays for it.

The producer checks before anything leaves, and accept checks the same on the other side. What
needs the brand's configuration (topics, policies, templates, senders) or real address parsing is
checked there alone.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha1
from typing import Any, Final
from uuid import UUID

from converge_producer.checks import (
    Check,
    each,
    fail,
    fields,
    kind_of,
    matching,
    moment,
    one_of,
    text,
)
from converge_producer.customer import reference, validate_customer
from converge_producer.errors import InvalidIntent

WIRE_VERSION: Final = 1
CHANNELS: Final = ("email", "sms", "chat", "social")
KINDS: Final = ("transactional", "conversational", "marketing")
WHEN_BLOCKED: Final = ("hold", "next", "drop")
URGENCIES: Final = ("urgent", "normal", "bulk")
LANES: Final = URGENCIES

DEFAULT_KIND: Final = "transactional"
DEFAULT_URGENCY: Final = "normal"

MAX_KEY: Final = 200  # characters
MAX_NAME: Final = 200  # characters: topic, sender, campaign, policy
MAX_SUBJECT: Final = 500  # characters
MAX_ACTIONS: Final = 10
MAX_MUST_KEEP: Final = 50
MAX_URL: Final = 2000  # characters
MAX_DEPTH: Final = 32  # lists and objects within each other; decoders give up at some depth
MAX_INTENT_BYTES: Final = 256 * 1024  # of its JSON in UTF-8

# http(s), a literal host (no user:password@, no placeholder), then a path or query that may hold
# {{ placeholders }}. An allow-list: javascript:, data: and disguises by blanks do not match.
_URL: Final = re.compile(
    r"https?://(?:[^\s/?#@{}\[\]\\<>\"'`\x00-\x20\x7f]+|\[[0-9a-f:.]+\](?::[0-9]+)?)"
    r"(?:[/?#](?:[^\s{}\\<>\"`\x00-\x20\x7f]|\{\{[^{}\r\n\x00-\x1f]*\}\})*)?",
    re.IGNORECASE,
)
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_url_text = text(MAX_URL)
_name = text(MAX_NAME)
_anything = text(MAX_INTENT_BYTES, lines=True)


def _url(value: Any) -> None:
    _url_text(value)
    if _URL.fullmatch(value) is None:
        raise fail(
            "must be an http:// or https:// address with a host; "
            "blanks and {{ placeholders }} may not stand in scheme or host"
        )


_ACTION_CHECKS: Final[dict[str, Check]] = {"label": text(100), "url": _url}


def _action(value: Any) -> None:
    fields(_ACTION_CHECKS, value, required=("label", "url"))


_OVERRIDE_CHECKS: Final[dict[str, Check]] = dict.fromkeys(CHANNELS, _anything)


def _overrides(value: Any) -> None:
    fields(_OVERRIDE_CHECKS, value)


_INLINE_CHECKS: Final[dict[str, Check]] = {
    "subject": text(MAX_SUBJECT),
    "text": _anything,
    "actions": each(_action, MAX_ACTIONS),
    "must_keep": each(text(500), MAX_MUST_KEEP),
    "overrides": _overrides,
}
_TEMPLATE_CHECKS: Final[dict[str, Check]] = {
    "template": matching(
        r"[A-Za-z0-9][A-Za-z0-9_-]*", "a template's name: letters, digits, - and _", 100
    ),
}
_INLINE_HINTS: Final = {"attachments": "attachments cannot be sent yet; link to the file instead"}
_TEMPLATE_HINTS: Final = {
    **_INLINE_HINTS,
    **dict.fromkeys(_INLINE_CHECKS, "comes from the template; give text or a template, not both"),
}


def _content(value: Any) -> None:
    if isinstance(value, dict) and value.get("template") is not None:
        given = {name: inner for name, inner in value.items() if inner is not None}
        fields(_TEMPLATE_CHECKS, given, hints=_TEMPLATE_HINTS)
    else:
        fields(_CONTENT_CHECKS, value, required=("text",), hints=_INLINE_HINTS)


_CONTENT_CHECKS: Final[dict[str, Check]] = {**_TEMPLATE_CHECKS, **_INLINE_CHECKS}


def _to(value: Any) -> None:
    if isinstance(value, str):
        reference(value)
    elif isinstance(value, dict):
        validate_customer(value)
    else:
        raise fail(f"must be a customer's ref or a customer object, not {kind_of(value)}")


def _data(value: Any) -> None:
    if not isinstance(value, dict):
        raise fail(f"must be an object, not {kind_of(value)}")
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise fail("has a name that templates cannot use: letters, digits and _ only")


_INTENT_CHECKS: Final[dict[str, Check]] = {
    "key": text(MAX_KEY),
    "sender": _name,
    "to": _to,
    "topic": _name,
    "kind": one_of(KINDS),
    "urgency": one_of(URGENCIES),
    "campaign": _name,
    "content": _content,
    "data": _data,
    "policy": _name,
    "send_after": moment,
    "expires_at": moment,
    "replaces": text(MAX_KEY),
    "when_blocked": one_of(WHEN_BLOCKED),
}
_INTENT_HINTS: Final = {
    "bundle": "bundle is reserved and cannot be used yet",
    "attachments": _INLINE_HINTS["attachments"],
    **{name: f"unknown field; did you mean content.{name}?" for name in _CONTENT_CHECKS},
}


encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Write compact JSON; raises `TypeError` or `ValueError` for what JSON does not have."""


def validate_intent(
    document: Mapping[str, Any],
    now: datetime | None = None,
    encode: Callable[[Mapping[str, Any]], str] = encode,
) -> None:
    """Check an intent's document; raises `InvalidIntent` with the field and the reason.

    With `now` (aware), an intent that has already expired is refused too. `encode` is for who has
    a faster encoder that writes the same JSON.
    """
    pack_intent(document, now, encode)


def pack_intent(
    document: Mapping[str, Any],
    now: datetime | None = None,
    encode: Callable[[Mapping[str, Any]], str] = encode,
) -> str:
    """Check an intent's document like `validate_intent` and return its JSON (compact, UTF-8)."""
    fields(_INTENT_CHECKS, document, required=("to", "topic", "content"), hints=_INTENT_HINTS)
    if document.get("expires_at") is not None:
        _check_times(document, now)
    if document.get("replaces") is not None and document["replaces"] == document.get("key"):
        # Accepted, it would cancel itself.
        raise InvalidIntent("replaces", "must name another key than the intent's own")
    try:
        packed = encode(document)
        size = len(packed) if packed.isascii() else len(packed.encode())
    except (TypeError, ValueError, RecursionError):
        raise _unencodable(document) from None
    if size > MAX_INTENT_BYTES:
        raise fail(f"the intent takes {size} bytes of JSON; at most {MAX_INTENT_BYTES} are allowed")
    if "\\u0000" in packed:
        _refuse_nul(document)
    if packed.count("[") + packed.count("{") > MAX_DEPTH:  # else it cannot be deep
        _refuse_depth(document)
    return packed


# uuid5 of the DNS namespace over "intents.converge"; a constant, since ids must never change.
INTENT_NAMESPACE: Final = UUID("b8eb2585-25ab-5b2b-8cdd-69280fca5106")
_namespace_hash = sha1(INTENT_NAMESPACE.bytes, usedforsecurity=False)


def intent_id(brand: str, sender: str | None, key: str, *, test: bool = False) -> UUID:
    """Return the id that this key has for this sender of this brand, from any process.

    It is `uuid.uuid5(INTENT_NAMESPACE, brand + US + sender + US + key)` (RFC 9562, 5.5), where US
    is the unit separator, which none of the three may contain; a test intent's name ends in a
    further US and "test", so that it never takes the id of a live one.
    """
    digest = _namespace_hash.copy()
    end = "\x1ftest" if test else ""
    digest.update(f"{brand}\x1f{sender or ''}\x1f{key}{end}".encode())
    return UUID(bytes=digest.digest()[:16], version=5)


def _check_times(document: Mapping[str, Any], now: datetime | None) -> None:
    expires_at = moment(document["expires_at"])
    if document.get("send_after") is not None and moment(document["send_after"]) >= expires_at:
        raise InvalidIntent("send_after", "must come before expires_at")
    if now is not None and expires_at <= now:
        raise InvalidIntent("expires_at", "has already passed")


def _unencodable(document: Mapping[str, Any]) -> InvalidIntent:
    """Find the field that JSON or UTF-8 cannot carry; slow, since it hardly ever happens."""
    for name, value in document.items():
        try:
            packed = encode({name: value})
        except RecursionError:
            return InvalidIntent(name, "is nested too deeply")
        except (TypeError, ValueError):
            return InvalidIntent(
                name,
                "must hold JSON values alone: strings, finite numbers, booleans, null, "
                "lists and objects",
            )
        if _LONE_SURROGATE.search(packed):
            return InvalidIntent(name, "holds half a surrogate pair, which is no character")
    return fail("cannot be written as JSON")


def _refuse_nul(document: Mapping[str, Any]) -> None:
    # What looked like the escape may be harmless text about it, hence the second look.
    for name, value in document.items():
        if _holds_nul(value):
            raise InvalidIntent(name, "must not contain the character NUL")


def _refuse_depth(document: Mapping[str, Any]) -> None:
    for name, value in document.items():
        if _deeper_than(value, MAX_DEPTH - 1):
            raise InvalidIntent(name, "is nested too deeply")


def _deeper_than(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_deeper_than(inner, levels - 1) for inner in value)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list | tuple) and any(_holds_nul(part) for part in value)
