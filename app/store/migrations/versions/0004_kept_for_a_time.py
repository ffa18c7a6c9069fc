"""Indexes by which is found what was kept long enough, and what is kept of one person.

Expands only; built beside the work, since the tables are in use.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# An intent's `content_id` is 0 once its body is no longer kept.
INDEXES = {
    "intents_bodies": "intents (brand_id, ended_at) WHERE ended_at IS NOT NULL AND content_id <> 0",
    "intents_content": "intents (content_id) WHERE content_id <> 0",
    "inbound_messages_texts": (
        "inbound_messages (coalesce(brand_id, 0), received_at) WHERE text <> ''"
    ),
    "inbound_messages_strangers": "inbound_messages (from_address) WHERE customer_id IS NULL",
    "inbox_fetches": "inbox (delivery_id) WHERE delivery_id IS NOT NULL AND due_at IS NOT NULL",
    "audit_customer": "audit ((subject -> 'customer')) WHERE subject ? 'customer'",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE intents VALIDATE CONSTRAINT intents_when_blocked_check")
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
