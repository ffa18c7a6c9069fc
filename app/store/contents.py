"""Contents: each kept once per brand, by hash.

A content that no intent needs any more is forgotten: its row stays, without what it said and
without the hash of that. So whoever still knows its id may say the same again under it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection

from app.store.session import sql


@dataclass(frozen=True, slots=True)
class ContentIds:
    """Ids of contents by hash, and which of them others may know, too."""

    by_hash: Mapping[bytes, int]
    shared: Collection[int]


def keep_contents(
    connection: Connection, brand_id: int, documents: Mapping[bytes, Mapping[str, Any]]
) -> ContentIds:
    """Keep contents that may be new, by hash."""
    bodies = [orjson.dumps(dict(body)).decode() for body in documents.values()]
    rows = connection.execute(
        sql("""
            INSERT INTO contents (brand_id, hash, document)
            SELECT :brand_id, hash, document
              FROM unnest(CAST(:hashes AS bytea[]), CAST(:documents AS jsonb[]))
                   AS r(hash, document)
             ORDER BY hash
            ON CONFLICT (brand_id, hash) DO NOTHING RETURNING hash, id"""),
        {"brand_id": brand_id, "hashes": list(documents), "documents": bodies},
    )
    new = {bytes(row.hash): row.id for row in rows}
    if len(new) == len(documents):
        return ContentIds(new, ())
    # A statement of its own sees what another transaction has kept while we waited for it.
    rows = connection.execute(
        sql("""
            SELECT hash, id FROM contents
             WHERE brand_id = :brand_id AND hash = ANY(CAST(:hashes AS bytea[]))"""),
        {"brand_id": brand_id, "hashes": [key for key in documents if key not in new]},
    )
    known = {bytes(row.hash): row.id for row in rows}
    return ContentIds(new | known, known.values())


def hold_contents(connection: Connection, documents: Mapping[int, Mapping[str, Any]]) -> None:
    """Let no content be forgotten that this transaction has just given to intents, by id.

    The last that a transaction locks. What was forgotten already is said again.
    """
    ids = sorted(documents)
    held = connection.execute(
        sql("""
            SELECT id FROM contents WHERE id = ANY(CAST(:ids AS bigint[])) AND document <> '{}'
             ORDER BY id FOR KEY SHARE"""),
        {"ids": ids},
    )
    gone = sorted(set(ids).difference(held.scalars()))
    if gone:
        bodies = [orjson.dumps(dict(documents[key])).decode() for key in gone]
        connection.execute(
            sql("""
                UPDATE contents c SET document = r.document
                  FROM unnest(CAST(:ids AS bigint[]), CAST(:documents AS jsonb[]))
                       AS r(id, document)
                 WHERE c.id = r.id"""),
            {"ids": gone, "documents": bodies},
        )


def forget_contents(connection: Connection, ids: Collection[int]) -> int:
    """Forget those of the contents that no intent needs; return how many.

    The last that a transaction locks: whoever gives one of them to an intent at this moment is
    waited for, and the next statement sees that intent.
    """
    connection.execute(
        sql("""
            SELECT id FROM contents WHERE id = ANY(CAST(:ids AS bigint[]))
             ORDER BY id FOR UPDATE"""),
        {"ids": list(ids)},
    )
    done = connection.execute(
        sql("""
            UPDATE contents c SET document = '{}', hash = uuid_send(gen_random_uuid())
             WHERE id = ANY(CAST(:ids AS bigint[])) AND document <> '{}'
               AND NOT EXISTS (SELECT FROM intents i WHERE i.content_id = c.id
                                  AND i.content_id <> 0)"""),
        {"ids": list(ids)},
    )
    return done.rowcount


def load_contents(connection: Connection, ids: Collection[int]) -> dict[int, dict[str, Any]]:
    """Read contents by id; those that were forgotten are left out."""
    rows = connection.execute(
        sql("""
            SELECT id, document FROM contents
             WHERE id = ANY(CAST(:ids AS bigint[])) AND document <> '{}'"""),
        {"ids": list(ids)},
    )
    return {row.id: row.document for row in rows}
