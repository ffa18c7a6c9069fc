"""A mail server that takes everything, remembers it, and misbehaves on request.

It offers PIPELINING, 8BITMIME, SMTPUTF8, SIZE and ENHANCEDSTATUSCODES, and on request CHUNKING,
STARTTLS and AUTH. A message is recorded before it is acknowledged. For loopback only: it has no
defence against a hostile client.

    python -m app.sandbox.mailsink --port 0 --record FILE

prints its port and runs until it is ended. The record has one JSON object per line: `at` (Unix
seconds), `sender`, `recipients`, `message_id`, `mark` (the header named by `--mark`), `bytes`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from app.sandbox.envelope import Envelope
from app.sandbox.mailsink_protocol import Faults, Features, SinkState

__all__ = ["Envelope", "Faults", "Features", "FileRecord", "MailSink"]

MARK: Final = "X-Converge-Delivery"


class MailSink:
    """The server. `on_message` is called with every message before it is acknowledged.

    Without it, messages are kept in `messages`.
    """

    def __init__(
        self,
        features: Features | None = None,
        faults: Faults | None = None,
        on_message: Callable[[Envelope], None] | None = None,
    ) -> None:
        self.messages: list[Envelope] = []
        self.state = SinkState(features or Features(), faults or Faults())
        self.state.on_message = on_message or self.messages.append
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def faults(self) -> Faults:
        """How it misbehaves; may be changed at any time."""
        return self.state.faults

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port."""
        loop = asyncio.get_running_loop()
        features = self.state.features
        self._server = await loop.create_server(
            self.state.accept,
            host,
            port,
            ssl=features.tls if features.implicit_tls else None,
            backlog=1024,
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._server:
            self._server.close()
        await self.drop_connections()

    async def _end(self) -> None:
        """Stop once nothing is being accepted: asyncio would leave it open with its server gone."""
        while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
            _, shaking_hands = await asyncio.wait(accepting, timeout=0.1)
            for one in shaking_hands:  # their clients might take up to a minute
                one.cancel()
        await self.stop()

    async def drop_connections(self) -> None:
        """Break every connection."""
        for connection in list(self.state.open):
            connection.drop()
        await asyncio.sleep(0.01)  # transports close their sockets in the loop's next turns

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[Self]:
        """Run in a thread of its own while the block runs."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="mailsink")
        thread.start()
        self.loop = loop
        try:
            asyncio.run_coroutine_threadsafe(self.start(port=port), loop).result(10)
            yield self
        finally:
            stopping = asyncio.run_coroutine_threadsafe(self._end(), loop)
            stopping.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
            thread.join(30)
            loop.close()


class FileRecord:
    """Appends a line of JSON per message to a file, each with one write, for others to read."""

    def __init__(self, path: Path, mark: str = MARK) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._mark = mark

    def add(self, envelope: Envelope) -> None:
        """Append one message."""
        line = {
            "at": envelope.at,
            "sender": envelope.sender,
            "recipients": envelope.recipients,
            "message_id": envelope.header("Message-ID"),
            "mark": envelope.header(self._mark),
            "bytes": len(envelope.mime),
        }
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mailsink", description="A recording SMTP sink.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path, help="append a JSON line per message to this file")
    parser.add_argument("--mark", default=MARK, help="a header to record as `mark`")
    parser.add_argument("--chunking", action="store_true")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--certificate", type=Path, help="PEM with key and certificate: STARTTLS")
    parser.add_argument("--login", metavar="USER:PASSWORD", help="demand AUTH")
    parser.add_argument("--reply-latency", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--ack-latency", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--refuse", action="append", default=[], metavar="ADDRESS=REPLY")
    parser.add_argument("--drop-before-ack-every", type=int, default=0, metavar="N")
    parser.add_argument("--drop-body-every", type=int, default=0, metavar="N")
    parser.add_argument("--drop-after", type=int, default=0, metavar="N")
    parser.add_argument("--busy-after", type=int, default=0, metavar="N")
    parser.add_argument("--greylist", action="store_true")
    return parser.parse_args(argv)


def _sink(arguments: argparse.Namespace) -> MailSink:
    tls = None
    if arguments.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.certificate)
    user, _, password = (arguments.login or "").partition(":")
    features = Features(
        pipelining=not arguments.no_pipelining,
        chunking=arguments.chunking,
        tls=tls,
        credentials=(user, password) if user else None,
    )
    faults = Faults(
        reply_latency=arguments.reply_latency,
        ack_latency=arguments.ack_latency,
        refuse=dict(rule.split("=", 1) for rule in arguments.refuse),
        drop_before_ack_every=arguments.drop_before_ack_every,
        drop_body_every=arguments.drop_body_every,
        drop_after=arguments.drop_after,
        busy_after=arguments.busy_after,
        greylist=arguments.greylist,
    )
    sink = MailSink(features, faults)
    sink.state.on_message = (  # not in memory, where they would be kept for ever
        FileRecord(arguments.record, arguments.mark).add if arguments.record else None
    )
    return sink


async def _serve(arguments: argparse.Namespace) -> None:
    sink = _sink(arguments)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    port = await sink.start(arguments.host, arguments.port)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await ended.wait()
    await sink.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Run a sink until SIGINT or SIGTERM."""
    asyncio.run(_serve(_arguments(argv)))


if __name__ == "__main__":
    main()
