"""Reading a mail as a mail client does: what to show, and the links in it."""

import html
import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

_URL = re.compile(r"""https?://[^\s"'<>()\[\]]+""")
_TAGS = re.compile(r"<(style|script|head)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, unpacked. `urls` are those of its HTML (of its text if it has none), in order."""

    subject: str
    text: str
    urls: tuple[str, ...]


def read_mail(mime: bytes) -> Mail:
    """Unpack RFC 5322 bytes. Whatever they hold, there is something to show."""
    message = message_from_bytes(mime, policy=default)
    markup = _part(message, "html")
    text = _part(message, "plain")
    urls = urls_in(html.unescape(markup)) if markup else urls_in(text)
    shown = text or html.unescape(_TAGS.sub(" ", markup))
    return Mail(_subject(message), shown.strip(), urls)


def urls_in(text: str) -> tuple[str, ...]:
    """Return the web addresses in a text, in order."""
    return tuple(url.rstrip(".,;:!?*_") for url in _URL.findall(text))


def _part(message: EmailMessage, subtype: str) -> str:
    try:
        part = message.get_body(preferencelist=(subtype,))
        return str(part.get_content()) if part is not None else ""
    except (LookupError, ValueError, KeyError, AttributeError):  # unknown charset, broken structure
        return ""


def _subject(message: EmailMessage) -> str:
    try:
        return str(message.get("Subject", ""))
    except (ValueError, IndexError):  # a header that the parser cannot read
        return ""
