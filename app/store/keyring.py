"""The key of the hashes that suppressions are, sealed."""

from sqlalchemy import Connection, text


def sealed_key(connection: Connection, new: bytes) -> bytes:
    """The sealed key of this ledger; `new` becomes it where there is none yet."""
    connection.execute(
        text("INSERT INTO address_key (sealed) VALUES (:new) ON CONFLICT DO NOTHING"), {"new": new}
    )
    sealed: bytes = connection.execute(text("SELECT sealed FROM address_key")).scalar_one()
    return bytes(sealed)


def seal_anew(connection: Connection, old: bytes, new: bytes) -> None:
    """Replace the sealed key, unless somebody else did."""
    connection.execute(
        text("UPDATE address_key SET sealed = :new WHERE sealed = :old"), {"old": old, "new": new}
    )
