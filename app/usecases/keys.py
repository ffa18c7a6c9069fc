"""API keys: made, shown once, checked in constant time, revoked.

A key reads `cvk_BRAND_PREFIX_SECRET` (`cvt_…` for a test key, which sends to the sandbox alone).
The prefix finds it; only a hash of the secret is kept. The secret holds 256 random bits, so one
round of SHA-256 is enough.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from app.store import audit
from app.store.keys import Key, find_key, insert_key, list_keys, revoke_key
from app.usecases.runtime import Runtime

LIVE = "cvk"
TEST = "cvt"


class UnknownBrand(Exception):
    """The brand, or a sender of it, is not declared."""


def create_key(
    runtime: Runtime,
    brand: str,
    *,
    senders: Sequence[str] | None = None,
    test: bool = False,
    label: str = "",
    actor: str = "cli",
) -> str:
    """Make a key and return it; it cannot be shown again. Raises `UnknownBrand`."""
    runtime.catalog.forget()
    known = runtime.catalog().brands.get(brand)
    if known is None:
        raise UnknownBrand(f"brand: {brand!r} is not declared; see brands.toml")
    missing = sorted(set(senders or ()) - set(known.senders))
    if missing:
        raise UnknownBrand(f"senders: {', '.join(missing)} not declared; see brands.toml")
    prefix = secrets.token_hex(8)
    secret = secrets.token_urlsafe(32)
    with runtime.engine.begin() as connection:
        insert_key(
            connection,
            brand_id=known.id,
            prefix=prefix,
            secret_hash=_hash(secret),
            senders=senders,
            test=test,
            label=label,
        )
        audit.note(connection, actor=actor, action="key.create", subject={"prefix": prefix})
    return f"{TEST if test else LIVE}_{brand}_{prefix}_{secret}"


def check_key(runtime: Runtime, text: str) -> Key | None:
    """Return what a key allows, or None where it is not one of ours in force."""
    kind, _, rest = text.partition("_")
    brand, _, rest = rest.partition("_")
    prefix, _, secret = rest.partition("_")
    if kind not in (LIVE, TEST) or not secret:
        return None
    with runtime.engine.begin() as connection:
        key = find_key(connection, prefix)
    if key is None or not hmac.compare_digest(key.hash, _hash(secret)):
        return None
    return key if key.brand == brand and key.test == (kind == TEST) else None


def revoke(runtime: Runtime, prefix: str, actor: str = "cli") -> bool:
    """Revoke a key by its prefix; say whether there was one in force."""
    with runtime.engine.begin() as connection:
        done = revoke_key(connection, prefix)
        if done:
            audit.note(connection, actor=actor, action="key.revoke", subject={"prefix": prefix})
    return done


def all_keys(runtime: Runtime) -> list[Key]:
    """Every key, without any secret."""
    with runtime.engine.begin() as connection:
        return list_keys(connection)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
