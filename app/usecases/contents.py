"""Contents at accept: templates resolved, everything checked, each content kept once by hash."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Connection, event

from app.content.problem import ContentRefused
from app.store.catalog import Brand
from app.store.contents import keep_contents
from app.store.customers import CustomerRow
from app.usecases.binding import Bound
from app.usecases.refusing import Refusal
from app.usecases.runtime import Runtime

Refuse = Callable[[int, Refusal, Any], None]


def bind_contents(
    runtime: Runtime,
    connection: Connection,
    brand: Brand,
    bound: Sequence[Bound],
    customers: Mapping[str, CustomerRow],
    refuse: Refuse,
) -> list[tuple[Bound, int]]:
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
    return [(one, ids[key]) for one, key in said]


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
) -> dict[bytes, int]:
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
        new = keep_contents(connection, brand_id, missing)
        ids |= new

        def remember(_: Connection) -> None:
            for key, content_id in new.items():
                runtime.words.ids.keep((brand_id, key), content_id)

        event.listen(connection, "commit", remember, once=True)
    return ids


def _hash(document: Mapping[str, Any]) -> bytes:
    return blake2b(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
