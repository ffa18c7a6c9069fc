"""API keys: kept as hashes, found by their public prefix."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from app.domain.reach import Reach


@dataclass(frozen=True, slots=True)
class Key:
    """What a key allows. `senders` None: every sender of the brand.

    `per_second` is how many intents a second it may enqueue; None: as many as there are.
    """

    id: int
    brand_id: int
    brand: str
    prefix: str
    hash: bytes
    senders: tuple[str, ...] | None
    test: bool
    label: str
    created_at: datetime
    revoked_at: datetime | None
    per_second: float | None

    @property
    def reach(self) -> Reach:
        """What the key reaches of the customers."""
        return Reach(None if self.senders is None else frozenset(self.senders), self.test)


_KEYS = """
    SELECT k.id, k.brand_id, b.name, k.prefix, k.hash, k.senders, k.test, k.label, k.created_at,
           k.revoked_at, k.per_second
      FROM api_keys k JOIN brands b ON b.id = k.brand_id """


def find_key(connection: Connection, prefix: str) -> Key | None:
    """Find a key that is not revoked by its prefix."""
    row = connection.execute(
        text(_KEYS + "WHERE k.prefix = :prefix AND k.revoked_at IS NULL"), {"prefix": prefix}
    ).one_or_none()
    return None if row is None else _key(row)


def list_keys(connection: Connection) -> list[Key]:
    """All keys of all brands, revoked ones included."""
    return [_key(row) for row in connection.execute(text(_KEYS + "ORDER BY k.id"))]


def insert_key(
    connection: Connection,
    *,
    brand_id: int,
    prefix: str,
    secret_hash: bytes,
    senders: Sequence[str] | None,
    test: bool,
    label: str,
    per_second: float | None,
) -> None:
    """Keep a new key."""
    connection.execute(
        text("""
            INSERT INTO api_keys (brand_id, prefix, hash, senders, test, label, per_second)
            VALUES (:brand_id, :prefix, :hash, CAST(:senders AS text[]), :test, :label,
                    :per_second)"""),
        {
            "brand_id": brand_id,
            "prefix": prefix,
            "hash": secret_hash,
            "senders": None if senders is None else list(senders),
            "test": test,
            "label": label,
            "per_second": per_second,
        },
    )


def revoke_key(connection: Connection, prefix: str) -> bool:
    """Revoke a key; say whether there was one in force."""
    done = connection.execute(
        text("""
            UPDATE api_keys SET revoked_at = now()
             WHERE prefix = :prefix AND revoked_at IS NULL"""),
        {"prefix": prefix},
    )
    return done.rowcount > 0


def _key(row: Row[Any]) -> Key:
    senders = None if row.senders is None else tuple(row.senders)
    return Key(
        id=row.id,
        brand_id=row.brand_id,
        brand=row.name,
        prefix=row.prefix,
        hash=bytes(row.hash),
        senders=senders,
        test=row.test,
        label=row.label,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        per_second=row.per_second,
    )
