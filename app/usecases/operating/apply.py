"""Apply: what the configuration declares becomes what the ledger knows, difference shown first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.store import audit
from app.store.answers import answers_topic
from app.store.catalog import (
    Catalog,
    load_catalog,
    policy_documents,
    put_brand,
    put_policies,
    put_senders,
    put_topics,
)
from app.usecases.runtime import Runtime


@dataclass(frozen=True, slots=True)
class BrandWish:
    """A brand as declared, in the ledger's plain form."""

    settings: Mapping[str, Any]
    senders: Mapping[str, Mapping[str, Any]]
    topics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Declared:
    """Everything declared: brands and policies by name."""

    brands: Mapping[str, BrandWish] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def difference(runtime: Runtime, declared: Declared) -> list[str]:
    """What `apply` would change, a line each, as `+ sender demo/store`; nothing is changed."""
    with runtime.engine.begin() as connection:
        return _difference(connection, declared)


def apply(runtime: Runtime, declared: Declared, actor: str = "cli") -> list[str]:
    """Make the ledger know what is declared, in one transaction; return what changed.

    A brand that is not declared any more is left alone; senders and topics that are not declared
    any more are retired: nothing new is accepted for them.
    """
    with runtime.engine.begin() as connection:
        changes = _difference(connection, declared)
        if changes:
            for name, wish in declared.brands.items():
                brand_id = put_brand(connection, name, wish.settings)
                put_senders(connection, brand_id, wish.senders)
                put_topics(connection, brand_id, wish.topics)
                answers_topic(connection, brand_id)
            put_policies(connection, declared.policies)
            audit.note(connection, actor=actor, action="apply", subject={"changes": changes})
    runtime.catalog.forget()
    return changes


def _difference(connection: Connection, declared: Declared) -> list[str]:
    catalog = load_catalog(connection)
    lines: list[str] = []
    for name, wish in declared.brands.items():
        lines += _brand_difference(catalog, name, wish)
    lines += _compare("policy ", policy_documents(connection), declared.policies)
    return lines


def _brand_difference(catalog: Catalog, name: str, wish: BrandWish) -> list[str]:
    known = catalog.brands.get(name)
    if known is None:
        new = [f"+ brand {name}"]
        new += [f"+ sender {name}/{sender}" for sender in wish.senders]
        return new + [f"+ topic {name}/{topic}" for topic in wish.topics]
    lines = [] if dict(known.settings) == dict(wish.settings) else [f"~ brand {name}"]
    senders = {sender.name: sender.settings for sender in known.senders.values()}
    lines += _compare(f"sender {name}/", senders, wish.senders)
    return lines + _compare(f"topic {name}/", known.topic_titles, wish.topics)


def _compare(what: str, known: Mapping[str, Any], wished: Mapping[str, Any]) -> list[str]:
    return [
        *(f"+ {what}{name}" for name in wished if name not in known),
        *(f"~ {what}{name}" for name in wished if name in known and known[name] != wished[name]),
        *(f"- {what}{name}" for name in known if name not in wished),
    ]
