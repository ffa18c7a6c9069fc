"""Intake over HTTP: batches of intents as JSON Lines to one API process."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import orjson
import requests

from app.usecases.operating.keys import create_key
from benchmarks import mail
from benchmarks.place import CUSTOMERS, Place, Stuck, end, wait_until

LINES = 500
CONNECTIONS = 4
_TYPE = "application/x-ndjson"


def http_intake(place: Place, count: int) -> float:
    """Intents a second, from the first request to the last answer (each comes after the commit)."""
    place.empty()
    runtime = place.runtime()
    key = create_key(runtime, "demo")
    runtime.engine.dispose()
    with api(place) as url:
        _post_all(url, key, LINES * CONNECTIONS)
        took = _post_all(url, key, count)
    place.empty()
    return count / took


@contextmanager
def api(place: Place, module: str = "app.api.server") -> Iterator[str]:
    """One API process as `converge up` starts it, or with more in it; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = place.spawn("api", "-m", module, CONVERGE_API_PORT=str(port))

    def ready() -> bool:
        if process.poll() is not None:
            raise Stuck(f"the API ended\n{(place.folder / 'api.log').read_text()[-3000:]}")
        try:
            return requests.get(f"{url}/readyz", timeout=2).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(ready, 60, "the API to be ready")
        yield url
    finally:
        end(process)


def _post_all(url: str, key: str, count: int) -> float:
    documents = mail.intents(count, CUSTOMERS, f"http-{uuid4().hex}")
    bodies = [
        b"\n".join(map(orjson.dumps, documents[start : start + LINES]))
        for start in range(0, count, LINES)
    ]
    sessions = [requests.Session() for _ in range(CONNECTIONS)]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": _TYPE}

    def post(session: requests.Session, mine: list[bytes]) -> None:
        for body in mine:
            reply = session.post(f"{url}/v1/intents/batch", body, headers=headers, timeout=60)
            results = orjson.loads(reply.content).get("results", [])
            if not reply.ok or {one["status"] for one in results} != {"accepted"}:
                raise Stuck(f"the API answered {reply.status_code}: {reply.text[:500]}")

    started = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = [bodies[first::CONNECTIONS] for first in range(CONNECTIONS)]
        list(pool.map(post, sessions, shares))
    took = time.monotonic() - started
    for session in sessions:
        session.close()
    return took
