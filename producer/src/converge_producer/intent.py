"""An intent as Python sees it, and its way to and from the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, Final

from converge_producer.checks import fail, kind_of
from converge_producer.customer import Customer
from converge_producer.errors import InvalidIntent
from converge_producer.wire import DEFAULT_KIND, DEFAULT_URGENCY

_MOMENTS: Final = ("send_after", "expires_at")


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that a customer should learn.

    `to` is a customer's ref, or a `Customer` (or its dict) to be created or updated along with it.
    Content is `text` (Markdown) with `subject`, `actions` (dicts of label and url), `must_keep` and
    `overrides` (text by channel), or the name of a `template`, or all of that as a `content` dict.
    Times are aware datetimes or ISO 8601 strings with an offset. Without a `key` each enqueue makes
    a new intent; with one, repeats are the same intent.
    """

    to: str | Customer | Mapping[str, Any]
    topic: str
    text: str | None = None
    _: KW_ONLY
    subject: str | None = None
    actions: Sequence[Mapping[str, str]] | None = None
    must_keep: Sequence[str] | None = None
    overrides: Mapping[str, str] | None = None
    template: str | None = None
    content: Mapping[str, Any] | None = None
    sender: str | None = None
    key: str | None = None
    kind: str = DEFAULT_KIND
    urgency: str = DEFAULT_URGENCY
    campaign: str | None = None
    data: Mapping[str, Any] | None = None
    policy: str | None = None
    send_after: datetime | str | None = None
    expires_at: datetime | str | None = None
    replaces: str | None = None
    when_blocked: str | None = None


_CONTENT_PARTS: Final = ("subject", "text", "actions", "must_keep", "overrides", "template")
_PLAIN_PARTS: Final = (
    *("sender", "key", "topic", "kind", "urgency", "campaign", "data", "policy"),
    *("send_after", "expires_at", "replaces", "when_blocked"),
)


def to_document(intent: Intent | Mapping[str, Any]) -> dict[str, Any]:
    """Return the wire document of an intent, not yet checked: nulls left out, times as strings.

    A mapping is taken as a document already; what it holds of datetimes is written out.
    """
    if isinstance(intent, Intent):
        document = {
            name: value for name in _PLAIN_PARTS if (value := getattr(intent, name)) is not None
        }
        document["to"] = intent.to
        document["content"] = _content(intent)
    elif isinstance(intent, Mapping):
        document = {name: value for name, value in intent.items() if value is not None}
    else:
        raise fail(f"an intent is an Intent or a dict, not {kind_of(intent)}")
    to = document.get("to")
    if not isinstance(to, str):
        document["to"] = _customer_document(to)
    for name in _MOMENTS:
        value = document.get(name)
        if value is not None:
            document[name] = _written(value)
    return document


def from_document(document: Mapping[str, Any]) -> Intent:
    """Return the intent that a checked document stands for; content stays as it was written."""
    given = {name: value for name, value in document.items() if value is not None}
    for name in _MOMENTS:
        if name in given:
            given[name] = datetime.fromisoformat(given[name])
    return Intent(**given)


def _content(intent: Intent) -> dict[str, Any] | Mapping[str, Any]:
    parts = {name: value for name in _CONTENT_PARTS if (value := getattr(intent, name)) is not None}
    if intent.content is None:
        return parts
    if parts:
        raise InvalidIntent("content", f"give content or {', '.join(parts)}, not both")
    return intent.content


def _customer_document(to: Any) -> Any:
    if isinstance(to, Customer):
        return to.document()
    if isinstance(to, Mapping) and isinstance(to.get("as_of"), datetime):
        return {**to, "as_of": _written(to["as_of"])}
    return to


def _written(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
