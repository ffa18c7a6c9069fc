"""What customers said in person of their addresses and time zone, and which noes are their own.

Expands only: the release before neither reads nor writes it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

IN_PERSON = """
-- When the customer gave or (state removed) removed it in person: what the brand knew before, or
-- does not date, does not undo that. Null: it is as the brand says.
ALTER TABLE endpoints ADD COLUMN own_at timestamptz;
ALTER TABLE customers ADD COLUMN timezone_own_at timestamptz;
-- False: only the brand said so, which can take it back.
ALTER TABLE suppressions ADD COLUMN own boolean NOT NULL DEFAULT true;
"""


def upgrade() -> None:
    op.execute(IN_PERSON)
