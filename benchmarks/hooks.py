"""Webhooks: receipts verified and kept by one API process, and read into events.

The clients are this process, on keep-alive connections; the API is another, as `converge up` starts
it. Each receipt tells of a delivery of its own that waits for it.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
import uvloop

from app.usecases.hearing.feedback import read_feedback
from benchmarks.intake_http import api
from benchmarks.place import CUSTOMERS, SANDBOX_SECRET, Place, Stuck

CONNECTIONS = 64
ACCOUNT = "texts"
_KEPT = b"HTTP/1.1 204 "
_WARM_UP = 1_000
# Foreign keys are not checked while this is filled: the rows are made to fit.
_FILL = f"""
    SET session_replication_role = replica;
    INSERT INTO intents (id, brand_id, sender_id, topic_id, customer_id, content_id, policy_id,
                         key, fingerprint, kind, urgency, data, expires_at, decide_at)
    SELECT md5(n::text)::uuid, 1, 1, 1, 1 + mod(n, {CUSTOMERS}), 1,
           (SELECT id FROM policies WHERE name = 'notify' ORDER BY id DESC LIMIT 1),
           n::text, '\\x00', 'transactional', 'bulk', '{{{{}}}}',
           now() + interval '3 days', now() + interval '2 days'
      FROM generate_series(1, {{rows}}) AS g(n);
    INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
                            account, state, provider_ref, handed_over_at)
    SELECT md5(n::text)::uuid, 1, 1, 1, 0, 'sms', 'bulk', '{ACCOUNT}', 'sent', 'r' || n, now()
      FROM generate_series(1, {{rows}}) AS g(n)"""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Receipts a second: kept, answered without being kept, and read into events."""

    kept: float
    bare: float
    read: float


def hooks(place: Place, count: int) -> Hooks:
    """Measure one round of `count` receipts."""
    place.empty()
    place.execute(_FILL.format(rows=count))
    place.execute("ANALYZE intents, deliveries")
    with api(place, "benchmarks.hooks_bare") as url:
        _post(url, list(_requests("bare", _WARM_UP)))
        bare = _post(url, list(_requests("bare", count)))
        kept = _post(url, list(_requests("hooks", count)))
    waiting = place.one("SELECT count(*) FROM inbox WHERE due_at IS NOT NULL")
    if waiting != count:
        raise Stuck(f"{waiting} of {count} receipts were kept")
    place.execute("ANALYZE inbox")
    runtime = place.runtime()
    started = time.monotonic()
    counts = read_feedback(runtime)
    read = time.monotonic() - started
    runtime.engine.dispose()
    if counts.get("delivered") != count:
        raise Stuck(f"of {count} receipts were read: {counts}")
    place.empty()
    return Hooks(kept=count / kept, bare=count / bare, read=count / read)


def _requests(where: str, count: int) -> Iterator[bytes]:
    """Signed requests, whole, each of a receipt of its own."""
    stamp = int(time.time())
    at = datetime.now(UTC).isoformat()
    for number in range(1, count + 1):
        fact = {"id": f"e{number}", "ref": f"r{number}", "event": "delivered", "at": at}
        body = orjson.dumps(fact)
        signed = hmac.new(SANDBOX_SECRET.encode(), b"%d.%s" % (stamp, body), hashlib.sha256)
        yield (
            f"POST /{where}/{ACCOUNT} HTTP/1.1\r\nHost: converge.example\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Converge-Signature: t={stamp},v1={signed.hexdigest()}\r\n\r\n"
        ).encode() + body


def _post(url: str, requests: Sequence[bytes]) -> float:
    """Post everything, each connection one after the other; return the seconds until the last."""
    return uvloop.run(_post_all(url, requests))


async def _post_all(url: str, requests: Sequence[bytes]) -> float:
    address = urlsplit(url)
    pairs = [
        await asyncio.open_connection(address.hostname, address.port) for _ in range(CONNECTIONS)
    ]
    rest = iter(requests)
    started = time.monotonic()
    await asyncio.gather(*(_client(reader, writer, rest) for reader, writer in pairs))
    took = time.monotonic() - started
    for _, writer in pairs:
        writer.close()
    return took


async def _client(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: Iterator[bytes]
) -> None:
    for request in requests:
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(_KEPT):
            raise Stuck(f"the API answered {answer[:200]!r}")
