"""The contract between Converge and every way out of it.

A provider is a class with `traits`, a pydantic `Settings` model and
`send(batch, deadline) -> outcomes`. `send` is total: whatever the vendor or the network does is an
outcome, one per message, in the batch's order; an exception out of it is our bug. It never sleeps
for its own sake, never retries, never logs a body and never touches the ledger. It honours
`deadline`, a point on `time.monotonic()`: what has no verdict by then is `Ambiguous` if bytes left
us, else `Retryable`. One instance serves one account in one process and is called by many threads
at once.

A provider with receipts is also a `WebhookReader`, or has one as its attribute `reader` (None where
the account is told nothing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel

from app.domain.body import Body, ChatBody, EmailBody, TextBody
from app.domain.opt_words import Word
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
    "LONGEST_NAME",
    "Accepted",
    "Ambiguous",
    "BadSignature",
    "Blame",
    "Body",
    "ChatBody",
    "EmailBody",
    "HookRequest",
    "InboundMessage",
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
    "Word",
]

LONGEST_NAME = 500
"""Characters of a vendor's id; what is longer fits no index."""


class Message(NamedTuple):
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
    """What a provider can do. `max_batch` bounds `send`; `max_bytes` one message's body
    (`Body.size`): what is longer fails as `body_too_big`, and is never given to `send`.

    `services` are those of its channels that it serves (`matrix`, `slack`); empty: any.
    """

    channels: frozenset[Channel]
    idempotent: bool = False
    receipts: bool = False
    max_batch: int = 200
    max_bytes: int = 10_000_000
    services: frozenset[str] = frozenset()

    def serves(self, service: str) -> bool:
        """Whether an address at this service may be given to it ("": its channel has none)."""
        return not self.services or not service or service in self.services


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
    """A webhook request as it arrived: raw body, lower-case header names, and the public URL.

    `url` is the public one, query and all, as the vendor called it; `path` is what follows
    `/hooks/{account}` in it ("" or "/..."). Only `body`, `path`, the content type and `received_at`
    are kept for `read`; a repeat is known by its body alone.
    """

    body: bytes
    headers: Mapping[str, str]
    url: str
    received_at: datetime
    method: str = "POST"
    path: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One fact in a webhook, in our vocabulary.

    `external_id` names the fact at the vendor and makes a repeat harmless; `ref` is the reference
    that `Accepted` carried. `detail` holds safe codes only (`reason` is kept and shown). What came
    back says whose fault it is: `bounced` marks the address as unusable, unless it is not
    `permanent`, which changes nothing; `failed` says that this message alone is lost. Either lets
    the next step come at once. `read_up_to` says that what was sent to the same address through
    this account before has been read, too. `opted_out` says that the network keeps messages from
    this person at their own wish: nothing is wrong with the address.

    `delivery_id` is that of the message, where the vendor was given it along and gives it back: it
    counts while no reference of the message is known, as after a try without a verdict. With it
    `accepted` says that the vendor has the message, which is not sent again then. Where the
    vendor has no reference of its own, `ref` is empty: then `trace` is the token that
    the message carried (`Links.trace`), and `recipient` the address that it was sent to, each as
    far as it came back. With both, a `ref` of no message of ours is of somebody else's, and of
    no interest; but with `read_up_to`, what the recipient was sent before `at` was read, too.
    """

    external_id: str
    ref: str
    event: EventType
    at: datetime
    detail: Mapping[str, str] = field(default_factory=dict)
    permanent: bool = True
    read_up_to: bool = False
    opted_out: bool = False
    delivery_id: int | None = None
    trace: str = ""
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """What a person wrote to us, as a webhook brought it.

    `external_id` names the message at the vendor and makes a repeat harmless. `sender` is the
    address that it came from, in the form in which endpoints have it (E.164, or the service's own
    handle), `recipient` our number or identity that it was sent to. `ref` is the reference of the
    message of ours that it answers, where the vendor says so. `answered` is the word (STOP, START,
    HELP) that the network itself took it for, and has acted upon and answered.
    """

    external_id: str
    sender: str
    recipient: str
    text: str
    at: datetime
    service: str = ""
    ref: str | None = None
    answered: Word | None = None


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

    def read(self, request: HookRequest) -> list[Receipt | InboundMessage]:
        """Turn a verified request into what it tells; raise `UnreadableHook`.

        What is known and of no interest is nothing at all: an empty list.
        """
        ...
