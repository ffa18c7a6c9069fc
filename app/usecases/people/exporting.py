"""Exporting: everything that is kept of one customer, as one JSON document.

It is written part by part, so that it needs little room however much there is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from app.content.said import said
from app.store import audit, exporting, reports
from app.store.wishes import find_individual
from app.usecases.runtime import Runtime
from app.usecases.telling.shown import catalog_of, grouped, head, public, without

FORMAT: Final = "converge-customer-1"
PAGE: Final = 100
Rows = list[dict[str, Any]]
PageAfter = Callable[[Connection, int, int, int], Rows]
_LONG: Mapping[str, PageAfter] = {
    "consents": exporting.consents_after,
    "messages_in": exporting.messages_after,
    "refusals": exporting.refusals_after,
}


def export(runtime: Runtime, brand_id: int, ref: str, actor: str) -> Iterator[bytes] | None:
    """Everything that is kept of a customer, in pieces of a JSON document; None: of nobody known.

    `{"format", "exported_at", "brand", "customer", "endpoints", "activity", "counts", "audit",
    "consents", "messages_in", "refusals", "intents"}`. An intent is as it is shown, with whole
    addresses, and with `content`, `data` and `said` (what was made of them) as long as these are
    kept.
    """
    with runtime.engine.begin() as connection:
        customer_id = find_individual(connection, brand_id, ref)
        if customer_id is None:
            return None
        audit.note(
            connection, actor=actor, action="customer.export", subject={"customer": customer_id}
        )
    return _pieces(runtime, brand_id, customer_id, ref)


def _pieces(runtime: Runtime, brand_id: int, customer_id: int, ref: str) -> Iterator[bytes]:
    brand = runtime.catalog().brands_by_id[brand_id].name
    top: dict[str, Any] = {
        "format": FORMAT,
        "exported_at": datetime.now(UTC),
        "brand": brand,
    }
    with runtime.engine.begin() as connection:
        top["customer"] = exporting.record_of(connection, customer_id)
        for name in exporting.SHORT:
            top[name] = exporting.short_list(connection, name, customer_id)
    yield orjson.dumps(top)[:-1]
    for name, page_after in _LONG.items():
        yield from _listed(name, _pages(runtime, page_after, customer_id))
    yield from _listed("intents", _intents(runtime, brand_id, ref))
    yield b"}\n"


def _listed(name: str, pages: Iterable[Rows]) -> Iterator[bytes]:
    """A member that is a list, piece by piece."""
    yield b"," + orjson.dumps(name) + b":["
    first = True
    for page in pages:
        piece = orjson.dumps(page)[1:-1]
        yield piece if first else b"," + piece
        first = False
    yield b"]"


def _pages(runtime: Runtime, page_after: PageAfter, customer_id: int) -> Iterator[Rows]:
    after = 0
    while True:
        with runtime.engine.begin() as connection:
            page = page_after(connection, customer_id, after, PAGE)
        if not page:
            return
        after = page[-1]["id"]
        yield [without(row, "id") for row in page]


def _intents(runtime: Runtime, brand_id: int, ref: str) -> Iterator[Rows]:
    """The newest first. A page at a time, each as it stands when it is read."""
    before = None
    while True:
        with runtime.engine.begin() as connection:
            heads = reports.intents_of_brand(
                connection, brand_id, customer=ref, before=before, limit=PAGE
            )
            page = _told(runtime, connection, heads)
        if not page:
            return
        before = heads[-1]["accepted_at"], heads[-1]["id"]
        yield page


def _told(runtime: Runtime, connection: Connection, heads: Rows) -> Rows:
    """Intents with all that hangs on them, addresses in full."""
    if not heads:
        return []
    catalog = catalog_of(runtime, connection, heads)
    ids = [one["id"] for one in heads]
    found = [dict(one) for one in reports.deliveries_of(connection, ids)]
    tries = grouped(reports.attempts_of(connection, [one["id"] for one in found]), "delivery_id")
    deliveries = grouped(
        [without(one, "choice") | {"attempts": tries[one["id"]]} for one in found], "intent_id"
    )
    events = grouped(reports.events_of(connection, ids), "intent_id")
    decisions = grouped(reports.decisions_of(connection, ids), "intent_id")
    words = {key: (content, data) for key, content, data in exporting.bodies(connection, ids)}
    told = []
    for one in heads:
        content, data = words[one["id"]]
        told.append(
            {
                **public(head(catalog, one)),
                "content": content,
                "data": data,
                "said": said(content, data) if content else None,
                "deliveries": deliveries[one["id"]],
                "events": events[one["id"]],
                "decisions": decisions[one["id"]],
            }
        )
    return told
