"""Addresses are found in capitals or not, and the no of an address keeps its end.

Expands only: the release before goes on with the index that it knows (`endpoints_address`, which
can go once that release is gone), and holds a no that ends as one for good.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEXES = {
    "endpoints_any_case": "endpoints (brand_id, lower(address))",
    "suppressions_ending": "suppressions (until) WHERE until IS NOT NULL",
}

UNTIL = """
-- When the no ends by itself; null: never.
ALTER TABLE suppressions ADD COLUMN IF NOT EXISTS until timestamptz;
"""


def upgrade() -> None:
    op.execute(UNTIL)
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
