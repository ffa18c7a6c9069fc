"""Consents: statements of customers, only ever added; and what else permission asks of a person."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from app.domain.consent import Consent, Scope
from app.domain.permission import Bar
from app.domain.vocabulary import Channel, Kind
from app.store.session import as_rows


def add_consents(
    connection: Connection, brand_id: int, rows: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Write statements down; return the customers of whom one was new.

    A row is `{"customer_id", "endpoint_id", "channel", "sender_id", "topic_id", "kind", "allow",
    "until", "own", "source", "actor", "evidence", "fact"}`; a `fact` that is known of the customer
    says nothing new. Nobody (`answers.NOBODY`) says nothing: of a stranger's no a hash is kept.
    """
    done = connection.execute(
        text("""
            INSERT INTO consents (brand_id, customer_id, endpoint_id, channel, sender_id, topic_id,
                                  kind, allow, until, own, source, actor, evidence, fact)
            SELECT :brand_id, r.* FROM json_to_recordset(CAST(:rows AS json)) AS r(
                   customer_id bigint, endpoint_id bigint, channel text, sender_id int,
                   topic_id int, kind text, allow boolean, until timestamptz, own boolean,
                   source text, actor text, evidence text, fact text)
             WHERE r.customer_id <> ALL (SELECT id FROM customers
                                          WHERE brand_id = :brand_id AND ref = '')
             ORDER BY r.customer_id
            ON CONFLICT ON CONSTRAINT one_statement_per_fact DO NOTHING
            RETURNING customer_id"""),
        {"brand_id": brand_id, "rows": as_rows(list(map(dict, rows)))},
    )
    return list(dict.fromkeys(done.scalars()))


def consents_of(connection: Connection, customer_ids: Collection[int]) -> dict[int, list[Consent]]:
    """Everything that customers said, in order; those who said nothing are left out."""
    rows = connection.execute(
        text("""
            SELECT customer_id, channel, endpoint_id, sender_id, topic_id, kind, allow, at, until,
                   own, source, id,
                   CASE WHEN allow THEN ARRAY(
                       SELECT e.id FROM endpoints e
                        WHERE e.customer_id = c.customer_id AND e.verified_at IS NULL
                          AND e.given_at > c.at) END
              FROM consents c WHERE customer_id = ANY(CAST(:ids AS bigint[]))
             ORDER BY customer_id, id"""),
        {"ids": list(customer_ids)},
    )
    found: dict[int, list[Consent]] = defaultdict(list)
    for customer_id, channel, endpoint_id, sender_id, topic_id, kind, *said, later in rows:
        scope = Scope(
            Channel(channel) if channel else None,
            endpoint_id,
            sender_id,
            topic_id,
            Kind(kind) if kind else None,
        )
        one = Consent(scope, *said)
        found[customer_id].append(replace(one, strangers=frozenset(later)) if later else one)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Kept:
    """A statement as it was written down, beside what follows from it."""

    id: int
    actor: str
    evidence: str


def kept_of(
    connection: Connection,
    customer_id: int,
    limit: int,
    before: int | None = None,
    senders: Collection[int] | None = None,
) -> list[Kept]:
    """The latest statements of a customer, older than `before`, the newest first.

    With `senders` those about one of them, or about no sender.
    """
    rows = connection.execute(
        text("""
            SELECT id, actor, evidence FROM consents
             WHERE customer_id = :customer AND id < coalesce(:before, 9223372036854775807)
               AND (CAST(:senders AS int[]) IS NULL OR sender_id IS NULL
                    OR sender_id = ANY(CAST(:senders AS int[])))
             ORDER BY id DESC LIMIT :limit"""),
        {
            "customer": customer_id,
            "before": before,
            "limit": limit,
            "senders": None if senders is None else list(senders),
        },
    )
    return [Kept(*row) for row in rows]


def kept_under(connection: Connection, customer_id: int, facts: Collection[str]) -> dict[str, Kept]:
    """Statements of a customer by the facts behind them."""
    rows = connection.execute(
        text("""
            SELECT fact, id, actor, evidence FROM consents
             WHERE customer_id = :customer AND fact = ANY(CAST(:facts AS text[]))"""),
        {"customer": customer_id, "facts": list(facts)},
    )
    return {fact: Kept(*rest) for fact, *rest in rows}


def look_again(
    connection: Connection, customer_ids: Collection[int], *, allowed_less: bool = True
) -> None:
    """Let every open intent of customers be decided at once, and what was put off for their sake be
    claimed at once: what they allow has changed.

    Where they may have `allowed_less`, what is queued goes back, so that no claim passes by what
    was said: one that is under way is waited for, and one to come finds nothing until it is
    released anew.
    """
    connection.execute(
        text("""
            WITH mine AS MATERIALIZED (
                SELECT id FROM intents WHERE customer_id = ANY(CAST(:ids AS bigint[]))
                   AND state = 'open' ORDER BY id FOR UPDATE
            ), held AS (
                SELECT d.id FROM mine JOIN deliveries d ON d.intent_id = mine.id
                 WHERE d.state = 'queued' AND :allowed_less
                    OR d.state = 'planned' AND d.reason = ANY(CAST(:bars AS text[]))
                       AND d.due_at > now()
                 ORDER BY d.id FOR UPDATE OF d
            ), let_go AS (
                UPDATE deliveries d SET state = 'planned', due_at = now(),
                       account = CASE WHEN d.attempts = 0 THEN '' ELSE d.account END
                  FROM held WHERE d.id = held.id)
            UPDATE intents i SET decide_at = now() FROM mine WHERE i.id = mine.id"""),
        {
            "ids": list(customer_ids),
            "bars": [bar.value for bar in Bar],
            "allowed_less": allowed_less,
        },
    )
