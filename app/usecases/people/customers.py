"""Customers: created and changed as the brand says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from app.domain.masking import masked
from app.domain.vocabulary import Channel
from app.store import audit
from app.store.consents import look_again
from app.store.customers import Put, read_customer, upsert_customers
from app.store.intents import ledger_now
from app.store.optouts import enter_gate
from app.store.persons import note_activity
from app.store.session import LEDGER_AWAY
from app.usecases.consent.suppressing import heed
from app.usecases.consent.voices import Named, NoSuchCustomer, Whom, find
from app.usecases.giving_way import again_if_undone
from app.usecases.people.addresses import customer_row, merge_rows
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer.customer import validate_customer

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CustomerVerdict:
    """What became of one customer document. `status`: kept, stale (older than known), refused."""

    line: int
    status: str
    ref: str | None = None
    field: str | None = None
    reason: str | None = None


def put_customers(
    runtime: Runtime,
    brand_id: int,
    documents: Sequence[Mapping[str, Any]],
    *,
    test: bool = False,
    actor: str = "",
) -> list[CustomerVerdict]:
    """Create or change customers; one bad document does not spoil the others. Changes to customers
    who were known are audited, without a word about the person.

    A field left out stays as it is, null removes it; an older `as_of` changes nothing, and no more
    does a test key's document (`test`) about a live customer.
    """
    verdicts: dict[int, CustomerVerdict] = {}
    rows: dict[int, dict[str, Any]] = {}
    for line, document in enumerate(documents):
        try:
            validate_customer(document)
            rows[line] = customer_row(document, runtime.default_region, "")
        except InvalidIntent as error:
            verdicts[line] = CustomerVerdict(
                line, "refused", field=error.field, reason=error.reason
            )
    if rows:
        applied = _put(runtime, brand_id, merge_rows(list(rows.values())), test=test, actor=actor)
        reconsider(runtime, applied.values())
        for line, row in rows.items():
            status = "kept" if row["ref"] in applied else "stale"
            verdicts[line] = CustomerVerdict(line, status, row["ref"])
    return [verdicts[line] for line in range(len(documents))]


@again_if_undone
def _put(
    runtime: Runtime, brand_id: int, rows: list[dict[str, Any]], *, test: bool, actor: str
) -> dict[str, Put]:
    with runtime.engine.begin() as connection:
        enter_gate(connection, brand_id)
        applied = upsert_customers(connection, brand_id, rows, test=test)
        heed(runtime, connection, brand_id, applied)
        changed = [
            {"customer": put.id, "changed": sorted(put.changed)}
            for put in applied.values()
            if put.changed
        ]
        if changed:
            audit.note_each(connection, actor=actor, action="customer.change", subjects=changed)
    return applied


def reconsider(runtime: Runtime, puts: Iterable[Put]) -> None:
    """Decide open intents of customers again where it has changed how they can be reached, or where
    they may be: what is held for want of it need not wait any longer.

    In a transaction of its own, after the one that changed customers; it only makes things sooner.
    """
    ids = [put.id for put in puts if put.changed & _REACH]
    if not ids:
        return
    try:
        with runtime.engine.begin() as connection:
            look_again(connection, ids, allowed_less=False)
    except LEDGER_AWAY:
        _log.warning("reconsidered_later", customers=len(ids))


_REACH: Final = frozenset({"locale", "timezone", *Channel})


def get_customer(runtime: Runtime, whom: Named) -> dict[str, Any]:
    """What is known of a customer, addresses in full: it is the brand's own record.

    Who reaches some senders alone sees addresses masked, and no attributes.

    `{"ref", "name", "locale", "timezone", "attributes", "as_of", "created_at", "updated_at",
    "endpoints": [{"channel", "service", "address", "state", "reason"}]}`. Raises `NoSuchCustomer`.
    """
    with runtime.engine.begin() as connection:
        find(connection, whom)
        found = read_customer(connection, whom.brand_id, whom.ref)
    if found is None:  # erased at this moment
        raise NoSuchCustomer
    if whom.reach.whole:
        return found
    endpoints = [{**one, "address": masked(one["address"])} for one in found["endpoints"]]
    return {**found, "attributes": {}, "endpoints": endpoints}


def note_active(runtime: Runtime, whom: Whom, channel: Channel, at: datetime | None) -> None:
    """Note that a customer was seen on a channel, at a time or just now.

    Raises `NoSuchCustomer`.
    """
    with runtime.engine.begin() as connection:
        person = find(connection, whom)
        seen = at or ledger_now(connection)
        row = {"customer_id": person.id, "channel": channel.value, "at": seen}
        note_activity(connection, [row])
