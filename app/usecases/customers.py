"""Customers: created, changed and removed as the brand says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.vocabulary import IntentState
from app.store import audit
from app.store.customers import (
    intents_of_customer,
    lock_customer,
    read_customer,
    remove_customer,
    upsert_customers,
)
from app.store.intents import end_intents
from app.usecases.addresses import customer_row, merge_rows
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer.customer import validate_customer


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
) -> list[CustomerVerdict]:
    """Create or change customers; one bad document does not spoil the others.

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
        with runtime.engine.begin() as connection:
            applied = upsert_customers(
                connection, brand_id, merge_rows(list(rows.values())), test=test
            )
        for line, row in rows.items():
            status = "kept" if applied[row["ref"]] else "stale"
            verdicts[line] = CustomerVerdict(line, status, row["ref"])
    return [verdicts[line] for line in range(len(documents))]


def get_customer(runtime: Runtime, brand_id: int, ref: str) -> dict[str, Any] | None:
    """What is known of a customer, addresses in full: it is the brand's own record.

    `{"ref", "name", "locale", "timezone", "attributes", "as_of", "created_at", "updated_at",
    "endpoints": [{"channel", "service", "address", "state", "reason"}]}`.
    """
    with runtime.engine.begin() as connection:
        return read_customer(connection, brand_id, ref)


def delete_customer(runtime: Runtime, brand_id: int, ref: str, actor: str) -> bool:
    """Remove a customer; say whether there was one.

    Open intents are cancelled. Where there is a history, it stays without the person.
    """
    with runtime.engine.begin() as connection:
        customer_id = lock_customer(connection, brand_id, ref)
        if customer_id is None:
            return False
        open_ids, history = intents_of_customer(connection, customer_id)
        end_intents(connection, open_ids, IntentState.CANCELLED, "customer_removed")
        remove_customer(connection, customer_id, history=history)
        audit.note(
            connection, actor=actor, action="customer.delete", subject={"customer": customer_id}
        )
    return True
