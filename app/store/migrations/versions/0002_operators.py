"""What operators set and see, between which accounts was chosen, and inbound messages.

Expands only: the release before works on this schema, too (`schema_contract`).
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CONTRACT = """
-- The oldest schema revision whose release still works on this database.
CREATE TABLE schema_contract (
    works_from text NOT NULL,
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO schema_contract (works_from) VALUES ('0001');
"""

CONTROLS = """
CREATE TABLE limits (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    per_second float8 NOT NULL CHECK (per_second > 0),
    until timestamptz,
    reason text NOT NULL CHECK (reason <> ''),
    actor text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX limits_in_force ON limits (account) WHERE ended_at IS NULL;
ALTER TABLE api_keys ADD COLUMN per_second float8 CHECK (per_second > 0);
"""

FLEET = """
-- One row for each process that works, kept fresh by it: a page has room for the next version.
CREATE TABLE workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    queues text[] NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'draining', 'drained', 'stopped')),
    release text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    drain_asked_at timestamptz
) WITH (fillfactor = 50);
-- Counts that a process made since it began; written by that process alone, so nobody waits.
CREATE TABLE tallies (
    worker_id uuid NOT NULL,
    name text NOT NULL,
    labels text NOT NULL DEFAULT '',
    value float8 NOT NULL,
    PRIMARY KEY (worker_id, name, labels)
) WITH (fillfactor = 50);
"""

CHOICES = """
-- Between which accounts was chosen, and on what grounds; many deliveries share one.
CREATE TABLE choices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    channel text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    considered jsonb NOT NULL
);
ALTER TABLE deliveries ADD COLUMN choice_id bigint;
-- Since when a queued delivery has been due, however often its hint was lost.
ALTER TABLE deliveries ADD COLUMN due_since timestamptz;
-- W3C trace context of whoever enqueued it, where there was one.
ALTER TABLE intents ADD COLUMN trace text;
"""

INDEXES = {
    # Nearly empty: deliveries that have cost workers before, which are tried one by one.
    "deliveries_suspects": "deliveries (channel)"
    " WHERE losses >= 2 AND state IN ('planned', 'queued', 'sending')",
    "inbox_unreadable": "inbox (id) WHERE due_at IS NULL AND problem IS NOT NULL",
}

INBOUND = """
CREATE TABLE inbound_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    external_id text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    service text NOT NULL DEFAULT '',
    from_address text NOT NULL,
    to_identity text NOT NULL DEFAULT '',
    text text NOT NULL DEFAULT '',
    brand_id int,
    customer_id bigint REFERENCES customers ON DELETE CASCADE,
    endpoint_id bigint,
    delivery_id bigint,
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT one_inbound_message_per_fact UNIQUE (account, external_id)
);
CREATE INDEX inbound_messages_customer
    ON inbound_messages (customer_id, at) WHERE customer_id IS NOT NULL;
"""


def upgrade() -> None:
    # Beside the work, as the tables are in use; and first, so that all of it may be repeated.
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")
    for part in (CONTRACT, CONTROLS, FLEET, CHOICES, INBOUND):
        op.execute(part)
