"""The SMTP server side of the mail sink: one `asyncio.Protocol` per client.

Made to be much faster than what it tests: bodies are found and cut with bytes methods alone, and
the replies to all that one read brought are one write.
"""

import asyncio
import base64
import binascii
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from app.sandbox.envelope import Envelope


@dataclass(slots=True)
class Faults:
    """How the sink misbehaves; may be changed while it runs. Times are in seconds.

    `refuse` maps a recipient to the reply it gets. `drop_before_ack_every` takes each n-th body,
    records it and breaks the connection before the 250; `drop_body_every` breaks it unrecorded.
    `drop_after` and `busy_after` break a connection, or say 421, after that many messages on it.
    `greylist` refuses each recipient's first try for now. `ack` spoils the reply to the body.
    """

    reply_latency: float = 0
    ack_latency: float = 0
    refuse: dict[str, str] = field(default_factory=dict)
    refuse_body: str | None = None
    careless_data: bool = False  # says 354 to DATA though every recipient was refused
    drop_before_ack_every: int = 0
    drop_body_every: int = 0
    drop_after: int = 0
    busy_after: int = 0
    greylist: bool = False
    ack: Literal["whole", "none", "half", "garbled", "endless"] = "whole"
    greeting: str = "220 mailsink.example ESMTP"


@dataclass(slots=True)
class Features:
    """What the sink offers. With `tls` it offers STARTTLS; with `credentials`, demands AUTH."""

    pipelining: bool = True
    chunking: bool = False
    eight_bit: bool = True
    utf8: bool = True
    size: int = 50_000_000
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    credentials: tuple[str, str] | None = None


class SinkState:
    """What the connections of one sink share: what it offers, its faults, what it has taken."""

    def __init__(self, features: Features, faults: Faults) -> None:
        self.features = features
        self.faults = faults
        self.on_message: Callable[[Envelope], object] | None = None
        self.connections = 0
        self.taken = 0
        self.stray_bytes = 0  # of bodies that nobody was to get
        self.commands: list[str] | None = None  # set to [] to have every verb noted
        self.greylisted: set[str] = set()
        self.open: set[_Connection] = set()

    def accept(self) -> asyncio.Protocol:
        """Make the protocol of one more client."""
        return _Connection(self)


class _Connection(asyncio.Protocol):
    """One client. Input is parsed as far as it goes; replies are written once per read."""

    def __init__(self, sink: SinkState) -> None:
        self.sink = sink
        self.transport: asyncio.Transport
        self.input = bytearray()
        self.replies: list[bytes] = []
        self.waiting = False  # a reply is being held back, or TLS is being set up
        self.body_from = -1  # where the search for the end of a DATA body goes on; -1: no body
        self.chunk: tuple[int, bool] | None = None  # octets of a BDAT still to come; is it the last
        self.chunks: list[bytes] = []
        self.login: deque[str] = deque()  # AUTH LOGIN answers still to come
        self.secure = self.known = False
        self.taken = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.reset()

    def reset(self) -> None:
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.chunks = []

    # -- transport -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio types it wider
        self.secure = self.sink.features.implicit_tls
        self.sink.connections += 1
        self.sink.open.add(self)
        self.reply(self.sink.faults.greeting.encode() + b"\r\n")
        self.write()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.waiting = True
        self.sink.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.input += data
        self.work()

    def drop(self) -> None:
        self.waiting = True
        self.sink.open.discard(self)  # in the midst of STARTTLS nobody tells us of the loss
        for task in self.tasks:
            task.cancel()
        self.transport.abort()

    def work(self) -> None:
        """Act upon as much of the input as is complete."""
        while not self.waiting:
            if self.body_from >= 0:
                progressed = self.take_body()
            elif self.chunk:
                progressed = self.take_chunk(*self.chunk)
            else:
                progressed = self.take_command()
            if not progressed:
                break
        self.write()

    def reply(self, line: bytes, latency: float = 0) -> None:
        latency += self.sink.faults.reply_latency
        if latency:
            self.waiting = True
            asyncio.get_running_loop().call_later(latency, self.resume, line)
        else:
            self.replies.append(line)

    def resume(self, line: bytes) -> None:
        if not self.transport.is_closing():
            self.waiting = False
            self.replies.append(line)
            self.work()

    def write(self) -> None:
        if self.replies:
            self.transport.write(b"".join(self.replies))
            self.replies.clear()

    # -- input -----------------------------------------------------------------------------------

    def take_command(self) -> bool:
        end = self.input.find(b"\n")
        if end < 0:
            return False
        line = bytes(self.input[:end]).rstrip(b"\r")
        del self.input[: end + 1]
        if self.login:
            self.on_login(line)
            return True
        verb = line[:4].upper()
        if self.sink.commands is not None:
            self.sink.commands.append(verb.decode("ascii", "replace"))
        handler = _HANDLERS.get(verb)
        if handler:
            handler(self, line)
        else:
            self.reply(b"500 5.5.2 What?\r\n")
        return True

    def take_body(self) -> bool:
        if self.body_from == 0 and self.input.startswith(b".\r\n"):
            body, end = b"", 3
        else:
            found = self.input.find(b"\r\n.\r\n", self.body_from)
            if found < 0:
                self.body_from = max(0, len(self.input) - 4)
                return False
            body, end = bytes(self.input[: found + 2]), found + 5
        del self.input[:end]
        self.body_from = -1
        if b"\n." in body or body.startswith(b"."):
            body = (b"\n" + body).replace(b"\n.", b"\n")[1:]
        self.on_body(body)
        return True

    def take_chunk(self, octets: int, last: bool) -> bool:
        if len(self.input) < octets:
            return False
        self.chunks.append(bytes(self.input[:octets]))
        del self.input[:octets]
        self.chunk = None
        if self.sender is None or not self.recipients:
            self.chunks.clear()
            self.reply(b"503 5.5.1 Need MAIL and RCPT\r\n")
        elif last:
            self.on_body(b"".join(self.chunks))
        else:
            self.reply(b"250 2.0.0 Chunk\r\n")
        return True

    def on_body(self, mime: bytes) -> None:
        sink, faults = self.sink, self.sink.faults
        sender, recipients = self.sender or "", tuple(self.recipients)
        self.reset()
        if not recipients or faults.refuse_body:
            sink.stray_bytes += 0 if recipients else len(mime)
            text = faults.refuse_body if recipients else "554 5.5.1 No valid recipients"
            self.reply(f"{text}\r\n".encode())
            return
        self.taken += 1
        sink.taken += 1
        if faults.drop_body_every and sink.taken % faults.drop_body_every == 0:
            self.drop()
            return
        if sink.on_message:
            sink.on_message(Envelope(sender, recipients, mime, time.time(), time.monotonic()))
        if faults.drop_before_ack_every and sink.taken % faults.drop_before_ack_every == 0:
            self.write()
            self.drop()
        elif faults.ack != "whole":
            self.spoil_ack(faults.ack)
        else:
            self.reply(b"250 2.0.0 Ok: queued as %X\r\n" % sink.taken, faults.ack_latency)
        if faults.drop_after and self.taken >= faults.drop_after:
            self.end()

    def spoil_ack(self, how: str) -> None:
        if how == "garbled":
            self.replies.append(b"\x16\x03\x01 what\r\n")
        elif how == "half":
            self.replies.append(b"25")
            self.end()
        elif how == "endless" and not self.transport.is_closing():
            self.replies.append(b"250-wait\r\n")
            asyncio.get_running_loop().call_later(0.01, self.spoil_ack, how)
        self.write()
        self.waiting = True

    def end(self) -> None:
        """Say what is to be said and close."""
        self.write()
        self.transport.close()
        self.waiting = True

    # -- commands --------------------------------------------------------------------------------

    def on_ehlo(self, _line: bytes) -> None:
        features = self.sink.features
        lines = ["mailsink.example", "ENHANCEDSTATUSCODES", f"SIZE {features.size}"]
        lines += ["PIPELINING"] * features.pipelining + ["8BITMIME"] * features.eight_bit
        lines += ["CHUNKING"] * features.chunking + ["SMTPUTF8"] * features.utf8
        lines += ["STARTTLS"] * bool(features.tls and not self.secure)
        lines += ["AUTH PLAIN LOGIN"] * bool(features.credentials)
        text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
        self.reset()
        self.reply(text.encode())

    def on_mail(self, line: bytes) -> None:
        if self.sink.features.credentials and not self.known:
            self.reply(b"530 5.7.0 Authentication required\r\n")
        elif self.sender is not None:
            self.reply(b"503 5.5.1 Nested MAIL\r\n")
        elif self.sink.faults.busy_after and self.taken >= self.sink.faults.busy_after:
            self.replies.append(b"421 4.7.0 Enough for now\r\n")
            self.end()
        else:
            self.sender = _address(line)
            self.reply(b"250 2.1.0 Ok\r\n")

    def on_rcpt(self, line: bytes) -> None:
        recipient = _address(line)
        faults = self.sink.faults
        refused = faults.refuse.get(recipient)
        if self.sender is None:
            self.reply(b"503 5.5.1 Need MAIL\r\n")
        elif refused:
            self.reply(refused.encode() + b"\r\n")
        elif faults.greylist and recipient not in self.sink.greylisted:
            self.sink.greylisted.add(recipient)
            self.reply(b"450 4.2.0 Greylisted\r\n")
        else:
            self.recipients.append(recipient)
            self.reply(b"250 2.1.5 Ok\r\n")

    def on_data(self, _line: bytes) -> None:
        if self.recipients or (self.sender is not None and self.sink.faults.careless_data):
            self.body_from = 0
            self.reply(b"354 Go on\r\n")
        else:
            self.reply(b"554 5.5.1 No valid recipients\r\n")

    def on_bdat(self, line: bytes) -> None:
        words = line.split()
        if len(words) < 2 or not words[1].isdigit() or not self.sink.features.chunking:
            self.reply(b"501 5.5.4 BDAT size [LAST]\r\n")
            return
        self.chunk = int(words[1]), words[-1].upper() == b"LAST"

    def on_rset(self, _line: bytes) -> None:
        self.reset()
        self.reply(b"250 2.0.0 Ok\r\n")

    def on_noop(self, _line: bytes) -> None:
        self.reply(b"250 2.0.0 Ok\r\n")

    def on_quit(self, _line: bytes) -> None:
        self.replies.append(b"221 2.0.0 Bye\r\n")
        self.end()

    def on_starttls(self, _line: bytes) -> None:
        context = self.sink.features.tls
        if context is None or self.secure:
            self.reply(b"502 5.5.1 Not here\r\n")
            return
        self.replies.append(b"220 2.0.0 Ready\r\n")
        self.write()
        self.waiting = True
        self.input.clear()  # nothing said in clear counts after this (RFC 3207 4.2)
        task = asyncio.get_running_loop().create_task(self.secure_with(context))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def secure_with(self, context: ssl.SSLContext) -> None:
        self.secure = True
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            transport = await loop.start_tls(self.transport, self, context, server_side=True)
            if transport is not None:
                self.transport = transport
                self.waiting = False

    def on_auth(self, line: bytes) -> None:
        words = line.split()
        if words[1:2] == [b"PLAIN"] and len(words) == 3:
            parts = _decoded(words[2]).split("\0")
            self.decide_login(*parts[-2:])
        elif words[1:2] == [b"LOGIN"]:
            self.login.append(_decoded(words[2]) if len(words) == 3 else "")
            self.reply(b"334 UGFzc3dvcmQ6\r\n" if len(words) == 3 else b"334 VXNlcm5hbWU6\r\n")
        else:
            self.reply(b"504 5.5.4 PLAIN or LOGIN\r\n")

    def on_login(self, line: bytes) -> None:
        user = self.login.popleft()
        if not user:
            self.login.append(_decoded(line))
            self.reply(b"334 UGFzc3dvcmQ6\r\n")
        else:
            self.decide_login(user, _decoded(line))

    def decide_login(self, *given: str) -> None:
        self.known = given == self.sink.features.credentials
        self.reply(b"235 2.7.0 Ok\r\n" if self.known else b"535 5.7.8 Wrong credentials\r\n")


_HANDLERS: Final[dict[bytes, Callable[[_Connection, bytes], None]]] = {
    b"EHLO": _Connection.on_ehlo,
    b"HELO": _Connection.on_ehlo,
    b"MAIL": _Connection.on_mail,
    b"RCPT": _Connection.on_rcpt,
    b"DATA": _Connection.on_data,
    b"BDAT": _Connection.on_bdat,
    b"RSET": _Connection.on_rset,
    b"NOOP": _Connection.on_noop,
    b"QUIT": _Connection.on_quit,
    b"STAR": _Connection.on_starttls,
    b"AUTH": _Connection.on_auth,
}


def _address(line: bytes) -> str:
    return line[line.find(b"<") + 1 : line.rfind(b">")].decode("utf-8", "replace")


def _decoded(word: bytes) -> str:
    try:
        return base64.b64decode(word, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return ""
