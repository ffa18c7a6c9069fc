"""Signed, unguessable, expiring tokens for the links that customers follow, and those links.

A token is 27 bytes, 36 characters of base64url: purpose (1), id (8), link index (2), expiry in
hours or, from ten million on, in minutes since 1970 (4), and the first 12 bytes of HMAC-SHA256
(RFC 2104) over the rest.

Why not a library such as itsdangerous: a mail carries up to five tokens and rendering one mail has
30 microseconds in all, and in a text message every character of a link is paid for.
"""

import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final

NEVER: Final = 0xFFFFFFFF
TOKEN_LENGTH: Final = 36
_MINUTES_FROM: Final = 10_000_000
"""An expiry is in minutes from here on, which is 1989; in hours it would be the year 3110."""

_FIELDS = struct.Struct(">cQHI")
_MAC_BYTES = 12
_BLOCK_BYTES = 64
_LEAST_SECRET_BYTES = 16
_SHAPE = re.compile(r"[A-Za-z0-9_-]{36}", re.ASCII)
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Purpose(StrEnum):
    """What a token allows; one for a purpose is refused for every other."""

    OPEN = "o"
    CLICK = "c"
    MESSAGE = "m"
    UNSUBSCRIBE = "u"
    PREFERENCES = "p"
    TRACE = "t"


class Rights(IntEnum):
    """What a link to the preference centre lets its holder do; it is the token's `index`."""

    FULL = 0
    """Everything: also see whole addresses and correct them, download the data and erase it."""
    CHOOSE = 1
    """Say what may be sent, how and when: for messages, which are passed on."""


class BadToken(Exception):
    """The token was not made by us, or not for this purpose."""


class ExpiredToken(Exception):
    """The token was ours, and its time is over."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. `id` is a delivery's, or whatever its purpose says; None never expires."""

    purpose: Purpose
    id: int
    index: int
    expires_at: datetime | None


def expiry_hours(expires_at: datetime | None) -> int:
    """A time as tokens keep it: whole hours since 1970, rounded up; None is never."""
    if expires_at is None:
        return NEVER
    return min(-(-(expires_at - _EPOCH) // timedelta(hours=1)), _MINUTES_FROM - 1)


def expiry_minutes(expires_at: datetime | None) -> int:
    """A time as tokens keep it that are good for a short time: to the minute, rounded up."""
    if expires_at is None:
        return NEVER
    return max(-(-(expires_at - _EPOCH) // timedelta(minutes=1)), _MINUTES_FROM)


def expiry_at(expires_at: datetime) -> datetime:
    """When a link with all rights ends that is to be good until `expires_at`."""
    return _expiry(expiry_minutes(expires_at))


def _expiry(kept: int) -> datetime:
    minutes = kept >= _MINUTES_FROM
    return _EPOCH + (timedelta(minutes=kept) if minutes else timedelta(hours=kept))


class Signer:
    """Makes and reads tokens. The first secret signs and every one verifies, so secrets rotate.

    Raises `ValueError` when there is no secret or one has under 16 bytes.
    """

    __slots__ = ("_inner", "_outer", "_secrets")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or min(map(len, secrets)) < _LEAST_SECRET_BYTES:
            raise ValueError("token secrets: at least one is needed, each of 16 bytes or more")
        self._secrets = tuple(secrets)
        # HMAC's two hash states after the key, prepared once and copied for each token: three
        # times as fast as hmac.digest.
        key = secrets[0] if len(secrets[0]) <= _BLOCK_BYTES else hashlib.sha256(secrets[0]).digest()
        key = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(key.translate(_INNER_PAD))
        self._outer = hashlib.sha256(key.translate(_OUTER_PAD))

    def sign(
        self, purpose: Purpose, number: int, index: int = 0, expires_at: datetime | None = None
    ) -> str:
        """Return the token that allows `purpose` with id `number` until `expires_at`."""
        return self.seal(purpose.encode(), number, index, expiry_hours(expires_at))

    def seal(self, purpose: bytes, number: int, index: int, expiry: int) -> str:
        """`sign` for the hot path: the purpose's byte, and the expiry as `expiry_hours` has it."""
        fields = _FIELDS.pack(purpose, number, index, expiry)
        inner = self._inner.copy()
        inner.update(fields)
        outer = self._outer.copy()
        outer.update(inner.digest())
        sealed = fields + outer.digest()[:_MAC_BYTES]
        return binascii.b2a_base64(sealed, newline=False).translate(_TO_URL).decode()

    def read(self, token: str, purpose: Purpose, now: datetime) -> Claims:
        """Return what the token claims; raise `BadToken` or `ExpiredToken`."""
        if not _SHAPE.fullmatch(token):
            raise BadToken("not a token of ours")
        sealed = binascii.a2b_base64(token.encode().translate(_FROM_URL))
        fields, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        # Every secret is tried, so that the time taken does not tell which one fits.
        fits = [
            hmac.compare_digest(mac, hmac.digest(secret, fields, "sha256")[:_MAC_BYTES])
            for secret in self._secrets
        ]
        if not any(fits):
            raise BadToken("the signature does not fit")
        letter, number, index, expiry = _FIELDS.unpack(fields)
        if letter != purpose.encode():
            raise BadToken("made for another purpose")
        expires_at = None if expiry == NEVER else _expiry(expiry)
        if expires_at is not None and now >= expires_at:
            raise ExpiredToken("expired")
        return Claims(purpose, number, index, expires_at)


class Links:
    """The links of deliveries under one public URL, valid until `expires_at` (None: for ever).

    Those to preferences are valid until `preferences_until`, if that is given: who wants to hear
    less does not care how long a message is good for. Those with all rights end to the minute.
    `public_url` is http or https, without query or fragment; raises `ValueError` otherwise.
    """

    __slots__ = ("_base", "_hours", "_preferences_hours", "_preferences_until", "_seal")

    def __init__(
        self,
        public_url: str,
        signer: Signer,
        expires_at: datetime | None,
        preferences_until: datetime | None = None,
    ) -> None:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?", public_url):
            raise ValueError(f"public URL: {public_url!r} is not a plain http or https URL")
        self._base = public_url.rstrip("/")
        self._seal = signer.seal
        self._hours = expiry_hours(expires_at)
        self._preferences_until = preferences_until or expires_at
        self._preferences_hours = expiry_hours(self._preferences_until)

    def open(self, delivery_id: int) -> str:
        """The pixel that says that a mail was opened."""
        return f"{self._base}/o/{self._seal(b'o', delivery_id, 0, self._hours)}"

    def click(self, delivery_id: int, index: int) -> str:
        """The redirect to link `index` of the delivery's content."""
        return f"{self._base}/c/{self._seal(b'c', delivery_id, index, self._hours)}"

    def message(self, delivery_id: int) -> str:
        """The hosted message."""
        return f"{self._base}/m/{self._seal(b'm', delivery_id, 0, self._hours)}"

    def unsubscribe(self, delivery_id: int) -> str:
        """One-click unsubscribe from what the delivery was about; it never expires (RFC 8058)."""
        return f"{self._base}/u/{self._seal(b'u', delivery_id, 0, NEVER)}"

    def preferences(self, customer_id: int, rights: Rights = Rights.CHOOSE) -> str:
        """The customer's preference centre; messages have it with the rights to choose alone."""
        full = rights is Rights.FULL
        expiry = expiry_minutes(self._preferences_until) if full else self._preferences_hours
        return f"{self._base}/p/{self._seal(b'p', customer_id, rights, expiry)}"

    def trace(self, delivery_id: int) -> str:
        """An opaque name for the delivery, the same at every attempt, that comes back in bounces.

        It is the token alone, not a URL: Message-ID and X-Converge-Delivery carry it.
        """
        return self._seal(b"t", delivery_id, 0, NEVER)
