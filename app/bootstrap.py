"""The only composition root: settings and declarations in, a `Runtime` out."""

import os
from functools import cache

from app.channels.registry import build_accounts
from app.content.check import Checker
from app.content.templates import Templates
from app.domain.evidence import Networks, Suspicion
from app.domain.sealing import WrongSecret
from app.domain.tokens import Links, Signer
from app.limits.connection import connect
from app.limits.health import AccountHealth
from app.limits.rate import RateLimits
from app.observe.tracing import tracing
from app.store.schema import check
from app.store.session import make_engine
from app.usecases.consent.suppressing import address_key
from app.usecases.hints import Hints
from app.usecases.rates import Rates
from app.usecases.runtime import CatalogCache, Runtime, Timing
from app.usecases.words import Words
from config.running import running_settings
from config.schema import load_toml
from config.settings import Settings, SettingsError
from converge_producer.publishing import Publisher

__all__ = ["SettingsError", "build", "running_settings", "runtime"]

SEND_SHARE_OF_LEASE = 2 / 3
HEARD_SHARE_OF_LEASE = 1 / 4
_KEY_LOCKED = (
    "CONVERGE_SECRET: none of its secrets opens the key under which the ledger keeps addresses "
    "that said no. Put the former secret back, after the new one."
)


@cache
def runtime() -> Runtime:
    """This process's runtime, from the environment; built at first use."""
    return build(running_settings())


def build(settings: Settings) -> Runtime:
    """Build a runtime; raises what is wrong with settings, declarations or the schema."""
    secrets = [secret.encode() for secret in settings.token_secrets]
    signer = Signer(secrets)
    accounts = build_accounts(
        load_toml(settings.config_dir / "providers.toml"),
        os.environ | settings.environment(),
    )
    templates = Templates(settings.config_dir / "templates")
    engine = make_engine(settings.database_url, pool_size=settings.worker_threads + 2)
    catalog = CatalogCache(engine)
    try:
        with engine.begin() as connection:
            check(connection)
            key = address_key(connection, secrets)
            catalog.anew(connection)
    except WrongSecret:
        engine.dispose()
        raise SettingsError(_KEY_LOCKED) from None
    except BaseException:
        engine.dispose()
        raise
    redis = connect(settings.redis_url)
    return Runtime(
        engine=engine,
        hints=Hints(Publisher(settings.broker_url)),
        limits=RateLimits(redis),
        health=AccountHealth(redis),
        accounts=accounts,
        words=Words(
            templates=templates,
            checker=Checker(Links(settings.public_url, signer, None)),
            signer=signer,
            public_url=settings.public_url,
        ),
        catalog=catalog,
        rates=Rates(engine),
        address_key=key,
        suspicion=Suspicion(
            networks=Networks(settings.machine_networks),
            prefetching=Networks(settings.prefetch_networks),
        ),
        tracing=tracing(os.environ),
        timing=Timing(
            lease=settings.lease_seconds,
            hear_out=settings.lease_seconds * HEARD_SHARE_OF_LEASE,
            # What is being sent when a worker is asked to end, ends within its grace.
            send=min(settings.lease_seconds * SEND_SHARE_OF_LEASE, settings.soft_shutdown_seconds),
            hint_lost=settings.hint_lost_seconds,
        ),
    )
