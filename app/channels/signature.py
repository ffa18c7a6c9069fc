"""The signature of what our own sides report to each other: a time and an HMAC under one secret.

`X-Converge-Signature: t=<unix seconds>,v1=<hex>`, where v1 is the HMAC-SHA256 of `t.body`.
"""

import hashlib
import hmac
from datetime import timedelta
from typing import Final

from app.channels.contract import BadSignature, HookRequest

SIGNATURE_HEADER: Final = "x-converge-signature"
SIGNATURE_AGE: Final = timedelta(minutes=5)


def verify_signature(secret: str, request: HookRequest) -> None:
    """Check the signature and its age; raise `BadSignature`."""
    given = dict(
        part.split("=", 1)
        for part in request.headers.get(SIGNATURE_HEADER, "").split(",")
        if "=" in part
    )
    stamp, v1 = given.get("t", ""), given.get("v1", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise BadSignature("no time in the signature")
    expected = hmac.new(secret.encode(), stamp.encode() + b"." + request.body, hashlib.sha256)
    if not hmac.compare_digest(v1.encode(), expected.hexdigest().encode()):
        raise BadSignature("the signature does not match")
    age = abs(request.received_at.timestamp() - int(stamp))
    if age > SIGNATURE_AGE.total_seconds():
        raise BadSignature("the signature is too old, or from the future")
