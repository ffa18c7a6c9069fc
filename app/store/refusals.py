"""Refusals: intents that were not taken, each with the field and the reason."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from app.store.session import as_rows

_NAME: Final = re.compile(r"(?=.*[a-z])[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


def is_name(said: str) -> bool:
    """Whether something may be the name of a sender, topic or policy, and no address.

    What is none is not kept: a refusal stays for good, and arguments get mixed up.
    """
    return _NAME.fullmatch(said) is not None


def insert_refusals(
    connection: Connection,
    chunk: UUID,
    brand: str,
    brand_id: int | None,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Keep refusals of a chunk; a chunk that comes again writes none twice.

    A row is `{"line", "sender", "key", "intent_id", "field", "code", "reason", "document"}`; a
    sender that is no name is left out.
    """
    kept = [
        {**row, "sender": row["sender"] if is_name(row["sender"] or "") else None} for row in rows
    ]
    connection.execute(
        text("""
            INSERT INTO refusals (chunk, line, brand, brand_id, sender, key, intent_id, field,
                                  code, reason, document)
            SELECT :chunk, line, :brand, :brand_id, sender, key, intent_id, field, code, reason,
                   document
              FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   line int, sender text, key text, intent_id uuid, field text, code text,
                   reason text, document jsonb)
            ON CONFLICT (chunk, line) DO NOTHING"""),
        {
            "chunk": chunk,
            "brand": brand,
            "brand_id": brand_id,
            "rows": as_rows(kept),
        },
    )


def forget_documents(connection: Connection, after_s: float, limit: int) -> int:
    """Forget what refused intents said; the refusals stay. Return how many documents went."""
    done = connection.execute(
        text("""
            UPDATE refusals SET document = NULL WHERE id IN (
                SELECT id FROM refusals WHERE document IS NOT NULL
                   AND refused_at < now() - make_interval(secs => :after)
                 ORDER BY refused_at LIMIT :limit)"""),
        {"limit": limit, "after": after_s},
    )
    return done.rowcount
