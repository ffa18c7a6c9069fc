"""Mail header values: checked once, encoded once (RFC 5322, RFC 2047)."""

import re
from binascii import b2a_base64
from datetime import datetime
from email.utils import format_datetime

from app.content.problem import ContentRefused

_CONTROL = re.compile("[\0-\x1f\x7f]")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_LINE = 76
# An encoded word has 75 characters at most; 45 bytes become 60 of base64, 12 are its frame.
_WORD_BYTES = 45


def mail_date(now: datetime) -> str:
    """An aware time as RFC 5322 writes it."""
    return format_datetime(now)


def address(field: str, value: str) -> str:
    """A bare mail address, ASCII only (its domain as IDNA); raises `ContentRefused`."""
    if not _ADDRESS.fullmatch(value):
        raise ContentRefused(field, "is not a mail address that can stand in a header")
    return value


def mailbox(field: str, name: str | None, value: str) -> str:
    """`Name <address>`, the name encoded where it must be; raises `ContentRefused`."""
    bare = address(field, value)
    if not name:
        return bare
    _refuse_controls(field, name)
    if not name.isascii() or len(name) > _LINE - 16 or "=?" in name:
        return f"{_encoded(name, 0)}\r\n <{bare}>"
    if not _ATOMS.fullmatch(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{bare}>" if len(name) + len(bare) < _LINE - 12 else f"{name}\r\n <{bare}>"


def words(field: str, name: str, value: str) -> str:
    """Free text as the value of header `name`, folded; raises `ContentRefused` naming `field`."""
    _refuse_controls(field, value)
    room = _LINE - len(name) - 2
    if value.isascii() and "=?" not in value:
        if len(value) <= room:
            return value
        if value == " ".join(value.split()) and max(map(len, value.split())) < room:
            return _folded(value, room)
    return _encoded(value, len(name) + 2)


def _refuse_controls(field: str, value: str) -> None:
    if _CONTROL.search(value):
        raise ContentRefused(field, "has a line break or another control character")


def _folded(value: str, room: int) -> str:
    lines = [""]
    for word in value.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
            room = _LINE - 1
        lines[-1] += (" " if lines[-1] else "") + word
    return "\r\n ".join(lines)


def _encoded(value: str, taken: int) -> str:
    """RFC 2047 B encoding: words of whole characters, one a line, the first after `taken`."""
    parts = []
    part = b""
    room = _WORD_BYTES - (taken * 3 // 4)
    for character in value:
        raw = character.encode()
        if len(part) + len(raw) > room:
            parts.append(part)
            part, room = b"", _WORD_BYTES
        part += raw
    parts.append(part)
    return "\r\n ".join(f"=?utf-8?b?{b2a_base64(part, newline=False).decode()}?=" for part in parts)
