"""Inbound messages: what people wrote to us, each kept once, with whom it is from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from app.store.addresses import same_address
from app.store.events import RECENT_INTENTS
from app.store.session import as_rows


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that is new: its place, the delivery that it answers, and whom it is from."""

    n: int
    delivery_id: int | None
    customer_id: int | None


def keep_inbound(
    connection: Connection,
    rows: Sequence[Mapping[str, Any]],
    *,
    brand_ids: Collection[int],
    answers_within_s: float,
) -> list[KeptMessage]:
    """Keep messages that are not known yet, and return them.

    A row is `{"n", "account", "external_id", "channel", "service", "sender", "recipient", "text",
    "at", "ref"}`, where `n` is its place. A message answers the delivery that has its `ref`, else
    the last one that was handed over to its sender's endpoint through that account, in the
    seconds given before it. With neither, it belongs to the one customer who has that address, or
    to nobody; so does what answers an answer that went to a stranger.
    """
    done = connection.execute(
        text(_KEEP_INBOUND),
        {
            "rows": as_rows(list(map(dict, rows))),
            "brand_ids": list(brand_ids),
            "within": answers_within_s,
            "recent": RECENT_INTENTS,
        },
    )
    return [KeptMessage(*row) for row in done]


# In the order in which accept locks customers: the key to them locks them, too.
_KEEP_INBOUND = f"""
    WITH rows AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            n int, account text, external_id text, channel text, service text, sender text,
            recipient text, text text, at timestamptz, ref text)
    ), named AS (
        SELECT DISTINCT ON (r.n) r.n, d.id AS delivery_id, d.endpoint_id, i.customer_id
          FROM rows r
          JOIN deliveries d ON d.account = r.account AND d.provider_ref = r.ref
          JOIN intents i ON i.id = d.intent_id
          JOIN customers c ON c.id = i.customer_id AND c.ref <> ''
         ORDER BY r.n, d.id DESC
    ), reached AS (
        SELECT DISTINCT ON (r.n) r.n, last.id AS delivery_id, e.id AS endpoint_id, e.customer_id,
               e.state <> 'removed' AND count(*) FILTER (WHERE e.state <> 'removed')
                   OVER (PARTITION BY r.n) = 1 AS alone
          FROM rows r
         CROSS JOIN unnest(CAST(:brand_ids AS int[])) AS b(id)
          JOIN endpoints e ON e.brand_id = b.id AND {same_address("e", "r.sender")}
           AND e.channel = r.channel AND e.service = r.service
          LEFT JOIN LATERAL (
              SELECT d.id, d.handed_over_at
                FROM (SELECT id FROM intents WHERE customer_id = e.customer_id
                       ORDER BY accepted_at DESC LIMIT :recent) i
                JOIN deliveries d ON d.intent_id = i.id AND d.endpoint_id = e.id
               WHERE d.account = r.account AND d.handed_over_at <= r.at
                 AND d.handed_over_at > r.at - make_interval(secs => :within)
               ORDER BY d.handed_over_at DESC LIMIT 1) last ON true
         ORDER BY r.n, last.handed_over_at DESC NULLS LAST, e.state <> 'removed' DESC, e.id DESC
    ), matched AS (
        SELECT n, delivery_id, endpoint_id, customer_id FROM named
         UNION ALL
        SELECT n, delivery_id, endpoint_id, customer_id FROM reached
         WHERE (delivery_id IS NOT NULL OR alone) AND n NOT IN (SELECT n FROM named)
    ), new AS (
        INSERT INTO inbound_messages (account, external_id, channel, service, from_address,
            to_identity, text, brand_id, customer_id, endpoint_id, delivery_id, at)
        SELECT r.account, r.external_id, r.channel, r.service, r.sender, r.recipient, r.text,
               c.brand_id, c.id, m.endpoint_id, m.delivery_id, r.at
          FROM rows r LEFT JOIN matched m USING (n) LEFT JOIN customers c ON c.id = m.customer_id
         ORDER BY c.brand_id, c.ref, r.account, r.external_id
        ON CONFLICT ON CONSTRAINT one_inbound_message_per_fact DO NOTHING
        RETURNING account, external_id, delivery_id, customer_id
    )
    SELECT rows.n, new.delivery_id, new.customer_id
      FROM new JOIN rows USING (account, external_id)"""  # noqa: S608  # constants of ours
