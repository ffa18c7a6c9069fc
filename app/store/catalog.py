"""What the brand declared: brands, senders, topics and policies, loaded whole and kept for a while.

The catalog is small and read by every batch, so processes keep a copy for a second or two.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.domain.caps import Cap
from app.domain.consent import Scope
from app.domain.permission import Rules
from app.domain.policy import Policy
from app.domain.vocabulary import Channel, Kind
from app.domain.wishes import QuietHours
from app.store import answers

KEPT_DAYS = 30
"""Days for which texts are kept where a brand says nothing else."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who speaks for a brand. `settings` holds the identity on each channel, limits, tracking."""

    id: int
    name: str
    brand_id: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Brand:
    """The tenancy border, with its senders and topics by name (retired ones left out)."""

    id: int
    name: str
    settings: Mapping[str, Any]
    senders: Mapping[str, Sender]
    topics: Mapping[str, int]
    topic_titles: Mapping[str, str]
    rules: Rules = field(default_factory=Rules)
    answers_topic: int | None = None
    """The topic of answers to words such as STOP, which no cap counts; None before there is any."""

    @property
    def timezone(self) -> str:
        """Where its customers are, where nothing tells."""
        return str(self.settings.get("timezone", "UTC"))

    @property
    def keep_content_days(self) -> int:
        """Days for which texts are kept."""
        return int(self.settings.get("keep_content_days", KEPT_DAYS))

    @property
    def default_sender(self) -> str | None:
        """The sender that speaks where an intent names none."""
        named: str | None = self.settings.get("default_sender")
        return named or next(iter(self.senders), None)

    @property
    def default_locale(self) -> str:
        """The language for customers of whom none is known."""
        return str(self.settings.get("default_locale", "en"))


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything declared. `policies` are the current ones by name; the others are by id."""

    brands: Mapping[str, Brand]
    brands_by_id: Mapping[int, Brand]
    senders_by_id: Mapping[int, Sender]
    topics_by_id: Mapping[int, str]
    policies: Mapping[str, tuple[int, Policy]]
    policies_by_id: Mapping[int, Policy]


def load_catalog(connection: Connection) -> Catalog:
    """Read everything declared, retired senders included among `senders_by_id`."""
    senders = [
        (row.retired, Sender(row.id, row.name, row.brand_id, row.settings))
        for row in connection.execute(text("SELECT * FROM senders ORDER BY id"))
    ]
    senders_of: dict[int, dict[str, Sender]] = defaultdict(dict)
    for gone, sender in senders:
        if not gone:
            senders_of[sender.brand_id][sender.name] = sender
    topics = connection.execute(text("SELECT * FROM topics ORDER BY id")).all()
    topics_of: dict[int, list[Any]] = defaultdict(list)
    for topic in topics:
        topics_of[topic.brand_id].append(topic)
    brands = [
        Brand(
            id=row.id,
            name=row.name,
            settings=row.settings,
            senders=senders_of[row.id],
            topics={t.name: t.id for t in topics_of[row.id] if not t.retired},
            topic_titles={t.name: t.title for t in topics_of[row.id] if not t.retired},
            answers_topic=next((t.id for t in topics_of[row.id] if t.name == answers.NAME), None),
        )
        for row in connection.execute(text("SELECT * FROM brands ORDER BY id"))
    ]
    brands = [replace(brand, rules=_rules(brand)) for brand in brands]
    policies = [
        (row.current, row.id, Policy.from_document(row.document))
        for row in connection.execute(text("SELECT id, document, current FROM policies"))
    ]
    return Catalog(
        brands={brand.name: brand for brand in brands},
        brands_by_id={brand.id: brand for brand in brands},
        senders_by_id={sender.id: sender for _, sender in senders},
        topics_by_id={topic.id: topic.name for topic in topics},
        policies={policy.name: (key, policy) for current, key, policy in policies if current},
        policies_by_id={key: policy for _, key, policy in policies},
    )


def _rules(brand: Brand) -> Rules:
    """What a brand imposes on itself, from its settings; names become ids."""
    quiet = brand.settings.get("marketing_quiet_hours")
    sender_ids = {name: sender.id for name, sender in brand.senders.items()}
    caps: Mapping[str, Mapping[str, Any]] = brand.settings.get("caps") or {}
    return Rules(
        marketing_quiet=QuietHours.parse(quiet["from"], quiet["to"]) if quiet else None,
        caps=tuple(
            Cap(
                name=name,
                most=cap["most"],
                window_s=cap["within"],
                scope=Scope(
                    channel=Channel(cap["channel"]) if cap.get("channel") else None,
                    sender_id=sender_ids.get(cap.get("sender") or ""),
                    topic_id=brand.topics.get(cap.get("topic") or ""),
                    kind=Kind(cap["kind"]) if cap.get("kind") else None,
                ),
            )
            for name, cap in caps.items()
        ),
    )


def policy_documents(connection: Connection) -> dict[str, dict[str, Any]]:
    """The current policies by name, as they were declared."""
    rows = connection.execute(text("SELECT name, document FROM policies WHERE current"))
    return {row.name: row.document for row in rows}


def put_brand(connection: Connection, name: str, settings: Mapping[str, Any]) -> int:
    """Declare a brand or change its settings; return its id."""
    statement = """
        INSERT INTO brands (name, settings) VALUES (:name, CAST(:settings AS jsonb))
        ON CONFLICT (name) DO UPDATE SET settings = excluded.settings RETURNING id"""
    return int(
        connection.execute(
            text(statement), {"name": name, "settings": _json(settings)}
        ).scalar_one()
    )


def put_senders(
    connection: Connection, brand_id: int, senders: Mapping[str, Mapping[str, Any]]
) -> None:
    """Declare a brand's senders, all of them: those not named are retired, never deleted."""
    rows = [{"name": name, "settings": dict(settings)} for name, settings in senders.items()]
    connection.execute(
        text("""
            WITH gone AS (
                UPDATE senders SET retired = true WHERE brand_id = :brand_id
                   AND NOT retired AND name <> ALL(CAST(:names AS text[])))
            INSERT INTO senders (brand_id, name, settings)
            SELECT :brand_id, r.name, r.settings
              FROM json_to_recordset(CAST(:rows AS json)) AS r(name text, settings jsonb)
            ON CONFLICT (brand_id, name)
               DO UPDATE SET settings = excluded.settings, retired = false"""),
        {"brand_id": brand_id, "names": list(senders), "rows": orjson.dumps(rows).decode()},
    )


def put_topics(connection: Connection, brand_id: int, topics: Mapping[str, str]) -> None:
    """Declare a brand's topics (name to title), all of them: those not named are retired."""
    connection.execute(
        text("""
            WITH gone AS (
                UPDATE topics SET retired = true WHERE brand_id = :brand_id
                   AND NOT retired AND name <> ALL(CAST(:names AS text[])))
            INSERT INTO topics (brand_id, name, title)
            SELECT :brand_id, name, title
              FROM unnest(CAST(:names AS text[]), CAST(:titles AS text[])) AS r(name, title)
            ON CONFLICT (brand_id, name)
               DO UPDATE SET title = excluded.title, retired = false"""),
        {"brand_id": brand_id, "names": list(topics), "titles": list(topics.values())},
    )


def put_policies(connection: Connection, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Declare the policies, all of them: intents keep the version that they were bound to."""
    connection.execute(text("UPDATE policies SET current = false WHERE current"))
    for name, document in documents.items():
        body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        connection.execute(
            text("""
                INSERT INTO policies (name, hash, document)
                VALUES (:name, :hash, CAST(:document AS jsonb))
                ON CONFLICT (name, hash) DO UPDATE SET current = true"""),
            {
                "name": name,
                "hash": blake2b(body, digest_size=16).digest(),
                "document": body.decode(),
            },
        )


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(value)).decode()
