"""A key that is kept in the ledger, sealed by a secret that is not.

Whoever has the ledger alone cannot open it; whoever rotates the secret seals it anew and keeps it.

Why not a library such as cryptography, whose `MultiFernet` does the same: the domain is the
standard library alone, and no other part needs one.

Why this is sound: what is sealed is always a random key of 32 bytes, never a text. The pad is
HMAC-SHA256, a pseudorandom function, of a random nonce of 16 bytes, so none is used twice; it is
as long as the key. The mark is a hash of 256 random bits, which tells nothing of them. Whoever
changes a sealed key has to make the mark of what comes out, and for that they must know the key
that went in: so a changed one opens with no secret. Seal nothing else so: of what can be guessed,
the mark would tell.
"""

import hashlib
import hmac
import secrets as randomness
from collections.abc import Sequence
from typing import Final

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 16


class WrongSecret(Exception):
    """None of the secrets opens it."""


def new_key() -> bytes:
    """A key that nobody can guess."""
    return randomness.token_bytes(KEY_BYTES)


def seal(key: bytes, secret: bytes) -> bytes:
    """The key under a one-time pad, which HMAC-SHA256 makes of the secret and a nonce; and a mark
    by which it is known again."""
    nonce = randomness.token_bytes(_NONCE_BYTES)
    return nonce + _padded(key, secret, nonce) + _mark(key)


def unseal(sealed: bytes, secrets: Sequence[bytes]) -> tuple[bytes, int]:
    """The key, and the place of the secret that opens it; raises `WrongSecret`."""
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    padded, mark = rest[:KEY_BYTES], rest[KEY_BYTES:]
    for place, secret in enumerate(secrets):
        key = _padded(padded, secret, nonce)
        if hmac.compare_digest(_mark(key), mark):
            return key, place
    raise WrongSecret


def _padded(key: bytes, secret: bytes, nonce: bytes) -> bytes:
    pad = hmac.digest(secret, b"seal\0" + nonce, "sha256")
    return bytes(one ^ other for one, other in zip(key, pad, strict=True))


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"mark\0" + key).digest()
