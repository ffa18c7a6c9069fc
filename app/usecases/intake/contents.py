"""Contents at accept: templates resolved, everything checked, each content kept once by hash."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Connection, event

from app.content.problem import ContentRefused
from app.store.catalog import Brand
from app.store.contents import ContentIds, forget_contents, hold_contents, keep_contents
from app.store.customers import CustomerRow
from app.usecases.intake.binding import Bound
from app.usecases.intake.refusing import Refusal
from app.usecases.runtime import Runtime

Refuse = Callable[[int, Refusal, Any], None]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Intents with the ids of their contents, these by id, and which of them others may know."""

    intents: Sequence[tuple[Bound, int]]
    documents: Mapping[int, Mapping[str, Any]]
    shared: Collection[int]

    def hold(self, connection: Connection, used: Collection[int]) -> None:
        """Hold what intents of this transaction have; forget what none of them came to need.

        The last that a transaction does.
        """
        shared = {key: self.documents[key] for key in used if key in self.shared}
        if shared:
            hold_contents(connection, shared)
        needless = self.documents.keys() - set(used) - set(self.shared)
        if needless:
            forget_contents(connection, sorted(needless))


def bind_contents(
    runtime: Runtime,
    connection: Connection,
    brand: Brand,
    bound: Sequence[Bound],
    customers: Mapping[str, CustomerRow],
    refuse: Refuse,
) -> Bodies:
    """Tie each intent to the id of its content; refuse those whose content cannot be said."""
    said: list[tuple[Bound, bytes]] = []
    documents: dict[bytes, Mapping[str, Any]] = {}
    for one in bound:
        customer = customers.get(one.ref)
        if customer is None:
            continue  # refused already
        try:
            document = _document(runtime, brand, one, customer)
        except ContentRefused as refused:
            problem = refused.problem
            refuse(one.line, Refusal(problem.field, "content", problem.reason), one.id)
            continue
        key = _hash(document)
        channels = frozenset(channel for step in one.policy.steps for channel in step.channels)
        problems = runtime.words.checker.check(key, document, one.data, channels)
        if problems:
            first = problems[0]
            refuse(one.line, Refusal(first.field, "content", first.reason), one.id)
            continue
        documents[key] = document
        said.append((one, key))
    ids = content_ids(runtime, connection, brand.id, documents)
    return Bodies(
        [(one, ids.by_hash[key]) for one, key in said],
        {key: documents[name] for name, key in ids.by_hash.items()},
        ids.shared,
    )


def _document(
    runtime: Runtime, brand: Brand, one: Bound, customer: CustomerRow
) -> Mapping[str, Any]:
    content: Mapping[str, Any] = one.document["content"]
    name = content.get("template")
    if name is None:
        return content
    return runtime.words.templates.resolve(name, customer.locale, brand.default_locale)


def content_ids(
    runtime: Runtime,
    connection: Connection,
    brand_id: int,
    documents: Mapping[bytes, Mapping[str, Any]],
) -> ContentIds:
    """The ids of contents by hash; those not known to this process are kept in the ledger.

    What is new is remembered when the connection's transaction has been committed, not before.
    """
    ids: dict[bytes, int] = {}
    missing: dict[bytes, Mapping[str, Any]] = {}
    for key, document in documents.items():
        content_id = runtime.words.ids.find((brand_id, key))
        if content_id is None:
            missing[key] = document
        else:
            ids[key] = content_id
    if missing:
        kept = keep_contents(connection, brand_id, missing)

        def remember(_: Connection) -> None:
            for key, content_id in kept.by_hash.items():
                runtime.words.ids.keep((brand_id, key), content_id)

        event.listen(connection, "commit", remember, once=True)
        return ContentIds({**ids, **kept.by_hash}, {*ids.values(), *kept.shared})
    return ContentIds(ids, set(ids.values()))


def _hash(document: Mapping[str, Any]) -> bytes:
    return blake2b(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
