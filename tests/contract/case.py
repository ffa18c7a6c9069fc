"""What a provider brings to the contract suite: how its vendor says each thing.

A case makes a loopback vendor behave as a `Situation` says, and the provider's settings to reach
it. The suite does the rest. `HttpCase` is all that an HTTP provider needs to fill in.
"""

import json
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from enum import Enum
from typing import Any, ClassVar

from app.channels.contract import EmailBody, Message, Provider, TextBody
from app.channels.registry import PROVIDERS
from app.domain.body import Body, ChatBody
from app.domain.vocabulary import Channel
from app.sandbox.mailsink import Faults, Features, MailSink
from tests.contract.homeserver import Homeserver
from tests.contract.servers import Answer, Request, ScriptedHttp, refusing_port

MIME = (
    b"From: store@example.com\r\nTo: ada@example.com\r\nSubject: Order 991\r\n\r\nOn its way.\r\n"
)


GONE, NULL = object(), object()


class Situation(Enum):
    ACCEPTS = "takes every message"
    REFUSES_BAD_RECIPIENT = "refuses messages to the bad recipient, and takes the rest"
    TOO_FAST_SECONDS = "429, Retry-After: 7"
    TOO_FAST_DATE = "429, Retry-After as a date 90 s ahead"
    TOO_FAST_BARE = "429 without Retry-After"
    UNAVAILABLE_FOR_NOW = "503, Retry-After: 7"
    FAILS = "500, or SMTP's 451"
    BAD_GATEWAY = "502"
    KNOWN_ALREADY = "409: this key was taken before"
    WRONG_CREDENTIALS = "does not know us"
    FORBIDDEN = "403, or SMTP's 530"
    TOO_BIG = "413, or SMTP's 552"
    HANGS = "reads the message, and says nothing"
    DROPS = "reads the message, and breaks the connection"
    DROPS_MID_REPLY = "breaks the connection in the middle of its reply"
    UNREADABLE = "takes the message, and answers gibberish"
    DRIPS = "answers a byte at a time, for ever"
    DRIPS_BODY = "answers its body a byte at a time, for ever"
    ENDLESS = "answers without end"
    NOT_THERE = "nobody listens"


class Case(ABC):
    """One provider's vendor. `exempt` names what cannot happen to it, with the reason."""

    provider: ClassVar[str]
    channel: ClassVar[Channel]
    good: ClassVar[str]
    bad: ClassVar[str]
    sender: ClassVar[str]
    exempt: ClassVar[Mapping[Situation, str]] = {}

    @abstractmethod
    def vendor(self, situation: Situation) -> Any:
        """A context manager that gives the provider's settings while the vendor runs."""

    @abstractmethod
    def came(self) -> bool:
        """Whether a message has come to the vendor that ran last."""

    @abstractmethod
    def body(self) -> Body:
        """An ordinary body."""

    def unsendable(self) -> list[Message]:
        """Messages that can never be sent, whatever the vendor says."""
        return []

    def message(self, number: int, recipient: str | None = None) -> Message:
        return Message(
            delivery_id=number,
            idempotency_key=f"key-{number}",
            recipient=recipient or self.good,
            sender=self.sender,
            body=self.body(),
        )

    @contextmanager
    def provider_in(self, situation: Situation, **settings: object) -> Iterator[Provider]:
        kind = PROVIDERS[self.provider]
        with self.vendor(situation) as own:
            made = kind("account", self.channel, kind.Settings.model_validate({**own, **settings}))
            try:
                yield made
            finally:
                made.close()


class HttpCase(Case):
    """A case over HTTP: fill in the settings and the vendor's ways of saying yes and no.

    `reference` is the field of a yes that has the vendor's id. With `instead` set, a vendor that
    cannot be read answers that in its place (or nothing: `GONE`), and no gibberish.
    """

    reference: ClassVar[str]
    instead: object = None

    @abstractmethod
    def settings(self, url: str) -> dict[str, object]:
        """The provider's settings for a vendor at `url`."""

    @abstractmethod
    def yes(self, request: Request) -> Answer:
        """The vendor takes the message."""

    @abstractmethod
    def no_such_recipient(self, _request: Request) -> Answer:
        """The vendor refuses the message for its recipient."""

    @abstractmethod
    def knows_us(self, request: Request) -> bool:
        """Whether the credentials are there and right."""

    def answer(self, situation: Situation, request: Request) -> Answer:
        if not self.knows_us(request):
            return Answer(401)
        match situation:
            case Situation.REFUSES_BAD_RECIPIENT if self.bad.lstrip("+").encode() in request.body:
                return self.no_such_recipient(request)
            case Situation.HANGS:
                return Answer(how="hang")
            case Situation.DROPS:
                return Answer(how="drop")
            case Situation.DROPS_MID_REPLY:
                return Answer(body=self.yes(request).body * 20, how="half")
            case Situation.DRIPS:
                return Answer(how="drip_head")
            case Situation.DRIPS_BODY:
                return Answer(body=self.yes(request).body, how="drip_body")
            case Situation.ENDLESS:
                return Answer(how="endless")
            case Situation.UNREADABLE if self.instead is not None:
                return self._misshapen(self.yes(request))
        return _plain(situation) or self.yes(request)

    def _misshapen(self, yes: Answer) -> Answer:
        document = json.loads(yes.body)
        del document[self.reference]
        if self.instead is not GONE:
            document[self.reference] = None if self.instead is NULL else self.instead
        return replace(yes, body=json.dumps(document).encode())

    @contextmanager
    def vendor(self, situation: Situation) -> Iterator[dict[str, object]]:
        if situation is Situation.NOT_THERE:
            with refusing_port() as port:
                yield self.settings(f"http://127.0.0.1:{port}")
            return
        server = ScriptedHttp(lambda request: self.answer(situation, request))
        with server.running():
            self.server = server
            settings = self.settings(server.url)
            if situation is Situation.WRONG_CREDENTIALS:
                settings |= self.wrong_credentials()
            yield settings

    def came(self) -> bool:
        return any(self.carries(request) for request in self.server.requests)

    def carries(self, _request: Request) -> bool:
        """Whether it is a message, and no question before one."""
        return True

    @abstractmethod
    def wrong_credentials(self) -> dict[str, object]:
        """Settings with which the vendor does not know us."""


def _plain(situation: Situation) -> Answer | None:
    soon = formatdate(time.time() + 90, usegmt=True)
    answers = {
        Situation.TOO_FAST_SECONDS: Answer(429, headers={"Retry-After": "7"}),
        Situation.TOO_FAST_DATE: Answer(429, headers={"Retry-After": soon}),
        Situation.TOO_FAST_BARE: Answer(429),
        Situation.UNAVAILABLE_FOR_NOW: Answer(503, headers={"Retry-After": "7"}),
        Situation.FAILS: Answer(500, b"<h1>Oops</h1>"),
        Situation.BAD_GATEWAY: Answer(502),
        Situation.KNOWN_ALREADY: Answer(409),
        Situation.FORBIDDEN: Answer(403),
        Situation.TOO_BIG: Answer(413),
        Situation.UNREADABLE: Answer(200, b"<html>Welcome</html>"),
    }
    return answers.get(situation)


class SandboxCase(HttpCase):
    provider = "sandbox"
    reference = "ref"
    channel = Channel.SMS
    good, bad, sender = "+15550100", "+15550199", "+15550101"

    def settings(self, url: str) -> dict[str, object]:
        return {"url": url, "secret": "right"}

    def wrong_credentials(self) -> dict[str, object]:
        return {"secret": "wrong"}

    def body(self) -> Body:
        return TextBody("Order 991 is on its way")

    def unsendable(self) -> list[Message]:
        lone_surrogate = Message(9, "key-9", self.good, self.sender, TextBody("\ud800"))
        return [lone_surrogate]

    def knows_us(self, request: Request) -> bool:
        return request.headers.get("authorization") == "Bearer right"

    def yes(self, request: Request) -> Answer:
        return Answer(body=json.dumps({"ref": f"ref-{json.loads(request.body)['id']}"}).encode())

    def no_such_recipient(self, _request: Request) -> Answer:
        return Answer(400, b'{"error": "unknown_recipient"}')


class TwilioCase(HttpCase):
    provider = "twilio"
    reference = "sid"
    channel = Channel.SMS
    good, bad, sender = "+15550100", "+15550199", "+15550101"
    exempt: ClassVar[Mapping[Situation, str]] = {
        Situation.KNOWN_ALREADY: "Twilio knows no idempotency key: see test_twilio.py",
    }
    account_sid = "AC" + "0" * 32

    def settings(self, url: str) -> dict[str, object]:
        return {
            "account_sid": self.account_sid,
            "auth_token": "right",
            "public_url": "https://converge.example",
            "url": url,
        }

    def wrong_credentials(self) -> dict[str, object]:
        return {"auth_token": "wrong"}

    def body(self) -> Body:
        return TextBody("Order 991 is on its way")

    def unsendable(self) -> list[Message]:
        return [
            Message(91, "key-91", self.good, self.sender, TextBody("\ud800")),
            Message(92, "key-92", self.good, self.sender, ChatBody("text", "html")),
        ]

    def knows_us(self, request: Request) -> bool:
        basic = b64encode(f"{self.account_sid}:right".encode()).decode()
        return request.headers.get("authorization") == f"Basic {basic}"

    def yes(self, _request: Request) -> Answer:
        return Answer(201, b'{"sid": "SM00000000000000000000000000000001", "status": "queued"}')

    def no_such_recipient(self, _request: Request) -> Answer:
        return Answer(400, b'{"code": 21211, "message": "Invalid To", "status": 400}')


class MatrixCase(HttpCase):
    """The situations are the message's own; those of the room are in test_matrix.py."""

    provider = "matrix"
    reference = "event_id"
    channel = Channel.CHAT
    good, bad, sender = "@ada:example.org", "@nobody:example.org", "Store"

    def settings(self, url: str) -> dict[str, object]:
        return {
            "url": url,
            "user": "@converge:example.org",
            "as_token": "right",
            "hs_token": "theirs",
            "room_secret": "a secret for rooms",
        }

    def wrong_credentials(self) -> dict[str, object]:
        return {"as_token": "wrong"}

    def body(self) -> Body:
        return ChatBody("Order 991 is on its way", "<p>Order 991 is on its way</p>")

    def unsendable(self) -> list[Message]:
        return [
            Message(91, "key-91", self.good, self.sender, ChatBody("\ud800", "")),
            Message(92, "key-92", self.good, self.sender, TextBody("Hi")),
            Message(93, "key-93", self.good, self.sender, self.body(), "slack"),
            Message(94, "key-94", "ada@example.org", self.sender, self.body()),
            Message(95, "key-95", "@ada\n:example.org", self.sender, self.body()),
            Message(96, "key-96", "@\ud800:example.org", self.sender, self.body()),
            Message(97, "key-97", f"@{'a' * 250}:example.org", self.sender, self.body()),
        ]

    @contextmanager
    def vendor(self, situation: Situation) -> Iterator[dict[str, object]]:
        self.home = Homeserver(strangers=frozenset({self.bad}))
        with super().vendor(situation) as settings:
            yield settings

    def carries(self, request: Request) -> bool:
        return "/send/" in request.path

    def answer(self, situation: Situation, request: Request) -> Answer:
        if self.carries(request) or not self.knows_us(request):
            return super().answer(situation, request)
        return self.home.answer(request)

    def knows_us(self, request: Request) -> bool:
        return request.headers.get("authorization") == "Bearer right"

    def yes(self, request: Request) -> Answer:
        return self.home.answer(request)

    def no_such_recipient(self, _request: Request) -> Answer:
        raise AssertionError("the bad recipient has no room to send to")


class SmtpCase(Case):
    provider = "smtp"
    channel = Channel.EMAIL
    good, bad, sender = "ada@example.com", "nobody@example.com", "store@example.com"
    exempt: ClassVar[Mapping[Situation, str]] = {
        Situation.TOO_FAST_SECONDS: "SMTP has no Retry-After: too fast is a 4yz, so Retryable",
        Situation.TOO_FAST_DATE: "the same",
        Situation.TOO_FAST_BARE: "the same",
        Situation.UNAVAILABLE_FOR_NOW: "the same",
        Situation.BAD_GATEWAY: "there is none between us",
        Situation.KNOWN_ALREADY: "SMTP knows no idempotency",
        Situation.DRIPS_BODY: "a reply is one thing: see DRIPS",
    }
    features: ClassVar[dict[str, object]] = {}

    def body(self) -> Body:
        return EmailBody(MIME)

    def unsendable(self) -> list[Message]:
        body = self.body()
        return [
            Message(91, "key-91", "ada@example.com>\r\nRSET\r\n", self.sender, body),
            Message(92, "key-92", "not an address", self.sender, body),
            Message(93, "key-93", self.good, "store@example.com\nDATA", body),
            Message(94, "key-94", self.good, self.sender, ChatBody("text", "html")),
            Message(95, "key-95", "\ud800@example.com", self.sender, body),
        ]

    @contextmanager
    def vendor(self, situation: Situation) -> Iterator[dict[str, object]]:
        settings = {"host": "127.0.0.1", "tls": "none", "helo": "client.example"}
        if situation is Situation.NOT_THERE:
            with refusing_port() as port:
                yield {**settings, "port": port}
            return
        features = Features(**self.features)  # type: ignore[arg-type]
        if situation in {Situation.WRONG_CREDENTIALS, Situation.FORBIDDEN}:
            features.credentials = ("user", "right")
        if situation is Situation.WRONG_CREDENTIALS:
            settings |= {"username": "user", "password": "wrong"}
        with MailSink(features, self.faults(situation)).running() as sink:
            self.sink = sink
            yield {**settings, "port": sink.port}

    def came(self) -> bool:
        return bool(self.sink.messages)

    def faults(self, situation: Situation) -> Faults:
        match situation:
            case Situation.REFUSES_BAD_RECIPIENT:
                return Faults(refuse={self.bad: "550 5.1.1 No such user"})
            case Situation.FAILS:
                return Faults(refuse_body="451 4.3.0 Disk full")
            case Situation.TOO_BIG:
                return Faults(refuse_body="552 5.3.4 Too big")
            case Situation.HANGS:
                return Faults(ack="none")
            case Situation.DROPS:
                return Faults(drop_before_ack_every=1)
            case Situation.DROPS_MID_REPLY:
                return Faults(ack="half")
            case Situation.UNREADABLE:
                return Faults(ack="garbled")
            case Situation.DRIPS | Situation.ENDLESS:
                return Faults(ack="endless")
        return Faults()


class SmtpPlainCase(SmtpCase):
    """A server without PIPELINING: one command at a time."""

    features: ClassVar[dict[str, object]] = {"pipelining": False}


class SmtpChunkingCase(SmtpCase):
    """A server with CHUNKING: whole messages are pipelined."""

    features: ClassVar[dict[str, object]] = {"chunking": True}


CASES: tuple[type[Case], ...] = (
    SandboxCase,
    TwilioCase,
    MatrixCase,
    SmtpCase,
    SmtpPlainCase,
    SmtpChunkingCase,
)
