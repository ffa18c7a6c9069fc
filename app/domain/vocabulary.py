"""The closed word lists of the product; the values are what the ledger and the wire say."""

from enum import StrEnum


class Channel(StrEnum):
    """A way to reach a customer."""

    EMAIL = "email"
    SMS = "sms"
    CHAT = "chat"
    SOCIAL = "social"


class Kind(StrEnum):
    """What an intent is, which decides the rules that bind it."""

    TRANSACTIONAL = "transactional"
    CONVERSATIONAL = "conversational"
    MARKETING = "marketing"


class Urgency(StrEnum):
    """How soon an intent must leave; each urgency is a lane of its own, most urgent first."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class IntentState(StrEnum):
    """Where an intent stands; every state but `open` is an end."""

    OPEN = "open"
    SEEN = "seen"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class DeliveryState(StrEnum):
    """Where a delivery stands; `queued` means that its hint is with the broker."""

    PLANNED = "planned"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class EventType(StrEnum):
    """A fact that came back about a delivery.

    `bounced` is about the address, which takes nothing; `failed` about this message alone, which
    was taken first and given up later. `accepted` is never kept: it only ends the doubt about a
    try of which no verdict came.
    """

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    OPENED_BY_MACHINE = "opened_by_machine"
    OPENED = "opened"
    CLICKED = "clicked"
    READ = "read"
    REPLIED = "replied"
    BOUNCED = "bounced"
    FAILED = "failed"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"


class Source(StrEnum):
    """The way that a statement of consent came in by."""

    PREFERENCES = "preferences"
    ONE_CLICK = "one_click"
    TEXT = "text"
    PROVIDER = "provider"
    COMPLAINT = "complaint"
    BOUNCE = "bounce"
    API = "api"
    CLI = "cli"
    IMPORT = "import"
    ANSWER = "answer"
