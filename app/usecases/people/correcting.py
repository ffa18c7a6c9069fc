"""A customer's addresses, corrected by the customer or for them.

An address that changed is a new one: it is not verified, and what was agreed to about the old one
is not said of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.domain.vocabulary import Channel
from app.store.customers import give_endpoints, remove_endpoints, verify_endpoints
from app.store.wishes import Address, addresses_of
from app.usecases.consent.picture import Picture
from app.usecases.consent.suppressing import heed
from app.usecases.consent.voices import BadPreference, checked
from app.usecases.people.addresses import FIELD_OF_CHANNEL, in_one_form, normal_endpoint
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer.checks import each, kind_of, one_of, text
from converge_producer.customer import CUSTOMER_CHECKS, MAX_ADDRESSES

_MOST = MAX_ADDRESSES * len(Channel)
_FIELDS = frozenset({"id", "channel", "service", "address", "verified", "state", "reason", "meant"})


@dataclass(frozen=True, slots=True)
class AddressChange:
    """One address: `endpoint_id` None adds one, `address` None removes it.

    `verified` None leaves that as it is. `field` is where it was said, for errors.
    """

    endpoint_id: int | None
    address: str | None = None
    channel: Channel | None = None
    service: str = ""
    verified: bool | None = None
    field: str = "addresses"


def changes_to(have: Sequence[Address], wanted: Any) -> list[AddressChange]:
    """What turns the addresses that there are into those that a document lists."""
    checked("addresses", each(_anything, _MOST), wanted)
    ids = {one.id for one in have}
    changes = [_change(place, document, ids) for place, document in enumerate(wanted)]
    named = [one.endpoint_id for one in changes if one.endpoint_id is not None]
    if len(set(named)) < len(named):
        raise BadPreference("addresses", "name an id twice; name each address once")
    return changes + [AddressChange(key) for key in sorted(ids - set(named))]


def change_addresses(
    connection: Connection,
    runtime: Runtime,
    before: Picture,
    changes: Sequence[AddressChange],
    *,
    own: bool,
) -> bool:
    """Carry changes out, `own`: as the customer said in person; say whether anything is different
    then. What gives an address needs its `enter_gate` before. Raises `BadPreference`."""
    if not changes:
        return False
    have = {one.id: one for one in before.addresses}
    person = before.person
    removed: list[int] = []
    wanted: dict[tuple[str, str, str], bool | None] = {}
    for one in changes:
        old = have.get(one.endpoint_id) if one.endpoint_id is not None else None
        if one.endpoint_id is not None and old is None:
            raise BadPreference(one.field, "there is no such address any more; read them again")
        if one.address is None:
            removed.append(old.id if old else 0)
            continue
        new = _normal(one, old, runtime.default_region)
        if old is not None and new != _form(old):
            removed.append(old.id)
        wanted[new] = one.verified if one.verified is not None else wanted.get(new)
    kept = {_form(one) for one in have.values()}
    kept -= {_form(have[key]) for key in removed}
    given = [new for new in wanted if new not in kept]
    if removed:
        remove_endpoints(connection, person.id, removed, own=own)
    if given:
        names = ("channel", "service", "address")
        rows = [dict(zip(names, new, strict=True)) for new in given]
        give_endpoints(connection, person.brand_id, person.id, rows, own=own)
        heed(runtime, connection, person.brand_id, [person.ref])
    return bool(_verify(connection, person.id, wanted) or removed or given)


def _verify(
    connection: Connection, customer_id: int, wanted: dict[tuple[str, str, str], bool | None]
) -> bool:
    differ = {
        one.id: verified
        for one in addresses_of(connection, customer_id)
        if (verified := wanted.get(_form(one))) is not None
        and verified != (one.verified_at is not None)
    }
    if differ:
        verify_endpoints(connection, customer_id, differ)
    return bool(differ)


def _form(one: Address) -> tuple[str, str, str]:
    """An address that there is, as `_normal` has what is wanted."""
    return one.channel.value, one.service, in_one_form(one.channel, one.address)


def _normal(one: AddressChange, old: Address | None, region: str | None) -> tuple[str, str, str]:
    channel = one.channel or (old.channel if old else None)
    if channel is None:
        raise BadPreference(f"{one.field}.channel", "is required for a new address")
    if old is not None and channel is not old.channel:
        raise BadPreference(f"{one.field}.channel", "cannot change; remove this one and add one")
    address: Any = one.address
    if channel in (Channel.CHAT, Channel.SOCIAL):
        service = one.service or (old.service if old else "")
        address = {"service": service, "address": one.address}
    place = f"{one.field}.address"
    checked(place, CUSTOMER_CHECKS[FIELD_OF_CHANNEL[channel]], address)
    try:
        found = normal_endpoint(address, channel, region, place)
    except InvalidIntent as error:
        raise BadPreference(error.field, error.reason) from error
    return found["channel"], found["service"], found["address"]


def _change(place: int, document: Any, ids: set[int]) -> AddressChange:
    field = f"addresses[{place}]"
    if not isinstance(document, dict):
        raise BadPreference(field, f"must be an object, not {kind_of(document)}")
    if not document.keys() <= _FIELDS:
        raise BadPreference(field, f"has an unknown field; there are {', '.join(sorted(_FIELDS))}")
    key, verified = document.get("id"), document.get("verified")
    if key is not None and (not isinstance(key, int) or isinstance(key, bool) or key not in ids):
        raise BadPreference(f"{field}.id", "is none of this customer's addresses")
    if verified is not None and not isinstance(verified, bool):
        raise BadPreference(f"{field}.verified", f"must be true or false, not {kind_of(verified)}")
    checked(f"{field}.address", text(288), document.get("address"))
    if document.get("channel") is not None:
        checked(f"{field}.channel", one_of(list(FIELD_OF_CHANNEL)), document["channel"])
    if document.get("service") not in (None, ""):
        checked(f"{field}.service", text(32), document["service"])
    channel = Channel(document["channel"]) if document.get("channel") else None
    service = document.get("service") or ""
    return AddressChange(key, document["address"], channel, service, verified, field)


def _anything(value: Any) -> None:
    """Each is looked at with its own place in the errors."""
