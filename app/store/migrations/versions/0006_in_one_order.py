"""Campaigns are found by an index, customers are locked in one order, and dead rows go in time.

Expands only; built beside the work, since the tables are in use.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {
    "intents_campaign": "intents (brand_id, campaign, accepted_at, id) WHERE campaign <> ''",
}

# As deliveries have it: what is decided and read leaves dead rows where the next is looked for.
VACUUM = """
ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 1, autovacuum_analyze_scale_factor = 0.05)
"""

PARTICULAR = """
-- In the order in which all others lock customers.
CREATE OR REPLACE FUNCTION customers_become_particular() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN
    PERFORM FROM customers WHERE id IN (SELECT customer_id FROM added) AND NOT particular
      ORDER BY brand_id, ref FOR NO KEY UPDATE;
    IF FOUND THEN
        UPDATE customers SET particular = true
         WHERE id IN (SELECT customer_id FROM added) AND NOT particular;
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
    for table in ("intents", "inbox"):
        op.execute(VACUUM.format(table=table))
    op.execute(PARTICULAR)
