"""The world outside: mail relays, a text gateway, and people who read what they get.

Each provider notes what it took before it answers, and misbehaves on request. What a provider took
is the truth that the ledger is held to. All of it runs in this process, on ports of its own.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from app.domain.tokens import Purpose, Signer
from app.sandbox.envelope import Envelope
from app.sandbox.mailsink import Faults, MailSink
from app.sandbox.mailsink_protocol import SinkState, _Connection
from app.sandbox.outside import Home, Outside
from app.sandbox.people import Habits
from app.sandbox.world import World
from tests.contract.servers import Answer, Request, ScriptedHttp

SECRET = "a secret of the gateways alone"
POISON_MAIL = "poison-"
POISON_PHONE = "+12065550"
GONE = "gone-"
"""How the addresses begin of whom no mailbox is for, and of messages that kill their worker."""

HANG_S = 600.0
SLOW_REPLY_S = 0.15
SLOW_TEXT_S = 1.5
NO_SUCH_USER = "550 5.1.1 No such user here"

Kill = Callable[[int, int], object]


class Arrivals:
    """What was taken, by delivery, in order. Safe over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: list[int] = []
        self.counts: Counter[int] = Counter()
        self.by_provider: Counter[str] = Counter()

    def note(self, delivery: int, provider: str) -> None:
        with self._lock:
            self._taken.append(delivery)
            self.counts[delivery] += 1
            self.by_provider[provider] += 1

    def since(self, place: int) -> tuple[int, dict[int, int]]:
        """Where the record stands, and how often each delivery came of those after `place`."""
        with self._lock:
            return len(self._taken), {one: self.counts[one] for one in self._taken[place:]}

    def total(self) -> int:
        return len(self._taken)


class NotingOutside(Outside):
    """People's ways to Converge, with a note of every receipt that it said it had taken."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.receipts: dict[str, dict[str, str]] = {}
        """Receipts that were taken, by the inbox's name of their body."""

    def _receipt(self, account: str, body: bytes) -> bool:
        taken = super()._receipt(account, body)
        if taken:
            name = blake2b(body, digest_size=16).hexdigest()
            self.receipts[name] = {"account": account, "name": name, **json.loads(body)}
        return taken


class _Refused(dict[str, str]):
    """The recipients whom no mailbox is for."""

    def get(self, address: str, default: Any = None) -> Any:
        return NO_SUCH_USER if address.startswith(GONE) else default


class _KilledByPoison(_Connection):
    """A connection whose client dies when it names the recipient of a poison message."""

    def data_received(self, data: bytes) -> None:
        if b"RCPT TO:<" + POISON_MAIL.encode() in data:
            self.sink.kill(  # type: ignore[attr-defined]  # see Relay
                self.transport.get_extra_info("peername")[1],
                self.transport.get_extra_info("sockname")[1],
            )
        super().data_received(data)


class _Poisonous(SinkState):
    kill: Kill

    def accept(self) -> asyncio.Protocol:
        return _KilledByPoison(self)


class Relay:
    """A mail server with a switch."""

    def __init__(self, name: str, arrivals: Arrivals, people: World, signer: Signer) -> None:
        self.name = name
        self._arrivals = arrivals
        self._people = people
        self._signer = signer
        self.sink = MailSink()
        self.sink.state = _Poisonous(self.sink.state.features, _mail_faults(""))
        self.sink.state.on_message = self._take

    def kill_with(self, kill: Kill) -> None:
        self.sink.state.kill = kill  # type: ignore[attr-defined]  # it is _Poisonous

    def misbehave(self, how: str) -> None:
        """Do as `how` says from now on; "" is as it should be."""
        self.sink.state.faults = _mail_faults(how)

    def _take(self, envelope: Envelope) -> None:
        mark = envelope.header("X-Converge-Delivery") or ""
        delivery = self._signer.read(mark, Purpose.TRACE, datetime.now(UTC)).id
        self._arrivals.note(delivery, self.name)
        for recipient in envelope.recipients:
            self._people.take_mail(envelope.sender, recipient, envelope.mime)


def _mail_faults(how: str) -> Faults:
    faults: Mapping[str, Mapping[str, Any]] = {
        "": {},
        "hang": {"reply_latency": HANG_S},
        "slow": {"reply_latency": SLOW_REPLY_S},
        "drop_acks": {"drop_before_ack_every": 3},
        "drop_bodies": {"drop_body_every": 3},
        "busy": {"busy_after": 1},
        "later": {"refuse_body": "451 4.3.0 Try again later"},
        "too_fast": {"refuse_body": "450 4.7.1 Too many messages"},
        "closed": {"greeting": "421 4.3.2 Closed for the moment"},
        "half_ack": {"ack": "half"},
        "garbled_ack": {"ack": "garbled"},
    }
    return Faults(refuse=_Refused(), **faults[how])


class Gateway(ScriptedHttp):
    """A text gateway with a switch; it takes what has the same id once, as it promises."""

    def __init__(
        self, name: str, arrivals: Arrivals, people: World, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(self._handle)
        self.name = name
        self._kill: Kill = lambda _client, _server: None
        self._arrivals = arrivals
        self._people = people
        self._loop = loop
        self._how = ""
        self._turned = threading.Event()
        self._here = threading.local()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill_with(self, kill: Kill) -> None:
        self._kill = kill

    def misbehave(self, how: str) -> None:
        """Do as `how` says from now on; "" is as it should be."""
        self._how = how
        turned, self._turned = self._turned, threading.Event()
        turned.set()

    def close(self) -> None:
        self._turned.set()

    def _serve(self, client: socket.socket) -> None:
        self._here.peer = client.getpeername()[1]
        super()._serve(client)

    def _handle(self, request: Request) -> Answer:
        self.requests.clear()
        document = json.loads(request.body)
        if document["to"].startswith(POISON_PHONE):
            self._kill(self._here.peer, self.port)
            return Answer(how="drop")
        match how := self._how:
            case "500":
                return Answer(500)
            case "401":
                return Answer(401)
            case "429" | "503":
                return Answer(int(how), headers={"Retry-After": "1"})
            case "slow":
                self._turned.wait(SLOW_TEXT_S)
        reply = json.dumps({"ref": self._take(document)}).encode()
        match how:
            case "hang":
                self._turned.wait(HANG_S)
                return Answer(how="drop")
            case "drop" | "half":
                return Answer(body=reply, how=how)  # type: ignore[arg-type]  # one of its words
            case "garbage":
                return Answer(body=b"<html>")
            case "502":
                return Answer(502)
        return Answer(body=reply)

    def _take(self, document: Mapping[str, Any]) -> str:
        self._arrivals.note(int(document["id"].rpartition("-")[2]), self.name)
        return asyncio.run_coroutine_threadsafe(self._show(document), self._loop).result(10)

    async def _show(self, document: Mapping[str, Any]) -> str:
        its_id = f"{self.name}/{document['id']}"
        return self._people.known(its_id) or self._people.take(
            "sms", document["to"], document["from"], document["text"], "", self.name, its_id
        )


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="outside")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def running_people(
    loop: asyncio.AbstractEventLoop, public_url: str, seed: int
) -> Iterator[tuple[World, NotingOutside]]:
    """People who read, follow links and confirm, each as the seed made them."""
    outside = NotingOutside(Home(public_url, SECRET))
    people = World(Habits(seed=seed, speed=2.0), outside)
    try:
        yield people, outside
    finally:
        loop.call_soon_threadsafe(people.close)
        outside.close()


@contextmanager
def running_relay(relay: Relay, loop: asyncio.AbstractEventLoop) -> Iterator[Relay]:
    """Serve mail on the loop."""
    asyncio.run_coroutine_threadsafe(relay.sink.start(), loop).result(10)
    try:
        yield relay
    finally:
        asyncio.run_coroutine_threadsafe(relay.sink.stop(), loop).result(10)


@contextmanager
def running_gateway(gateway: Gateway) -> Iterator[Gateway]:
    """Serve texts on threads."""
    with gateway.running():
        try:
            yield gateway
        finally:
            gateway.close()
