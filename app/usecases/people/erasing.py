"""Erasing: a person goes from everywhere, and only their no stays, as a keyed hash.

All of it is one transaction: whoever asks again after a crash finds either everything or nothing.
What is long is looked through before, as nobody is given an address while that one lasts.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import structlog
from sqlalchemy import Connection

from app.domain.suppression import lasting_noes
from app.domain.vocabulary import Channel, IntentState
from app.store import audit, erasing, optouts
from app.store.consents import consents_of
from app.store.contents import forget_contents
from app.store.customers import lock_endpoints
from app.store.erasing import ERASED, HeldAddress, Rows
from app.store.intents import end_intents, ledger_now
from app.usecases.consent.suppressing import hash_of
from app.usecases.giving_way import again_if_undone
from app.usecases.hearing.feedback import read_these
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

LEAST_NEEDLE = 6
"""Characters of an address or name that is looked for within texts: a shorter one is in many."""
AT_ONCE = 20_000
"""So many rows are looked through in one statement."""
NOT_SEEN_YET = 10_000
"""Of the last ids some rows may not have been there to be seen: an id is given before a commit."""


def erase(runtime: Runtime, brand_id: int, ref: str, actor: str) -> bool:
    """Erase a customer; say whether there was one.

    Open intents are cancelled. What was said, to them and by them, their name, ref and addresses go
    everywhere; that something was sent, and what became of it, stays. What waits in the inbox is
    read first, so that no word of theirs is lost; of addresses that said no a keyed hash is kept.
    """
    done = None
    while done is None:
        with runtime.engine.begin() as connection:
            customer_id = erasing.find_customer(connection, brand_id, ref, lock=False)
            if customer_id is None:
                return False
            addresses = erasing.addresses_ever(connection, customer_id)
            name = erasing.name_of(connection, customer_id)
            waiting = erasing.inbox_holding(connection, _as_sent(addresses))
        if waiting:
            read_these(runtime, waiting)
        whom = _Whom(brand_id, ref, name, frozenset(addresses))
        done = _erase(runtime, whom, _look_for(runtime, whom), actor)
    if done:
        _log.info("customer_erased", customer=customer_id)
    return done


@dataclass(frozen=True, slots=True)
class _Whom:
    """A person as they are looked for."""

    brand_id: int
    ref: str
    name: str
    addresses: frozenset[HeldAddress]

    @property
    def needles(self) -> list[str]:
        """What names them in what was refused, and in what providers said."""
        return [
            *_needles(self.addresses),
            *([self.ref.lower()] if len(self.ref) >= LEAST_NEEDLE else []),
        ]

    @property
    def words(self) -> list[str]:
        """What may name them in the words of operators. A name by its first word: whoever writes it
        may part its words otherwise."""
        first = (one.partition(" ")[0] for one in _names(self.name))
        return [*_needles(self.addresses), self.ref.lower(), *first]


def _look_for(runtime: Runtime, whom: _Whom) -> tuple[Rows, Rows]:
    """The changes and the refusals that name somebody."""
    return (
        _look_through(
            runtime, "audit", lambda asking, ids: erasing.changes_naming(asking, whom.words, ids)
        ),
        _look_through(
            runtime,
            "refusals",
            lambda asking, ids: erasing.refusals_of(
                asking, whom.brand_id, whom.ref, whom.needles, ids
            ),
        ),
    )


def _look_through(
    runtime: Runtime, table: str, find: Callable[[Connection, tuple[int, int]], list[int]]
) -> Rows:
    with runtime.engine.begin() as connection:
        first, last = erasing.span(connection, table)
    found: list[int] = []
    for above in range(first - 1, last, AT_ONCE):
        with runtime.engine.begin() as connection:
            found += find(connection, (above, min(above + AT_ONCE, last)))
    return Rows(found, last - NOT_SEEN_YET)


@again_if_undone
def _erase(runtime: Runtime, whom: _Whom, found: tuple[Rows, Rows], actor: str) -> bool | None:
    """Say whether there was anybody; None: they are another by now, to be looked for once more."""
    with runtime.engine.begin() as connection:
        return _erase_in(runtime, connection, whom, found, actor)


def _erase_in(
    runtime: Runtime,
    connection: Connection,
    whom: _Whom,
    found: tuple[Rows, Rows],
    actor: str,
) -> bool | None:
    brand_id, ref = whom.brand_id, whom.ref
    # No customer of the brand is given an address meanwhile: its no is to be found then.
    optouts.close_gates(connection, [brand_id])
    customer_id = erasing.find_customer(connection, brand_id, ref, lock=True)
    if customer_id is None:
        return False
    addresses = erasing.addresses_ever(connection, customer_id)
    known = {one.address for one in whom.addresses}
    if erasing.name_of(connection, customer_id) != whom.name or not known.issuperset(
        one.address for one in addresses
    ):
        return None
    _keep_noes(runtime, connection, brand_id, customer_id, addresses)
    # In the order in which everybody locks: endpoints, intents, deliveries, counts.
    lock_endpoints(connection, [one.id for one in addresses])
    intents = erasing.intents_of(connection, customer_id)
    end_intents(connection, intents, IntentState.CANCELLED, "customer_removed")
    erasing.forget_people(connection, customer_id)
    contents = erasing.blank_intents(connection, intents)
    erasing.blank_traces(connection, intents, [*whom.needles, *_names(whom.name)])
    erasing.remove_messages(connection, customer_id, addresses)
    erasing.blank_inbox(connection, _as_sent(addresses))
    changes, refusals = found
    erasing.blank_refusals(connection, brand_id, ref, intents, whom.needles, refusals)
    _rewrite_notes(connection, whom, changes)
    erasing.remove_customer(connection, customer_id, history=bool(intents))
    audit.note(connection, actor=actor, action="customer.erase", subject={"customer": customer_id})
    forget_contents(connection, contents)
    return True


def _keep_noes(
    runtime: Runtime,
    connection: Connection,
    brand_id: int,
    customer_id: int,
    addresses: Sequence[HeldAddress],
) -> None:
    said = consents_of(connection, [customer_id]).get(customer_id, [])
    now = ledger_now(connection)
    rows = [
        {
            "brand_id": brand_id,
            "hash": hash_of(runtime, one.channel, one.service, one.address).hex(),
            "channel": one.channel.value,
            "sender_id": scope.sender_id,
            "topic_id": scope.topic_id,
            "kind": scope.kind,
            "source": no.source,
            "own": no.own,
            "until": no.until,
        }
        for one in addresses
        for scope, no in lasting_noes(said, one.channel, one.id, now).items()
    ]
    if rows:
        optouts.suppress(connection, rows)


def _needles(addresses: Collection[HeldAddress]) -> list[str]:
    """Addresses as they are looked for within texts."""
    return sorted({one.address.lower() for one in addresses if len(one.address) >= LEAST_NEEDLE})


def _as_sent(addresses: Sequence[HeldAddress]) -> list[str]:
    """Addresses as bodies of webhooks may hold them: as they are, URL-encoded, numbers bare.

    What is about an address that is somebody else's as well is not this person's to erase; it is
    blanked once it was read.
    """
    mine = [one for one in addresses if not one.shared]
    found = set(_needles(mine))
    found |= {quote(one, safe="").lower() for one in found}
    found |= {one.address.lstrip("+") for one in mine if one.channel is Channel.SMS}
    return sorted(found)


def _names(name: str) -> list[str]:
    """A name as it is looked for within texts; none where it is short."""
    return [" ".join(name.lower().split())] if len(name.strip()) >= LEAST_NEEDLE else []


def _rewrite_notes(connection: Connection, whom: _Whom, changes: Rows) -> None:
    """Take the person out of what was noted of changes: operators give what reasons they like."""
    needles = _needles(whom.addresses)
    words = [whom.ref.lower(), *_names(whom.name)]
    # What was changed has names of ours, which a ref may be by chance; a reason is for people.
    subjects = re.compile("|".join(map(re.escape, needles)) or NOTHING, re.IGNORECASE)
    spelled = "|".join(re.escape(one).replace(r"\ ", r"\s+") for one in words)
    reasons = re.compile(rf"{subjects.pattern}|(?<!\w)(?:{spelled})(?!\w)", re.IGNORECASE)
    found = erasing.audit_naming(connection, whom.words, changes)
    rows: list[Mapping[str, Any]] = [
        {
            "id": one["id"],
            "subject": _without(one["subject"], subjects),
            "reason": reasons.sub(ERASED, one["reason"]),
        }
        for one in found
    ]
    if rows:
        erasing.rewrite_audit(connection, rows)
    for table, column in erasing.NOTES:
        notes = erasing.notes_naming(connection, table, column, whom.words)
        if notes:
            rows = [{**one, "note": reasons.sub(ERASED, one["note"])} for one in notes]
            erasing.rewrite_notes(connection, table, column, rows)


NOTHING = r"(?!)"
"""The pattern that fits nowhere."""


def _without(value: Any, named: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return named.sub(ERASED, value)
    if isinstance(value, list):
        return [_without(one, named) for one in value]
    if isinstance(value, dict):
        return {name: _without(one, named) for name, one in value.items()}
    return value
