"""What a tracked link stands for: the message that it was in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Linked:
    """The message of a delivery: its content (0: no longer kept) and what was filled into it."""

    content_id: int
    data: Mapping[str, Any]
    sender_id: int
    customer_id: int
    locale: str | None


def message_of(connection: Connection, delivery_id: int) -> Linked | None:
    """Find the message of a delivery."""
    row = connection.execute(
        text("""
            SELECT i.content_id, i.data, i.sender_id, c.id, c.locale
              FROM deliveries d
              JOIN intents i ON i.id = d.intent_id
              JOIN customers c ON c.id = i.customer_id
             WHERE d.id = :id"""),
        {"id": delivery_id},
    ).one_or_none()
    return None if row is None else Linked(*row)
