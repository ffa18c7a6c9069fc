"""A content as a chat message: plain text, and the HTML subset that chats share (Matrix's)."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.content.marks import Pattern, Slots, in_html, in_text
from app.content.message import ACTIONS, Content, Parts, Personal, Skeleton, Tracking, href
from app.content.prose import Prose
from app.domain.body import ChatBody
from app.domain.vocabulary import Channel


def compile_chat(
    document: Mapping[str, Any], *, tracking: Tracking, channel: Channel = Channel.CHAT
) -> Skeleton[ChatBody]:
    """The skeleton of a content's chat messages; images become their text.

    The HTML is of paragraphs, headings, lists, quotes, links, emphasis and code, without styles.
    """
    content = Content(document, channel)

    def build(parts: Parts) -> Callable[[list[str], Personal], ChatBody]:
        prose = Prose(content.text_field, parts.text)
        follow = href(tracking, content.part)
        text, markup = [prose.text(follow)], prose.html(follow, {}, images=False)
        for place, (label, url) in enumerate(parts.actions):
            target = href(tracking, ACTIONS)(place, url)
            text.append(in_text(f"{label}: {target}"))
            markup += in_html(f'<p><a href="{html.escape(target)}">{html.escape(label)}</a></p>\n')
        patterns = Pattern("\n".join(text)), Pattern(markup.strip())
        return _Form(*patterns, Slots(*patterns))

    return Skeleton(content, build)


@dataclass(frozen=True, slots=True)
class _Form:
    text: Pattern
    html: Pattern
    slots: Slots

    def __call__(self, values: list[str], personal: Personal) -> ChatBody:
        slots = self.slots.fill(values, personal.links, personal.delivery_id)
        return ChatBody(self.text.fill(slots), self.html.fill(slots))
