"""An HTTP provider that takes its time, the calls to it, and how both did it.

`python -m benchmarks.vendor serve --latency S RECORD` answers every request after so many seconds,
and writes down at its end when each came and how many were in the air then.
`python -m benchmarks.vendor pool URL COUNT` is the bare loop: a pool of threads, a `requests`
session each, one call a message, and nothing else.
"""

import argparse
import asyncio
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import orjson
import requests
import uvloop

from benchmarks.converge import send
from benchmarks.place import UNLIMITED, Place, Stuck, end

LATENCY_S = 0.1
THREADS = 64
_EDGE = 0.1
"""The first and the last tenth are not counted: there the air fills and empties."""
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """Calls a second, and how many were in the air on average and at most, in the middle."""

    per_s: float
    in_air: float
    peak: int


def http_provider(place: Place, port: int, count: int) -> tuple[Pace, Pace]:
    """Call a provider that takes 100 ms, as a bare pool of threads and as one of our workers."""
    with _vendor(place, "bare") as (url, record):
        pool = place.spawn("pool", "-m", "benchmarks.vendor", "pool", url, str(count))
        if pool.wait() != 0:
            raise Stuck("the pool of threads failed")
    bare = _pace(record)
    place.empty()
    with _vendor(place, "ours") as (url, record):
        place.accounts(phone_url=url, relay=(port, UNLIMITED))
        with place.fleet("sms", "core", "beat"):
            send(place, count, "vendor", policy="sms-only")
    place.accounts(relay=(port, UNLIMITED))
    place.empty()
    return bare, _pace(record)


@contextmanager
def _vendor(place: Place, name: str) -> Iterator[tuple[str, Path]]:
    record = place.folder / f"vendor-{name}.json"
    arguments = ("-m", "benchmarks.vendor", "serve", "--latency", str(LATENCY_S), str(record))
    process: Popen[bytes] = place.spawn(f"vendor-{name}", *arguments, output=PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", record
    finally:
        end(process)


def _pace(record: Path) -> Pace:
    calls: list[tuple[float, int]] = json.loads(record.read_text())
    edge = int(len(calls) * _EDGE)
    middle = calls[edge : len(calls) - edge]
    seconds = middle[-1][0] - middle[0][0]
    weighted = sum(
        (after[0] - before[0]) * before[1] for before, after in itertools.pairwise(middle)
    )
    return Pace((len(middle) - 1) / seconds, weighted / seconds, max(n for _, n in middle))


class _Vendor(asyncio.Protocol):
    """One connection: a request, an answer a while later, and again."""

    def __init__(self, latency_s: float, calls: list[tuple[float, int]], air: list[int]) -> None:
        self._latency_s = latency_s
        self._calls = calls
        self._air = air
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, rest = self._got.partition(_HEAD_END)
        if not found:
            return
        length = next(
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        if len(rest) < length:
            return
        self._got = b""
        self._air[0] += 1
        self._calls.append((time.monotonic(), self._air[0]))
        asyncio.get_running_loop().call_later(self._latency_s, self._answer, len(self._calls))

    def _answer(self, number: int) -> None:
        self._air[0] -= 1
        if TYPE_CHECKING:
            assert isinstance(self._transport, asyncio.Transport)
        body = orjson.dumps({"ref": f"v{number}"})
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def _serve(latency_s: float, record: Path) -> None:
    calls: list[tuple[float, int]] = []
    air = [0]
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    server = await loop.create_server(
        lambda: _Vendor(latency_s, calls, air), "127.0.0.1", 0, backlog=1_000
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()
    record.write_text(json.dumps(calls))


def _pool(url: str, count: int) -> None:
    local = threading.local()
    document = {"id": "0", "to": "+12025550100", "from": "+15550100100", "text": "x" * 140}
    body = orjson.dumps(document)

    def call(_: int) -> None:
        session = getattr(local, "session", None)
        if session is None:
            session = local.session = requests.Session()
            session.trust_env = False
        answer = session.post(
            f"{url}/wire/sms", data=body, headers={"Content-Type": "application/json"}, timeout=20
        )
        answer.json()["ref"]

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(call, range(count)):
            pass


def main() -> None:
    """Serve, or call."""
    parser = argparse.ArgumentParser(prog="benchmarks.vendor")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--latency", type=float, required=True)
    serving.add_argument("record", type=Path)
    pool = commands.add_parser("pool")
    pool.add_argument("url")
    pool.add_argument("count", type=int)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        uvloop.run(_serve(arguments.latency, arguments.record))
    else:
        _pool(arguments.url, arguments.count)


if __name__ == "__main__":
    main()
