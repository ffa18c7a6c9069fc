"""A content as a page: what a customer sees who opens the hosted message."""

import html
from collections.abc import Mapping
from typing import Any

from app.content.layout import PAGE_CSP, page
from app.content.marks import fill_values, in_html
from app.content.message import Content
from app.content.prose import Prose, direct
from app.domain.vocabulary import Channel

__all__ = ["PAGE_CSP", "hosted_page"]


def hosted_page(
    document: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    sender_name: str,
    preferences: str,
    locale: str = "en",
) -> str:
    """The whole message as an HTML page without scripts, to be served with `PAGE_CSP`.

    It says what the mail says; its links are direct, since opening the page is evidence already.
    `preferences` is the link to what the customer can choose.
    Raises `ContentRefused`.
    """
    content = Content(document, Channel.EMAIL)
    parts, values = content.expand(data)
    prose = Prose(content.text_field, parts.text)
    actions = [
        (in_html(html.escape(label)), in_html(html.escape(url))) for label, url in parts.actions
    ]
    marked = page(
        locale=locale,
        title=in_html(html.escape(parts.subject or "")),
        sender=html.escape(sender_name),
        body=prose.html(direct, {}, images=True),
        actions=actions,
        preferences=preferences,
    )
    return fill_values(marked, values)
