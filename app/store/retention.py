"""What was said, forgotten once it was kept for its time: who got what, and when, stays."""

from sqlalchemy import Connection, text

from app.store.contents import forget_contents


def forget_bodies(connection: Connection, brand_id: int, days: int, limit: int) -> int:
    """Forget what intents said that ended so many days ago, the oldest first; return how many.

    A content goes with the last intent that needs it.
    """
    rows = connection.execute(
        text("""
            WITH old AS (
                SELECT id, content_id FROM intents
                 WHERE brand_id = :brand_id AND ended_at < now() - make_interval(days => :days)
                   AND ended_at IS NOT NULL AND content_id <> 0
                 ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED)
            UPDATE intents i SET data = '{}', content_id = 0
              FROM old WHERE i.id = old.id RETURNING old.content_id"""),
        {"brand_id": brand_id, "days": days, "limit": limit},
    )
    contents = list(rows.scalars())
    if contents:
        forget_contents(connection, sorted(set(contents)))
    return len(contents)


def forget_texts(connection: Connection, brand_id: int, days: int, limit: int) -> int:
    """Forget what people wrote to a brand so many days ago; return how many messages.

    With brand 0, messages that came from nobody known: of these nothing stays.
    """
    change = "UPDATE inbound_messages SET text = ''" if brand_id else "DELETE FROM inbound_messages"
    done = connection.execute(
        text(f"""
            {change} WHERE id IN (
                SELECT id FROM inbound_messages
                 WHERE coalesce(brand_id, 0) = :brand_id AND text <> ''
                   AND received_at < now() - make_interval(days => :days)
                 ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED)"""),  # noqa: S608  # two constants
        {"brand_id": brand_id, "days": days, "limit": limit},
    )
    return done.rowcount
