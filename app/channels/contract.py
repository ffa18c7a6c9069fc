"""The contract between Converge and every way out of it.

A provider is a class with `traits`, a pydantic `Settings` model and
`send(batch, deadline) -> outcomes`. `send` is total: whatever the vendor or the network does is an
outcome, one per message, in the batch's order; an exception out of it is our bug. It never sleeps
for its own sake, never retries, never logs a body and never touches the ledger. It honours
`deadline`, a point on `time.monotonic()`: what has no verdict by then is `Ambiguous` if bytes left
us, else `Retryable`. One instance serves one account in one process and is called by many threads
at once.

A provider with receipts is also a `WebhookReader`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from app.domain.body import Body, ChatBody, EmailBody, TextBody
from app.domain.outcome import (
    Accepted,
    Ambiguous,
    Blame,
    Outcome,
    RateLimited,
    Rejected,
    Retryable,
)
from app.domain.vocabulary import Channel, EventType

__all__ = [
    "Accepted",
    "Ambiguous",
    "BadSignature",
    "Blame",
    "Body",
    "ChatBody",
    "EmailBody",
    "HookRequest",
    "Message",
    "Outcome",
    "Provider",
    "RateLimited",
    "Receipt",
    "Rejected",
    "Retryable",
    "TextBody",
    "Traits",
    "UnreadableHook",
    "WebhookReader",
]


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery, rendered, as a provider gets it.

    `idempotency_key` is the same for every attempt of the delivery. `recipient` is a mail address,
    an E.164 number or the service's own handle; `sender` the From address, number or identity.
    """

    delivery_id: int
    idempotency_key: str
    recipient: str
    sender: str
    body: Body
    service: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a provider can do. `max_batch` bounds `send`; `max_bytes` one message's body."""

    channels: frozenset[Channel]
    idempotent: bool = False
    looks_up: bool = False
    receipts: bool = False
    speaks_first: bool = True
    max_batch: int = 200
    max_bytes: int = 10_000_000


@runtime_checkable
class Provider(Protocol):
    """One configured way out of a channel."""

    traits: ClassVar[Traits]
    Settings: ClassVar[type[BaseModel]]

    def __init__(self, account: str, channel: Channel, settings: Any, /) -> None:
        """Make one account's provider from its `Settings`; open and start nothing yet."""
        ...

    def send(self, batch: Sequence[Message], deadline: float) -> list[Outcome]:
        """Try each message once; return one outcome per message, in order."""
        ...

    def close(self) -> None:
        """Let go of connections; the instance is not used again."""
        ...


@dataclass(frozen=True, slots=True)
class HookRequest:
    """A webhook request as it arrived: raw body, lower-case header names, and the public URL."""

    body: bytes
    headers: Mapping[str, str]
    url: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """One fact in a webhook, in our vocabulary.

    `external_id` names the fact at the vendor and makes a repeat harmless; `ref` is the reference
    that `Accepted` carried. `detail` holds safe codes only.
    """

    external_id: str
    ref: str
    event: EventType
    at: datetime
    detail: Mapping[str, str] = field(default_factory=dict)
    permanent: bool = True


class BadSignature(Exception):
    """The request was not signed by the vendor (HTTP 403)."""


class UnreadableHook(Exception):
    """The request was signed but is not in a form that we know (kept, with this reason)."""


@runtime_checkable
class WebhookReader(Protocol):
    """What a provider with receipts adds."""

    def verify(self, request: HookRequest) -> None:
        """Check the signature in constant time; raise `BadSignature`."""
        ...

    def read(self, request: HookRequest) -> list[Receipt]:
        """Turn a verified request into receipts; raise `UnreadableHook`."""
        ...
