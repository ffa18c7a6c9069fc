"""Marks: where a converted text still waits for a value.

A placeholder travels through Markdown as a mark: a number between two Unicode noncharacters, which
no author's text may hold and to which Markdown gives no meaning. So a content is converted once,
values are never read as Markdown, and each is escaped for the very place in which it lands.

The letter before the number says what is put there:

    h  value n, HTML-escaped          c  link n: a tracked redirect
    t  value n, as it is              o  the open pixel
    u  value n, URL-quoted            m  the hosted message
    w  value n, which is a whole URL  n  the unsubscribe link
    x  the same, HTML-escaped            p  the customer's preferences
"""

import html
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

from app.content.problem import ContentRefused
from app.domain.tokens import Links

OPEN: Final = "\ufdd0"
CLOSE: Final = "\ufdd1"
MARK: Final = re.compile(f"{OPEN}([a-z]?[0-9]+){CLOSE}")

_VALUE_LENGTH = 10  # what a value is taken to be long, where a text is cut before it is known
_KINDLESS = re.compile(f"{OPEN}(?=[0-9])")
_UNTIDY = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# A host, or an IPv6 address in brackets; a lone bracket is what URL parsers break on.
_HTTP = re.compile(
    r"https?://(?:[^\s/?#\\\"<>\[\]]+|\[[0-9a-f:.]+\](?::[0-9]*)?)(?:[/?#][^\s\\\"<>]*)?",
    re.IGNORECASE,
)
_URL_SAFE = "%/:?#[]@!$&'()*+,;=~-._"


def mark(kind: str, number: int = 0) -> str:
    """The mark that asks for `kind` and `number`."""
    return f"{OPEN}{kind}{number}{CLOSE}"


def in_html(marked: str) -> str:
    """HTML whose value marks ask for escaped values."""
    return _KINDLESS.sub(OPEN + "h", marked).replace(OPEN + "w", OPEN + "x")


def in_text(marked: str) -> str:
    """Plain text whose value marks ask for values as they are."""
    return _KINDLESS.sub(OPEN + "t", marked)


def text_as_html(marked: str) -> str:
    """Marked plain text as marked HTML that shows the same."""
    return in_html(html.escape(marked).replace(OPEN + "t", OPEN + "h"))


def opening(marked: str, length: int) -> str:
    """The first line of a marked text, cut at a word after about `length` characters."""
    line = next(filter(None, (line.strip() for line in marked.split("\n"))), "")
    out: list[str] = []
    for place, piece in enumerate(MARK.split(line)):
        if place % 2:
            out.append(f"{OPEN}{piece}{CLOSE}")
            length -= _VALUE_LENGTH
        elif len(piece) <= length:
            out.append(piece)
            length -= len(piece)
        else:
            out.append(piece[: max(length, 0)].rpartition(" ")[0].rstrip(" ,;:.") + "\u2026")
            break
    return "".join(out)


def tidy(text: str) -> str:
    r"""Text without control characters, lone surrogates and marks; line ends become "\n"."""
    return _UNTIDY.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def as_text(value: object) -> str:
    """A value of `data` as text; None is empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    # Nearly every value is printable, and asking is cheaper than tidying.
    return text if text.isprintable() else tidy(text)


def whole_url(value: str) -> str:
    """A value that is to be a whole URL, quoted where it must be; http and https alone pass."""
    url = quote(value.strip(), safe=_URL_SAFE)
    if not _HTTP.fullmatch(url):
        raise ContentRefused("data", "a URL given in data must begin with http:// or https://")
    return url


def url_marks(url: str) -> str:
    """A URL with plain value marks as one with `u` marks, and `w` where a value is its beginning.

    What the author wrote is quoted where a URL needs it.
    """
    pieces = MARK.split(url)
    for place in range(0, len(pieces), 2):
        pieces[place] = quote(pieces[place], safe=_URL_SAFE)
    for place in range(1, len(pieces), 2):
        whole = place == 1 and not pieces[0]
        pieces[place] = mark("w" if whole else "u", int(pieces[place]))
    return "".join(pieces)


def is_http(marked_url: str) -> bool:
    """Whether the URL is http or https whatever is put at its marks (`w` is checked then)."""
    return marked_url.startswith(OPEN + "w") or bool(_HTTP.fullmatch(marked_url))


class Pattern:
    """A marked text, split once, to be filled for each message."""

    __slots__ = ("_pieces", "_places", "keys", "static_length")

    def __init__(self, marked: str) -> None:
        self._pieces = MARK.split(marked)
        self._places = [(n, self._pieces[n]) for n in range(1, len(self._pieces), 2)]
        self.keys = frozenset(key for _, key in self._places)
        self.static_length = sum(map(len, self._pieces[::2]))

    def fill(self, slots: dict[str, str]) -> str:
        """The text with every mark replaced by its slot's text."""
        pieces = self._pieces.copy()
        for place, key in self._places:
            pieces[place] = slots[key]
        return "".join(pieces)


def _in_html(value: str) -> str:
    return "<br>".join(html.escape(value).splitlines()) if "\n" in value else html.escape(value)


_VALUES: Final[dict[str, Callable[[str], str]]] = {
    "h": _in_html,
    "t": str,
    "u": lambda value: quote(value, safe=""),
    "w": whole_url,
    "x": lambda value: html.escape(whole_url(value)),
}

# Each takes the link maker, the ids of delivery and customer, and the mark's number.
_LINKS: Final[dict[str, Callable[[Links, int, int, int], str]]] = {
    "c": lambda links, delivery, _customer, number: links.click(delivery, number),
    "o": lambda links, delivery, _customer, _: links.open(delivery),
    "m": lambda links, delivery, _customer, _: links.message(delivery),
    "n": lambda links, delivery, _customer, _: links.unsubscribe(delivery),
    "p": lambda links, _delivery, customer, _: links.preferences(customer),
}


class Slots:
    """Everything that some patterns wait for; each is made once a message, however often used."""

    __slots__ = ("_links", "_values")

    def __init__(self, *patterns: Pattern) -> None:
        keys = sorted(key for pattern in patterns for key in pattern.keys)
        split = [(key, key[0], int(key[1:])) for key in dict.fromkeys(keys)]
        self._values = [(k, _VALUES[kind], n) for k, kind, n in split if kind in _VALUES]
        self._links = [(k, _LINKS[kind], n) for k, kind, n in split if kind in _LINKS]

    def fill(
        self, values: Sequence[str], links: Links, delivery_id: int, customer_id: int = 0
    ) -> dict[str, str]:
        """The text for each mark; raises `ContentRefused` where a value is no URL and must be."""
        slots = {key: write(values[number]) for key, write, number in self._values}
        for key, make, number in self._links:
            slots[key] = make(links, delivery_id, customer_id, number)
        return slots


def fill_values(marked: str, values: Sequence[str]) -> str:
    """A marked text with its values put in; it may have no marks of links."""
    pattern = Pattern(marked)
    return pattern.fill({key: _VALUES[key[0]](values[int(key[1:])]) for key in pattern.keys})
