"""How many SMS parts a text takes (3GPP TS 23.038 alphabet, TS 23.040 concatenation)."""

from collections.abc import Callable
from typing import Final

# The GSM 7-bit default alphabet and, after the escape, its extension table (two septets each).
BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = frozenset("\f^{}\\[~]|€")

_GSM: Final = BASIC | EXTENSION
PART_GSM: Final = 153
_ONE_GSM = 160
_ONE_UCS2, _PART_UCS2 = 70, 67

# Typographic signs whose plain form says the same.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2022", "-"),
        **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f", " "),
        **dict.fromkeys("\u200b\u2060\ufeff\u00ad", ""),
        "\u2026": "...",
        "\t": " ",
    }
)


def is_gsm(text: str) -> bool:
    """Whether GSM-7 can carry the text; else it goes as UCS-2."""
    return _GSM.issuperset(text)


def to_gsm(text: str) -> str:
    """The text with plain quotes, dashes and spaces, where that lets GSM-7 carry all of it.

    Nothing is given up for nothing: a text that needs UCS-2 anyway is returned as it is.
    """
    if is_gsm(text):
        return text
    plain = text.translate(_PLAIN)
    return plain if is_gsm(plain) else text


def septets(text: str) -> int:
    """The septets of a text that GSM-7 can carry: an escape pair takes two."""
    doubles = sum(map(text.count, EXTENSION)) if not EXTENSION.isdisjoint(text) else 0
    return len(text) + doubles


def segment_count(text: str) -> int:
    """The number of SMS parts; an escape pair or a surrogate pair is never split over two."""
    if is_gsm(text):
        return _count(text, septets(text) - len(text), _ONE_GSM, PART_GSM, EXTENSION.__contains__)
    doubles = sum(character > "\uffff" for character in text)
    return _count(text, doubles, _ONE_UCS2, _PART_UCS2, "\uffff".__lt__)


def _count(text: str, doubles: int, one: int, part: int, is_double: Callable[[str], bool]) -> int:
    length = len(text)
    if length + doubles <= one:
        return 1
    if not doubles:
        return -(-length // part)
    parts, used = 1, 0
    for character in text:
        units = 2 if is_double(character) else 1
        if used + units > part:
            parts, used = parts + 1, 0
        used += units
    return parts
