"""Whether a content can be said to a person on every channel that may be used: asked at accept.

What is true of a content for everybody is found out once and kept; for each person it then takes a
microsecond or two to see that their data fill it. Only contents with control flow, whole URLs in
data, or facts that hang on the data are looked at in full for each person.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from app.content.bounds import MAX_TEXT
from app.content.cache import Kept
from app.content.language import missing
from app.content.marks import OPEN, fill_values, in_text, mark
from app.content.message import Content, Parts, Personal, Tracking
from app.content.problem import ContentProblem, ContentRefused
from app.content.prose import Prose
from app.content.segments import to_gsm
from app.content.text import DEFAULT_SEGMENTS, TextForm, text_form
from app.domain.tokens import Links
from app.domain.vocabulary import Channel

_LINK_SIGNS = ("](", "]:", "<")
_TRACKING: Final[tuple[Tracking, ...]] = ("all", "off")
_FORMS_KEPT = 64


class Checker:
    """Checks contents; keeps what it learned of the last `kept` of them. Thread-safe.

    `links` makes links of the length that messages will carry; nothing of theirs is kept.
    """

    def __init__(self, links: Links, segments: int = DEFAULT_SEGMENTS, kept: int = 2_000) -> None:
        self._links = links
        self._segments = segments
        self._kept: Kept[_Checked | list[ContentProblem]] = Kept(kept)

    def check(
        self,
        key: Hashable,
        document: Mapping[str, Any],
        data: Mapping[str, Any],
        channels: frozenset[Channel],
    ) -> list[ContentProblem]:
        """What is wrong, empty when nothing is. `key` stands for the document: its hash."""
        found = self._kept.get((key, channels), lambda: self._compile(document, channels))
        return found if isinstance(found, list) else found.problems(data)

    def _compile(
        self, document: Mapping[str, Any], channels: frozenset[Channel]
    ) -> "_Checked | list[ContentProblem]":
        problems: dict[ContentProblem, None] = {}
        compiled = []
        for channel in _telling(document, channels):
            try:
                compiled.append(_OnChannel(document, channel, self._links, self._segments))
            except ContentRefused as refused:
                problems[refused.problem] = None
        return list(problems) or _Checked(compiled)


def _telling(document: Mapping[str, Any], channels: frozenset[Channel]) -> Iterator[Channel]:
    """Of the channels that say the same, one; a text message is a case of its own."""
    overrides = document.get("overrides") or {}
    said = False
    for channel in sorted(channels):
        own = channel is Channel.SMS or overrides.get(channel.value) is not None
        if own or not said:
            yield channel
        said = said or not own


class _Checked:
    """A content that is right in itself, on the channels that it may go out on."""

    def __init__(self, on_channels: list["_OnChannel"]) -> None:
        self._names = frozenset[str]().union(*(one.content.names for one in on_channels))
        self._in_full = [one for one in on_channels if not one.settled]
        self._in_subject = frozenset[str]().union(*(one.in_subject for one in on_channels))

    def problems(self, data: Mapping[str, Any]) -> list[ContentProblem]:
        if not self._names <= data.keys():
            return [missing(name).problem for name in sorted(self._names - data.keys())]
        length = 0
        for name in self._names:
            value = data[name]
            length += len(value if value.__class__ is str else str(value))
        if length > MAX_TEXT:
            return [ContentProblem("data", f"longer than {MAX_TEXT:,} characters")]
        for name in self._in_subject:
            value = str(data[name])
            if "\n" in value or "\r" in value:
                return [ContentProblem(f"data.{name}", "has a line break, and is in the subject")]
        problems: dict[ContentProblem, None] = {}
        for one in self._in_full:
            try:
                one.look(data)
            except ContentRefused as refused:
                problems[refused.problem] = None
        return list(problems)


@dataclass(frozen=True, slots=True)
class _Examined:
    """One form of a content: all that it says (marked), and what hangs on the data."""

    said: str
    facts: tuple[tuple[int, str], ...]  # place and text of those that `said` alone does not show
    texts: tuple[tuple[TextForm, int], ...]  # with the room that each has for values
    whole_urls: tuple[str, ...]
    subject: str | None


class _OnChannel:
    """A content on one channel. `settled` when only missing variables can still be wrong."""

    def __init__(
        self, document: Mapping[str, Any], channel: Channel, links: Links, segments: int
    ) -> None:
        self.content = Content(document, channel)
        self._channel = channel
        self._links = links
        self._examine = lru_cache(_FORMS_KEPT)(self._examine_form)
        self._segments = segments
        self.settled = False
        self.in_subject: tuple[str, ...] = ()
        if self.content.plain is None:
            return
        examined = self._examine(self.content.plain)
        self.in_subject = tuple(
            name
            for n, name in enumerate(self.content.names)
            if mark("t", n) in (examined.subject or "")
        )
        self.settled = not (examined.whole_urls or examined.texts or examined.facts)

    def _examine_form(self, parts: Parts) -> _Examined:
        urls = [url for _, url in parts.actions]
        said = parts.text
        if parts.facts or any(sign in parts.text for sign in _LINK_SIGNS):
            prose = Prose(self.content.text_field, parts.text)
            urls += prose.links
            said = prose.text(None)
        labels = [label for label, _ in parts.actions]
        if self._channel is Channel.SMS:
            labels = labels[:1]
        said = _comparable("\n".join([said, *map(in_text, labels)]))
        facts = [_comparable(in_text(fact)) for fact in parts.facts]
        texts = []
        if facts and self._channel is Channel.SMS:
            # Shortening may lose a fact; links differ in length by the sender's tracking.
            forms = [
                text_form(self.content, parts, tracking, self._segments)
                for tracking in (_TRACKING if urls else _TRACKING[:1])
            ]
            texts = [(form, form.room(self._links)) for form in forms]
        return _Examined(
            said=said,
            facts=tuple(each for each in enumerate(facts) if each[1] not in said),
            texts=tuple(texts),
            whole_urls=tuple(url for url in urls if OPEN + "w" in url),
            subject=None if parts.subject is None else in_text(parts.subject),
        )

    def look(self, data: Mapping[str, Any]) -> None:
        """Look at one person's message in full; raises `ContentRefused`."""
        parts, values = self.content.expand(data)
        examined = self._examine(parts)
        for url in examined.whole_urls:
            fill_values(url, values)
        if examined.subject is not None and "\n" in fill_values(examined.subject, values):
            raise ContentRefused("content.subject", "has a line break")
        if examined.facts:
            said = _comparable(fill_values(examined.said, values))
            for place, fact in examined.facts:
                if _comparable(fill_values(fact, values)) not in said:
                    reason = f"is not in what {self._channel} would say"
                    raise ContentRefused(f"content.must_keep[{place}]", reason)
        for form, room in examined.texts:
            if not form.surely_whole(values, room):
                form(values, Personal(0, data, self._links))


def _comparable(text: str) -> str:
    """Text as facts are looked for in it: spaces and typographic signs do not matter."""
    return " ".join(to_gsm(text).split())
