"""What a message said, as its author wrote it, with the person's own values in it."""

from collections.abc import Mapping
from typing import Any

from app.content.marks import fill_values, in_text
from app.content.message import Content
from app.content.problem import ContentRefused
from app.domain.vocabulary import Channel


def said(document: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any] | None:
    """`{"subject", "text" (Markdown), "actions": [{"label", "url"}]}` as one person got it; None
    where it cannot be said any more.
    """
    try:
        parts, values = Content(document, Channel.EMAIL).expand(data)
        subject = None if parts.subject is None else fill_values(in_text(parts.subject), values)
        return {
            "subject": subject,
            "text": fill_values(in_text(parts.text), values),
            "actions": [
                {
                    "label": fill_values(in_text(label), values),
                    "url": fill_values(in_text(url), values),
                }
                for label, url in parts.actions
            ],
        }
    except ContentRefused:
        return None
