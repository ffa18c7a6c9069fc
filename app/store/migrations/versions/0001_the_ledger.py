"""The ledger.

`deliveries.due_at` is when somebody must look at the row again; its state says what for:
planned, to be released to a worker; queued, because its hint is lost; sending, because its lease
has ended; unknown, because no verdict came; sent or delivered, because its escalation clock
rings; failed, because the next step is due. NULL: nothing waits.

`intents.decide_at` is when an open intent is to be decided again, at the latest its expiry.

Foreign keys are kept where a row could be orphaned (customer, intent, delivery). Rows that are
shared by very many (brand, sender, topic, content, policy) are never deleted, and a key to them
would lock one hot row from every writer, so there is none.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CATALOG = """
CREATE TABLE brands (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE senders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL REFERENCES brands,
    name text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    retired boolean NOT NULL DEFAULT false,
    UNIQUE (brand_id, name)
);
CREATE TABLE topics (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL REFERENCES brands,
    name text NOT NULL,
    title text NOT NULL,
    retired boolean NOT NULL DEFAULT false,
    UNIQUE (brand_id, name)
);
CREATE TABLE policies (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    hash bytea NOT NULL,
    document jsonb NOT NULL,
    current boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, hash)
);
CREATE UNIQUE INDEX policies_current ON policies (name) WHERE current;
CREATE TABLE api_keys (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL REFERENCES brands,
    prefix text NOT NULL UNIQUE,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    senders text[],
    test boolean NOT NULL DEFAULT false,
    label text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
"""

CUSTOMERS = """
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL REFERENCES brands,
    ref text NOT NULL,
    name text,
    locale text,
    timezone text,
    attributes jsonb NOT NULL DEFAULT '{}',
    as_of timestamptz,
    test boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (brand_id, ref)
);
CREATE TABLE endpoints (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    brand_id int NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    service text NOT NULL DEFAULT '',
    address text NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'invalid', 'removed')),
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (customer_id, channel, service, address)
);
CREATE INDEX endpoints_address ON endpoints (brand_id, address);
"""

INTENTS = """
CREATE TABLE contents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int NOT NULL,
    hash bytea NOT NULL,
    document jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (brand_id, hash)
);
CREATE TABLE intents (
    id uuid PRIMARY KEY,
    brand_id int NOT NULL,
    sender_id int NOT NULL,
    topic_id int NOT NULL,
    customer_id bigint NOT NULL REFERENCES customers,
    content_id bigint NOT NULL,
    policy_id int NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    kind text NOT NULL CHECK (kind IN ('transactional', 'conversational', 'marketing')),
    urgency text NOT NULL CHECK (urgency IN ('urgent', 'normal', 'bulk')),
    campaign text NOT NULL DEFAULT '',
    data jsonb NOT NULL,
    test boolean NOT NULL DEFAULT false,
    state text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'seen', 'exhausted', 'expired', 'cancelled')),
    reason text,
    send_after timestamptz,
    expires_at timestamptz NOT NULL,
    decide_at timestamptz,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    seen_delivery_id bigint,
    seen_as text,
    CONSTRAINT open_intents_have_a_clock CHECK ((state = 'open') = (decide_at IS NOT NULL)),
    CONSTRAINT ended_intents_say_when CHECK ((state = 'open') = (ended_at IS NULL)),
    CONSTRAINT seen_intents_say_where CHECK ((state = 'seen') = (seen_delivery_id IS NOT NULL))
);
CREATE INDEX intents_decide ON intents (decide_at) WHERE decide_at IS NOT NULL;
CREATE INDEX intents_customer ON intents (customer_id, accepted_at);
CREATE INDEX intents_accepted ON intents (brand_id, accepted_at, id);
CREATE TABLE decisions (
    intent_id uuid NOT NULL REFERENCES intents ON DELETE CASCADE,
    number smallint NOT NULL,
    at timestamptz NOT NULL,
    cause text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('send', 'wait', 'stop')),
    until timestamptz,
    reason text NOT NULL DEFAULT '',
    considered jsonb NOT NULL,
    PRIMARY KEY (intent_id, number)
);
CREATE TABLE refusals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk uuid NOT NULL,
    line int NOT NULL,
    brand_id int,
    brand text NOT NULL,
    sender text,
    key text,
    intent_id uuid,
    field text NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    document jsonb,
    refused_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (chunk, line)
);
CREATE INDEX refusals_documents ON refusals (refused_at) WHERE document IS NOT NULL;
CREATE INDEX refusals_intent ON refusals (intent_id) WHERE intent_id IS NOT NULL;
"""

DELIVERIES = """
CREATE TABLE deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    intent_id uuid NOT NULL REFERENCES intents ON DELETE CASCADE,
    brand_id int NOT NULL,
    sender_id int NOT NULL,
    endpoint_id bigint NOT NULL,
    step smallint NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'sms', 'chat', 'social')),
    lane text NOT NULL CHECK (lane IN ('urgent', 'normal', 'bulk')),
    campaign text NOT NULL DEFAULT '',
    test boolean NOT NULL DEFAULT false,
    account text NOT NULL DEFAULT '',
    state text NOT NULL CHECK (state IN ('planned', 'queued', 'sending', 'sent', 'delivered',
                                         'failed', 'unknown', 'cancelled', 'expired')),
    due_at timestamptz,
    claim_token uuid,
    attempts smallint NOT NULL DEFAULT 0,
    losses smallint NOT NULL DEFAULT 0,
    crossed boolean NOT NULL DEFAULT false,
    provider_ref text,
    handed_over_at timestamptz,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT one_delivery_per_step_and_endpoint UNIQUE (intent_id, step, endpoint_id),
    CONSTRAINT live_deliveries_have_a_clock
        CHECK (state NOT IN ('planned', 'queued', 'sending', 'unknown') OR due_at IS NOT NULL),
    CONSTRAINT ended_deliveries_have_none
        CHECK (state NOT IN ('cancelled', 'expired') OR due_at IS NULL),
    CONSTRAINT claimed_deliveries_have_a_token
        CHECK (state NOT IN ('sending', 'unknown') OR claim_token IS NOT NULL)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 1, autovacuum_analyze_scale_factor = 0.05);
-- Each live row is in just one of these three.
CREATE INDEX deliveries_planned
    ON deliveries (channel, lane, sender_id, campaign, test, due_at) WHERE state = 'planned';
CREATE INDEX deliveries_queued ON deliveries (account, lane, due_at) WHERE state = 'queued';
CREATE INDEX deliveries_watched
    ON deliveries (due_at) WHERE due_at IS NOT NULL AND state NOT IN ('planned', 'queued');
CREATE INDEX deliveries_receipts
    ON deliveries (account, provider_ref) WHERE provider_ref IS NOT NULL;
CREATE INDEX deliveries_failed ON deliveries (brand_id, id) WHERE state = 'failed';
CREATE TABLE attempts (
    delivery_id bigint NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    claim_token uuid NOT NULL,
    number smallint NOT NULL,
    account text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('accepted', 'retryable', 'rate_limited', 'rejected',
                                             'ambiguous')),
    reason text,
    ref text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    task_id uuid,
    worker text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, claim_token)
);
CREATE INDEX attempts_task ON attempts (task_id) WHERE task_id IS NOT NULL;
"""

FEEDBACK = """
CREATE TABLE inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    external_id text NOT NULL,
    body bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    received_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz DEFAULT now(),
    tries smallint NOT NULL DEFAULT 0,
    problem text,
    UNIQUE (source, external_id)
);
CREATE INDEX inbox_due ON inbox (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    external_id text NOT NULL,
    intent_id uuid NOT NULL REFERENCES intents ON DELETE CASCADE,
    delivery_id bigint NOT NULL,
    type text NOT NULL,
    reason text NOT NULL DEFAULT '',
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    detail jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT one_event_per_fact UNIQUE (source, external_id)
);
CREATE INDEX events_intent ON events (intent_id);
"""

CONTROLS = """
CREATE TABLE pauses (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand_id int,
    channel text,
    account text,
    sender_id int,
    campaign text,
    reason text NOT NULL CHECK (reason <> ''),
    actor text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CONSTRAINT a_pause_names_something
        CHECK (num_nonnulls(channel, account, sender_id, campaign) > 0),
    CONSTRAINT a_pause_ends_after_it_starts CHECK (ended_at >= started_at)
);
CREATE UNIQUE INDEX pauses_in_force
    ON pauses (coalesce(brand_id, 0), coalesce(channel, ''), coalesce(account, ''),
               coalesce(sender_id, 0), coalesce(campaign, '')) WHERE ended_at IS NULL;
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject jsonb NOT NULL DEFAULT '{}',
    reason text NOT NULL DEFAULT ''
);
"""


def upgrade() -> None:
    for part in (CATALOG, CUSTOMERS, INTENTS, DELIVERIES, FEEDBACK, CONTROLS):
        op.execute(part)
