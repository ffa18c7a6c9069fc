"""Contents: each kept once per brand, by hash."""

from collections.abc import Collection, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, text


def keep_contents(
    connection: Connection, brand_id: int, documents: Mapping[bytes, Mapping[str, Any]]
) -> dict[bytes, int]:
    """Keep contents that may be new, by hash; return the id of each."""
    hashes = list(documents)
    bodies = [orjson.dumps(dict(body)).decode() for body in documents.values()]
    connection.execute(
        text("""
            INSERT INTO contents (brand_id, hash, document)
            SELECT :brand_id, hash, document
              FROM unnest(CAST(:hashes AS bytea[]), CAST(:documents AS jsonb[]))
                   AS r(hash, document)
             ORDER BY hash
            ON CONFLICT (brand_id, hash) DO NOTHING"""),
        {"brand_id": brand_id, "hashes": hashes, "documents": bodies},
    )
    # A statement of its own sees what another transaction has kept while we waited for it.
    rows = connection.execute(
        text("""
            SELECT hash, id FROM contents
             WHERE brand_id = :brand_id AND hash = ANY(CAST(:hashes AS bytea[]))"""),
        {"brand_id": brand_id, "hashes": hashes},
    )
    return {bytes(row.hash): row.id for row in rows}


def load_contents(connection: Connection, ids: Collection[int]) -> dict[int, dict[str, Any]]:
    """Read contents by id."""
    rows = connection.execute(
        text("SELECT id, document FROM contents WHERE id = ANY(CAST(:ids AS bigint[]))"),
        {"ids": list(ids)},
    )
    return {row.id: row.document for row in rows}
