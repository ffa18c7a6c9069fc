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

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.mime)


@dataclass(frozen=True, slots=True)
class TextBody:
    """A text message and the number of SMS segments that it costs."""

    text: str
    segments: int = 1

    @property
    def size(self) -> int:
        """Its length in bytes, as UTF-8."""
        return _bytes(self.text)


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A chat message as plain text and as the small HTML subset that chats share."""

    text: str
    html: str

    @property
    def size(self) -> int:
        """The length of both forms in bytes, as UTF-8."""
        return _bytes(self.text) + _bytes(self.html)


def _bytes(text: str) -> int:
    # A lone surrogate has no bytes; the provider says what is wrong with it.
    return len(text.encode(errors="surrogatepass"))


Body: TypeAlias = EmailBody | TextBody | ChatBody
