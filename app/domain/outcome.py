"""What a provider answered to one attempt, in one vocabulary for every vendor.

A reason is a short code such as `smtp_550_5.1.1` or `http_401`; it is kept and shown, so it
never holds an address, a body or a secret.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Blame(StrEnum):
    """Whose fault a rejection is, which decides what is tried next.

    `OPTED_OUT`: nobody's. The network keeps messages from this person at their own wish, until
    they take it back; nothing is wrong with the address.
    """

    RECIPIENT = "recipient"
    OPTED_OUT = "opted_out"
    CONTENT = "content"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the message. `ref` is its own reference, by which receipts are matched."""

    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Retryable:
    """Proven not accepted, and worth another try.

    With `blame` on the recipient (their room, their mailbox) it is no sign of the account's health.
    """

    reason: str
    blame: Blame = Blame.ACCOUNT


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Not accepted because we were too fast; `retry_after` is in seconds. Spends no attempt."""

    retry_after: float
    reason: str = "rate_limited"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Proven not accepted, for good."""

    reason: str
    blame: Blame


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Bytes left us and no verdict came back: it may or may not have been accepted."""

    reason: str


Outcome: TypeAlias = Accepted | Retryable | RateLimited | Rejected | Ambiguous
