"""What use cases work with: the ledger, the broker, the limits and the ways out, in one value."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Engine

from app.channels.registry import Account, serving
from app.domain.evidence import Suspicion
from app.domain.vocabulary import Channel, Urgency
from app.limits.health import AccountHealth, Health
from app.limits.rate import RateLimits
from app.observe.tally import Tally
from app.observe.tracing import Tracing
from app.store.catalog import Catalog, load_catalog
from app.store.lanes import Flow
from app.usecases.copies import Copy
from app.usecases.hints import Hints
from app.usecases.rates import Rates
from app.usecases.words import Words

CATALOG_FRESH_S = 2.0


class CatalogCache:
    """This process's copy of what is declared, at most `CATALOG_FRESH_S` seconds old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._copy = Copy(self._read, CATALOG_FRESH_S)

    def __call__(self) -> Catalog:
        """The catalog as it stands."""
        return self._copy()

    def knowing(
        self,
        *,
        policies: Iterable[int] = (),
        senders: Iterable[int] = (),
        connection: Connection | None = None,
    ) -> Catalog:
        """The catalog, read anew where it lacks one of these ids: it was declared just now.

        It is read on `connection` where the caller has one, so that nobody who holds one waits for
        another.
        """
        catalog = self()
        missing = set(policies) - catalog.policies_by_id.keys()
        missing |= set(senders) - catalog.senders_by_id.keys()
        if not missing:
            return catalog
        return self._copy.renewed() if connection is None else self.anew(connection)

    def anew(self, connection: Connection) -> Catalog:
        """Read the catalog in a transaction that is open, which waits for no other connection."""
        return self._copy.put(load_catalog(connection))

    def forget(self) -> None:
        """Read the catalog anew at the next look."""
        self._copy.forget()

    def _read(self) -> Catalog:
        with self._engine.begin() as connection:
            return load_catalog(connection)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds. `lease` is longer than any client's total deadline (`send`).

    Whoever lost a lease is heard for `hear_out` before what they held may be tried again: after an
    outage of the ledger they need a moment to come back and say that it was sent.
    """

    lease: float = 60.0
    hear_out: float = 15.0
    send: float = 40.0
    hint_lost: float = 30.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a use case needs, chosen in one place; safe over threads."""

    engine: Engine
    hints: Hints
    limits: RateLimits
    health: AccountHealth
    accounts: Mapping[str, Account]
    words: Words
    catalog: CatalogCache
    rates: Rates
    address_key: bytes = field(repr=False)
    """The key of the hashes of addresses (see `suppressing`)."""
    timing: Timing = field(default_factory=Timing)
    jitter: Callable[[], float] = random.random
    default_region: str | None = None
    suspicion: Suspicion = field(default_factory=Suspicion)
    tally: Tally = field(default_factory=Tally)
    tracing: Tracing = field(default_factory=Tracing)
    read_to: dict[tuple[Channel, Urgency, bool], dict[Flow, datetime]] = field(default_factory=dict)
    """Since when the dispatcher goes on reading what waits for a channel whose accounts all rest,
    where it is too much for one look."""

    def accounts_for(self, channel: Channel | str, *, test: bool) -> list[Account]:
        """The accounts that serve a channel, for test intents or for live ones."""
        return [account for account in self._serving(test) if account.channel == channel]

    def channels(self, *, test: bool) -> frozenset[Channel]:
        """The channels that some account serves."""
        return frozenset(account.channel for account in self._serving(test))

    def services(self, *, test: bool) -> Mapping[Channel, frozenset[str]]:
        """The services that are served of channels none of whose accounts serves them all."""
        found: dict[Channel, list[frozenset[str]]] = defaultdict(list)
        for account in self._serving(test):
            found[account.channel].append(account.traits.services)
        return {channel: frozenset().union(*each) for channel, each in found.items() if all(each)}

    def _serving(self, test: bool) -> list[Account]:
        return serving(self.accounts.values(), test=test)

    def resting_channels(self, health: Mapping[str, Health]) -> Mapping[bool, frozenset[Channel]]:
        """The channels all of whose accounts have an open breaker, for test intents and live ones.

        `health` is that of all accounts.
        """
        return {test: self._resting(self._serving(test), health) for test in (False, True)}

    def _resting(
        self, accounts: Iterable[Account], health: Mapping[str, Health]
    ) -> frozenset[Channel]:
        resting = {one.channel for one in accounts if health[one.name].open_until is not None}
        able = {one.channel for one in accounts if health[one.name].open_until is None}
        return frozenset(resting - able)

    def rate_of(self, account: str) -> float | None:
        """Messages a second that an account may send now, as declared or as an operator has set it.

        None for no limit. At most a second after a change every process goes by it.
        """
        return self.rates().get(account, self.accounts[account].rate)
