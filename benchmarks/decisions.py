"""Decisions with everything that customers may have said: consents, quiet hours, caps, activity."""

import time

from app.usecases.deciding.decide import decide_intents
from benchmarks.place import Place, Stuck

BATCH = 500
# Of each customer: a yes to marketing, a mute that is over, a topic left; quiet hours far away
# from now; two caps, of which some was used; activity on a channel.
_SETTINGS = """
    UPDATE brands SET settings = settings || '{"caps": {
        "weekly": {"most": 100, "within": 604800, "kind": "marketing"},
        "daily": {"most": 50, "within": 86400}},
        "marketing_quiet_hours": null}'"""
_FILL = """
    SET session_replication_role = replica;
    INSERT INTO customers (brand_id, ref, timezone, locale, particular, wishes)
    SELECT {brand}, 'decided-' || n, 'Europe/Berlin', 'de', true,
           jsonb_build_object('channels', '["sms", "email"]'::jsonb, 'quiet', jsonb_build_object(
               'from', to_char(now() AT TIME ZONE 'Europe/Berlin' + interval '6 hours', 'HH24:MI'),
               'to', to_char(now() AT TIME ZONE 'Europe/Berlin' + interval '12 hours', 'HH24:MI')))
      FROM generate_series(1, {rows}) AS g(n);
    CREATE TEMP TABLE them AS
        SELECT id, row_number() OVER () AS n FROM customers WHERE ref LIKE 'decided-%';
    INSERT INTO endpoints (customer_id, brand_id, channel, address)
    SELECT id, {brand}, c.channel, c.channel || n FROM them,
           (VALUES ('email'), ('sms')) AS c(channel);
    INSERT INTO consents (brand_id, customer_id, kind, allow, own, source)
    SELECT {brand}, id, 'marketing', true, true, 'preferences' FROM them;
    INSERT INTO consents (brand_id, customer_id, sender_id, allow, until, own, source)
    SELECT {brand}, id, 1, false, now() - interval '1 day', true, 'preferences' FROM them;
    INSERT INTO consents (brand_id, customer_id, topic_id, allow, own, source)
    SELECT {brand}, id, 1000, false, true, 'preferences' FROM them;
    INSERT INTO cap_counts (customer_id, cap, slot, n)
    SELECT id, cap, date_bin('1 hour', now() - interval '5 hours', '2000-01-01'), 1
      FROM them, (VALUES ('weekly'), ('daily')) AS c(cap);
    INSERT INTO activity (customer_id, channel, at)
    SELECT id, 'email', now() - interval '1 hour' FROM them;
    INSERT INTO intents (id, brand_id, sender_id, topic_id, customer_id, content_id, policy_id,
                         key, fingerprint, kind, urgency, data, expires_at, decide_at)
    SELECT md5('decided' || n)::uuid, {brand}, 1, 1, id, 1,
           (SELECT id FROM policies WHERE name = 'notify' ORDER BY id DESC LIMIT 1),
           n::text, '\\x00', 'marketing', 'bulk', '{{}}', now() + interval '3 days', now()
      FROM them"""
_REMOVE = """
    DELETE FROM customers WHERE ref LIKE 'decided-%';
    UPDATE brands SET settings = settings - 'caps' - 'marketing_quiet_hours'"""


def decisions(place: Place, count: int) -> float:
    """Decide `count` intents of as many customers; return decisions a second of one process."""
    place.empty()
    place.execute(_SETTINGS)
    place.script(_FILL.format(rows=count, brand=place.brand_id))
    place.execute("ANALYZE")
    runtime = place.runtime()
    with runtime.engine.begin() as connection:
        ids = list(connection.exec_driver_sql("SELECT id FROM intents").scalars())
    decide_intents(runtime, [])  # what is loaded once is loaded
    started = time.monotonic()
    sent = sum(
        decide_intents(runtime, ids[start : start + BATCH]).get("send", 0)
        for start in range(0, len(ids), BATCH)
    )
    took = time.monotonic() - started
    runtime.engine.dispose()
    place.empty()
    place.script(_REMOVE)
    if sent != count:
        raise Stuck(f"{sent} of {count} decisions were to send")
    return count / took
