"""What use cases work with: the ledger, the broker, the limits and the ways out, in one value."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine

from app.channels.registry import Account
from app.domain.vocabulary import Channel
from app.limits.health import AccountHealth
from app.limits.rate import RateLimits
from app.store.catalog import Catalog, load_catalog
from app.usecases.hints import Hints
from app.usecases.words import Words

CATALOG_FRESH_S = 2.0


class CatalogCache:
    """This process's copy of what is declared, at most `CATALOG_FRESH_S` seconds old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._loaded_at = 0.0

    def __call__(self) -> Catalog:
        """The catalog as it stands."""
        with self._lock:
            if self._catalog is None or time.monotonic() - self._loaded_at > CATALOG_FRESH_S:
                with self._engine.begin() as connection:
                    self._catalog = load_catalog(connection)
                self._loaded_at = time.monotonic()
            return self._catalog

    def knowing(self, *, policies: Iterable[int] = (), senders: Iterable[int] = ()) -> Catalog:
        """The catalog, read anew where it lacks one of these ids: it was declared just now."""
        catalog = self()
        missing = set(policies) - catalog.policies_by_id.keys()
        missing |= set(senders) - catalog.senders_by_id.keys()
        if missing:
            self.forget()
            catalog = self()
        return catalog

    def forget(self) -> None:
        """Read the catalog anew at the next look."""
        with self._lock:
            self._catalog = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds. `lease` is longer than any client's total deadline (`send`)."""

    lease: float = 60.0
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
    timing: Timing = field(default_factory=Timing)
    jitter: Callable[[], float] = random.random
    default_region: str | None = None

    def accounts_for(self, channel: Channel | str, *, test: bool) -> list[Account]:
        """The accounts that serve a channel, for test intents or for live ones."""
        return [account for account in self._serving(test) if account.channel == channel]

    def channels(self, *, test: bool) -> frozenset[Channel]:
        """The channels that some account serves."""
        return frozenset(account.channel for account in self._serving(test))

    def _serving(self, test: bool) -> list[Account]:
        """Test intents never leave the sandbox, and live ones never land there.

        Where only sandbox accounts are configured, the whole installation is a sandbox.
        """
        sandbox = [account for account in self.accounts.values() if account.sandbox]
        live = [account for account in self.accounts.values() if not account.sandbox]
        return sandbox if test or not live else live

    def healthy(self, accounts: list[Account], now: datetime) -> list[Account]:
        """Those of the accounts whose breaker is closed."""
        if not accounts:
            return []
        health = self.health.health([account.name for account in accounts], now)
        return [account for account in accounts if health[account.name].open_until is None]
