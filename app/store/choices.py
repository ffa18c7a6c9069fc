"""Choices: between which accounts was chosen, and on what grounds."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Connection, text

_FIND = "SELECT id FROM choices WHERE hash = :hash"


def note_choice(
    connection: Connection, channel: str, considered: Sequence[Mapping[str, Any]]
) -> int:
    """Keep the grounds of a choice, each once; return their id."""
    document = orjson.dumps(considered)
    parameters = {
        "channel": channel,
        "hash": blake2b(channel.encode() + document, digest_size=16).digest(),
        "considered": document.decode(),
    }
    found = connection.execute(text(_FIND), parameters).scalar()
    if found is None:
        connection.execute(
            text("""
                INSERT INTO choices (channel, hash, considered)
                VALUES (:channel, :hash, CAST(:considered AS jsonb))
                ON CONFLICT (hash) DO NOTHING"""),
            parameters,
        )
        found = connection.execute(text(_FIND), parameters).scalar_one()
    return int(found)
