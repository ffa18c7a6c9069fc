"""What customers allow and wish, where they were active, and how much they were sent.

Expands only: the release before works on this schema, too.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CONSENTS = """
-- Every statement ever made; what holds now is derived from them (app/domain/consent.py).
CREATE TABLE consents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    endpoint_id bigint,
    channel text CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    sender_id int,
    topic_id int,
    kind text CHECK (kind IN ('transactional', 'conversational', 'marketing')),
    allow boolean NOT NULL,
    until timestamptz,
    own boolean NOT NULL,
    source text NOT NULL CHECK (source <> ''),
    actor text NOT NULL DEFAULT '',
    evidence text NOT NULL DEFAULT '',
    -- Names the fact behind it where there is one, so that a repeat of it says nothing new.
    fact text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT one_statement_per_fact UNIQUE (customer_id, fact)
);
CREATE INDEX consents_customer ON consents (customer_id, id);
CREATE FUNCTION consents_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'consents are only ever added';
END $$;
CREATE TRIGGER consents_are_kept BEFORE UPDATE ON consents
    FOR EACH ROW EXECUTE FUNCTION consents_are_kept();
-- Keyed hashes of addresses that said no, which outlive the erasure of their customer. Besides the
-- address the no is as wide as it was said.
CREATE TABLE suppressions (
    brand_id int NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    channel text NOT NULL CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    sender_id int,
    topic_id int,
    kind text CHECK (kind IN ('transactional', 'conversational', 'marketing')),
    source text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX suppressions_once ON suppressions
    (brand_id, hash, coalesce(sender_id, 0), coalesce(topic_id, 0), coalesce(kind, ''));
-- The key of those hashes, sealed by a secret that is not in here (app/domain/sealing.py).
CREATE TABLE address_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    sealed bytea NOT NULL
);
"""

WISHES = """
-- {"channels": [...], "quiet": {"from": "21:00", "to": "08:00"}}: see app/domain/wishes.py.
ALTER TABLE customers ADD COLUMN wishes jsonb NOT NULL DEFAULT '{}';
ALTER TABLE endpoints ADD COLUMN verified_at timestamptz,
    -- Since when the customer has it: what they agreed to before was not about this address.
    ADD COLUMN given_at timestamptz NOT NULL DEFAULT now();
-- The next migration validates it, without keeping writers out.
ALTER TABLE intents ADD COLUMN when_blocked text NOT NULL DEFAULT 'hold',
    ADD CONSTRAINT intents_when_blocked_check
    CHECK (when_blocked IN ('hold', 'next', 'drop')) NOT VALID;
CREATE TABLE activity (
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    channel text NOT NULL CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, channel)
);
"""

PARTICULAR = """
-- Of nearly all customers nothing is known that permission asks for: a batch need not look them up.
ALTER TABLE customers ADD COLUMN particular boolean NOT NULL DEFAULT false;
CREATE FUNCTION customers_become_particular() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE customers SET particular = true
     WHERE id IN (SELECT customer_id FROM added) AND NOT particular;
    RETURN NULL;
END $$;
CREATE TRIGGER customers_become_particular AFTER INSERT ON consents
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION customers_become_particular();
CREATE TRIGGER customers_become_particular AFTER INSERT ON activity
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION customers_become_particular();
"""

CAPS = """
-- How many messages a customer was sent under a cap, by slots of time; never counted anew.
CREATE TABLE cap_counts (
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    cap text NOT NULL,
    slot timestamptz NOT NULL,
    n int NOT NULL CHECK (n >= 0),
    PRIMARY KEY (customer_id, cap, slot)
);
"""


INBOX = """
-- What is fetched of one message is judged together, a moment after it came in.
ALTER TABLE inbox ADD COLUMN delivery_id bigint;
"""


def upgrade() -> None:
    for part in (CONSENTS, WISHES, PARTICULAR, CAPS, INBOX):
        op.execute(part)
