"""A content's form on one channel: what rendering produces and what a provider sends."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class EmailBody:
    """A complete RFC 5322 message: headers and MIME body, CRLF line ends, not yet dot-stuffed.

    `eight_bit` says that it holds bytes over 127, so the server must offer 8BITMIME.
    """

    mime: bytes
    eight_bit: bool = False


@dataclass(frozen=True, slots=True)
class TextBody:
    """A text message and the number of SMS segments that it costs."""

    text: str
    segments: int = 1


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A chat message as plain text and as the small HTML subset that chats share."""

    text: str
    html: str


Body: TypeAlias = EmailBody | TextBody | ChatBody
