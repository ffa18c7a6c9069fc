"""The only composition root: settings and declarations in, a `Runtime` out."""

import os
from functools import cache

from app.channels.registry import build_accounts
from app.content.check import Checker
from app.content.templates import Templates
from app.domain.tokens import Links, Signer
from app.limits.connection import connect
from app.limits.health import AccountHealth
from app.limits.rate import RateLimits
from app.store.migrate import check
from app.store.session import make_engine
from app.usecases.hints import Hints
from app.usecases.runtime import CatalogCache, Runtime, Timing
from app.usecases.words import Words
from config.running import running_settings
from config.schema import load_toml
from config.settings import Settings, SettingsError
from converge_producer.publishing import Publisher

__all__ = ["SettingsError", "build", "running_settings", "runtime"]

SEND_SHARE_OF_LEASE = 2 / 3


@cache
def runtime() -> Runtime:
    """This process's runtime, from the environment; built at first use."""
    return build(running_settings())


def build(settings: Settings) -> Runtime:
    """Build a runtime; raises what is wrong with settings, declarations or the schema."""
    signer = Signer([secret.encode() for secret in settings.token_secrets])
    accounts = build_accounts(
        load_toml(settings.config_dir / "providers.toml"),
        os.environ | settings.environment(),
    )
    templates = Templates(settings.config_dir / "templates")
    engine = make_engine(settings.database_url, pool_size=settings.worker_threads + 2)
    try:
        with engine.begin() as connection:
            check(connection)
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
        catalog=CatalogCache(engine),
        timing=Timing(
            lease=settings.lease_seconds,
            send=settings.lease_seconds * SEND_SHARE_OF_LEASE,
            hint_lost=settings.hint_lost_seconds,
        ),
    )
