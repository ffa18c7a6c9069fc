"""A content as a text message: plain text, its first action's short link, a budget of segments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.content.marks import OPEN, Pattern, Slots, fill_values, in_text, mark
from app.content.message import ACTIONS, Content, Parts, Personal, Skeleton, Tracking, href
from app.content.problem import ContentRefused
from app.content.prose import Prose
from app.content.segments import PART_GSM, is_gsm, segment_count, septets, to_gsm
from app.domain.body import TextBody
from app.domain.tokens import Links
from app.domain.vocabulary import Channel

DEFAULT_SEGMENTS: Final = 3
_QUOTED: Final = 9
"""Characters of a URL that one character of a value becomes at most: three bytes, each %XX."""


def compile_text(
    document: Mapping[str, Any], *, tracking: Tracking, segments: int = DEFAULT_SEGMENTS
) -> Skeleton[TextBody]:
    """The skeleton of a content's text messages, none longer than `segments` SMS parts.

    A longer one is shortened and leads to the hosted message. Rendering raises `ContentRefused`
    where that would lose a must-keep fact.
    """
    content = Content(document, Channel.SMS)
    return Skeleton(content, lambda parts: text_form(content, parts, tracking, segments))


def text_form(content: Content, parts: Parts, tracking: Tracking, segments: int) -> "TextForm":
    """One form of a content's text message: renders a person's values."""
    text = Prose(content.text_field, parts.text).text(href(tracking, content.part))
    if parts.actions:
        label, url = parts.actions[0]
        text += f"\n{in_text(label)}: {href(tracking, ACTIONS)(0, url)}"
    pattern = Pattern(text)
    weights: tuple[int, ...] | None = tuple(
        2 * text.count(mark("t", number)) + _QUOTED * text.count(mark("u", number))
        for number in range(len(content.names))
    )
    if content.plain is None or OPEN + "w" in text:
        weights = None  # control flow makes values of its own; a whole URL may be of any length
    return TextForm(pattern, Slots(pattern), tuple(map(in_text, parts.facts)), segments, weights)


@dataclass(frozen=True, slots=True)
class TextForm:
    """One form of a text message, ready to be filled.

    `weights` says how many septets a character of each value takes at most, over all its places;
    None where that cannot be told.
    """

    pattern: Pattern
    slots: Slots
    facts: tuple[str, ...]
    segments: int
    weights: tuple[int, ...] | None

    def __call__(self, values: list[str], personal: Personal) -> TextBody:
        """Render one person's text; raises `ContentRefused` where it would lose a fact."""
        slots = self.slots.fill(values, personal.links, personal.delivery_id)
        text = to_gsm(self.pattern.fill(slots).strip())
        count = segment_count(text)
        if count <= self.segments:
            return TextBody(text, count)
        text = _shortened(text, personal.links.message(personal.delivery_id), self.segments)
        for place, fact in enumerate(self.facts):
            said = fill_values(fact, values) if OPEN in fact else fact
            if to_gsm(said) not in text and said not in text:
                reason = f"would be lost on sms, where {self.segments} segments are all there is"
                raise ContentRefused(f"content.must_keep[{place}]", reason)
        return TextBody(text, segment_count(text))

    def room(self, links: Links) -> int:
        """The septets that are left for values (see `surely_whole`), below 0 where none are."""
        if self.weights is None:
            return -1
        text = to_gsm(self.pattern.fill(self.slots.fill(["x"] * len(self.weights), links, 0)))
        if not is_gsm(text):
            return -1
        # Of each part, one septet may stay empty before an escape pair.
        return self.segments * (PART_GSM - 1) - septets(text)

    def surely_whole(self, values: list[str], room: int) -> bool:
        """Whether these values leave the text whole, by a bound that costs less than the text."""
        if self.weights is None or len(values) != len(self.weights):
            return False
        for value, weight in zip(values, self.weights, strict=True):
            if not is_gsm(value):
                return False
            room -= weight * len(value)
        return room >= 0


def _shortened(text: str, link: str, segments: int) -> str:
    """As many whole words of the text as fit with an ellipsis and the link."""

    def ended(length: int) -> str:
        start = text[:length].rstrip()
        # GSM-7 has no ellipsis; three dots are cheaper than UCS-2.
        return f"{start}{'...' if is_gsm(start) else '…'} {link}"

    fits, too_long = 0, min(len(text), segments * PART_GSM)
    while fits + 1 < too_long:
        middle = (fits + too_long) // 2
        if segment_count(ended(middle)) <= segments:
            fits = middle
        else:
            too_long = middle
    if not text[fits].isspace():
        # Back to the end of a word, unless one word is all there is.
        fits = max(text.rfind(" ", 0, fits), text.rfind("\n", 0, fits)) + 1 or fits
    return ended(fits)
