"""The sandbox: an imitation of the world, on every channel, over one small HTTP wire.

`POST {url}/wire/{channel}` with `{"id", "to", "from", "service", "text", "html", "mime", "hook"}`
answers 200 `{"ref": "..."}`. Receipts come to `/hooks/{account}` as `{"id", "ref", "event", "at"}`
with the signature of `app/channels/signature.py`.
"""

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, Field, SecretStr

from app.channels.contract import (
    Accepted,
    Blame,
    ChatBody,
    EmailBody,
    HookRequest,
    InboundMessage,
    Message,
    Outcome,
    Receipt,
    Rejected,
    TextBody,
    Traits,
    UnreadableHook,
)
from app.channels.http import HttpProvider, HttpReply, HttpRequest
from app.channels.http_session import HttpSettings
from app.channels.signature import verify_signature
from app.domain.vocabulary import Channel, EventType
from app.faults import WebAddress


class SandboxSettings(HttpSettings):
    """Where the sandbox listens, and the secret that both sides share."""

    url: WebAddress
    secret: SecretStr = Field(min_length=1)


class SandboxProvider(HttpProvider):
    """Sends to people who do not exist."""

    traits: ClassVar[Traits] = Traits(channels=frozenset(Channel), idempotent=True, receipts=True)
    Settings: ClassVar[type[BaseModel]] = SandboxSettings
    codes: ClassVar[Mapping[str, Outcome]] = {
        "unknown_recipient": Rejected("sandbox_unknown_recipient", Blame.RECIPIENT),
    }

    def __init__(self, account: str, channel: Channel, settings: SandboxSettings) -> None:
        super().__init__(account, channel, settings)
        self._secret = settings.secret.get_secret_value()
        self._url = f"{settings.url.rstrip('/')}/wire/{channel}"

    def build(self, message: Message) -> HttpRequest:
        """Make the wire's request."""
        document = {
            "id": message.idempotency_key,
            "to": message.recipient,
            "from": message.sender,
            "service": message.service,
            "hook": self.account,
            "text": "",
            "html": None,
            "mime": None,
        }
        match message.body:
            case EmailBody(mime=mime):
                document["mime"] = base64.b64encode(mime).decode()
            case ChatBody(text=text, html=html):
                document |= {"text": text, "html": html}
            case TextBody(text=text):
                document["text"] = text
        headers = {
            "Authorization": f"Bearer {self._secret}",
            "Content-Type": "application/json",
            "Idempotency-Key": message.idempotency_key,
        }
        return HttpRequest(self._url, orjson.dumps(document), headers)

    def interpret(self, reply: HttpReply) -> Outcome:
        """Take the sandbox's reference."""
        return Accepted(reply.identifier("ref"))

    def code_of(self, reply: HttpReply, /) -> str | None:
        """Read `{"error": "code"}`."""
        return str(reply.json()["error"])

    def verify(self, request: HookRequest) -> None:
        """Check the signature and its age; raise `BadSignature`."""
        verify_signature(self._secret, request)

    def read(self, request: HookRequest) -> list[Receipt | InboundMessage]:
        """Turn one fact of the sandbox into a receipt."""
        try:
            document: Any = orjson.loads(request.body)
            at = datetime.fromisoformat(document["at"])
            if at.tzinfo is None:
                raise UnreadableHook("at has no time zone")
            return [
                Receipt(
                    external_id=str(document["id"]),
                    ref=str(document["ref"]),
                    event=EventType(document["event"]),
                    at=at,
                )
            ]
        except (ValueError, TypeError, LookupError) as error:
            raise UnreadableHook(f"not a receipt: {type(error).__name__}") from error
