"""Chat over Matrix: a room with each customer, written and heard as an application service.

Sources: spec.matrix.org, client-server API (rooms, room aliases, sending, error codes) and
application service API (transactions of the homeserver, their ephemeral events).

A customer's room is found by an alias, which is a keyed hash of the account and the user id: it
tells nobody who the customer is, every process comes to the same one, and the homeserver lets one
room have it, however many ask at once. A room of ours has two people in it, the customer and us.
"""

import hmac
import re
import threading
import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import quote

import orjson
from pydantic import BaseModel, Field, SecretStr

from app.channels.chat.matrix_events import SERVICE, read_transaction
from app.channels.contract import (
    Accepted,
    BadSignature,
    Blame,
    ChatBody,
    HookRequest,
    InboundMessage,
    Message,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Retryable,
    Traits,
)
from app.channels.http import (
    LONGEST_RETRY_AFTER,
    HttpProvider,
    HttpReply,
    HttpRequest,
    NotSent,
)
from app.channels.http_session import HttpSettings
from app.domain.vocabulary import Channel
from app.faults import WebAddress, fitting

ROOM_KNOWN_S: Final = 60.0
"""How long we take it that a customer is still in their room."""
ROOMS_KNOWN: Final = 20_000
_USER_ID: Final = r"@[!-9;-~]+:[A-Za-z0-9.\-\[\]:]+"
_USER: Final = re.compile(_USER_ID)
_ROOM: Final[Mapping[str, Any]] = {
    "preset": "private_chat",  # the trusted one would let customers encrypt the room, or rule it
    "power_level_content_override": {"invite": 100},  # more than any customer has
    "is_direct": True,
}
# By the customer's server, or by a rule of ours: neither their address nor our account is to blame
# for sure, so that neither is given up.
_INVITE_REFUSED: Final = Rejected("matrix_invite_refused", Blame.CONTENT)


class MatrixSettings(HttpSettings):
    """A homeserver, and who we are there. docs/matrix.md says how the homeserver learns of us.

    `room_secret` makes the names of rooms: changed, every customer gets a new room. `device` is
    one of ours that exists; with it the homeserver knows a message that it was sent before even
    after it was restarted.
    """

    url: WebAddress
    user: Annotated[str, Field(max_length=255), fitting(_USER_ID, "such as @converge:example.com")]
    as_token: SecretStr = Field(min_length=1)
    hs_token: SecretStr = Field(min_length=1)
    room_secret: SecretStr = Field(min_length=16)
    device: str | None = Field(default=None, min_length=1)


class MatrixProvider(HttpProvider):
    """Writes to customers' rooms; hears what they read and what they answer."""

    traits: ClassVar[Traits] = Traits(
        channels=frozenset({Channel.CHAT}),
        idempotent=True,
        receipts=True,
        services=frozenset({SERVICE}),
        max_bytes=60_000,  # an event may have 65,536, with its signatures and what names it
    )
    Settings: ClassVar[type[BaseModel]] = MatrixSettings
    codes: ClassVar[Mapping[str, Outcome]] = {
        # Of a room: it is being made by another process, or we are no longer in it.
        "M_FORBIDDEN": Retryable("matrix_room_forbids", Blame.RECIPIENT),
        "M_NOT_FOUND": Retryable("matrix_room_gone", Blame.RECIPIENT),
        "M_TOO_LARGE": Rejected("matrix_too_large", Blame.CONTENT),
        "M_INVITE_BLOCKED": Rejected("matrix_invite_blocked", Blame.RECIPIENT),
        **{
            code: Rejected(code.lower().replace("m_", "matrix_", 1), Blame.ACCOUNT)
            for code in (
                "M_UNKNOWN_TOKEN",
                "M_MISSING_TOKEN",
                "M_USER_DEACTIVATED",
                "M_USER_LOCKED",
                "M_USER_SUSPENDED",
                "M_RESOURCE_LIMIT_EXCEEDED",
                "M_CONSENT_NOT_GIVEN",
                "M_EXCLUSIVE",
                "M_UNKNOWN_DEVICE",
                "M_UNRECOGNIZED",
            )
        },
    }

    def __init__(self, account: str, channel: Channel, settings: MatrixSettings) -> None:
        super().__init__(account, channel, settings)
        self._base = f"{settings.url.rstrip('/')}/_matrix/client/v3"
        self._user = settings.user
        self._server = settings.user.partition(":")[2]
        self._room_secret = settings.room_secret.get_secret_value().encode()
        self._bearer = b"Bearer " + settings.hs_token.get_secret_value().encode()
        self._device = ""
        if settings.device:  # Synapse wants to be told whose it is
            self._device = f"?user_id={_quoted(self._user)}&device_id={_quoted(settings.device)}"
        self._headers = {
            "Authorization": f"Bearer {settings.as_token.get_secret_value()}",
            "Content-Type": "application/json",
        }
        self._rooms: dict[str, tuple[str, float]] = {}
        self._rooms_lock = threading.Lock()

    def build(self, message: Message) -> HttpRequest:
        """Make the event, then find or make the room that it goes to."""
        body = message.body
        if not isinstance(body, ChatBody) or message.service not in {"", SERVICE}:
            raise TypeError("a chat message to somebody on Matrix is needed")
        if len(message.recipient) > 255 or not _USER.fullmatch(message.recipient):
            raise NotSent(Rejected("matrix_user_id", Blame.RECIPIENT))
        # Not m.notice, as bots otherwise use: clients let no notice ring.
        content = {"msgtype": "m.text", "body": body.text}
        if body.html:
            content |= {"format": "org.matrix.custom.html", "formatted_body": body.html}
        event = orjson.dumps(content)
        room = _quoted(self._room(message.recipient))
        transaction = _quoted(message.idempotency_key)
        path = f"rooms/{room}/send/m.room.message/{transaction}{self._device}"
        return self._request("PUT", path, event)

    def interpret(self, reply: HttpReply) -> Outcome:
        """Take the event id."""
        return Accepted(reply.identifier("event_id"))

    def code_of(self, reply: HttpReply, /) -> str | None:
        """Read `{"errcode": "M_LIMIT_EXCEEDED", "error": …}`."""
        return str(reply.json()["errcode"])

    def refused(self, reply: HttpReply) -> Outcome | None:
        """Read the code, and how long to wait (`retry_after_ms`; newer ones say Retry-After)."""
        if reply.status == 429 and "Retry-After" not in reply.headers:
            seconds = float(reply.json()["retry_after_ms"]) / 1000
            return RateLimited(min(max(seconds, 0.0), LONGEST_RETRY_AFTER), "matrix_too_fast")
        return super().refused(reply)

    def _room(self, user: str) -> str:
        """The customer's room, in which they are or to which they are invited."""
        with self._rooms_lock:
            room, until = self._rooms.get(user, ("", 0.0))
        began = time.monotonic()
        if began < until:
            return room
        digest = hmac.new(self._room_secret, f"{self.account}\0{user}".encode(), "sha256")
        name = f"converge_{digest.hexdigest()[:40]}"
        room = self._found(name, user) or self._made(name, user) or self._found(name, user)
        if not room:
            raise NotSent(Retryable("matrix_room_contended"))
        with self._rooms_lock:
            self._rooms.pop(user, None)
            self._rooms[user] = (room, began + ROOM_KNOWN_S)
            if len(self._rooms) > ROOMS_KNOWN:
                self._rooms.pop(next(iter(self._rooms)))
        return room

    def _found(self, name: str, user: str) -> str:
        """The room of this name, to which the customer is asked back if they left; or ""."""
        room = self._named(name)
        if not room:
            return ""
        path = f"rooms/{_quoted(room)}"
        if not self._in(path, user):
            invited = self._ask("POST", f"{path}/invite", {"user_id": user})
            # Forbidden is also who came in meanwhile.
            if self._code(invited) == "M_FORBIDDEN" and not self._in(path, user):
                raise NotSent(_INVITE_REFUSED)
            if invited.status != 200 and self._code(invited) != "M_FORBIDDEN":
                raise self.unwelcome(invited)
        return room

    def _named(self, name: str) -> str:
        """The room that has this name; "" if none has."""
        reply = self._ask("GET", f"directory/room/{_quoted(f'#{name}:{self._server}')}")
        return "" if self._code(reply) == "M_NOT_FOUND" else self._told(reply, "room_id")

    def _in(self, path: str, user: str) -> bool:
        """Whether somebody is in a room, or invited to it."""
        member = self._ask("GET", f"{path}/state/m.room.member/{_quoted(user)}")
        never = self._code(member) == "M_NOT_FOUND"
        return not never and self._told(member, "membership") in {"join", "invite"}

    def _made(self, name: str, user: str) -> str:
        """A new room of this name with the customer invited; "" if somebody was faster."""
        # Homeservers invite anybody: only a profile shows that there is such a person. One that
        # keeps profiles to itself says 403.
        profile = self._ask("GET", f"profile/{_quoted(user)}")
        if profile.status in {400, 404}:
            raise NotSent(Rejected("matrix_no_such_user", Blame.RECIPIENT))
        if profile.status not in {200, 403}:
            raise self.unwelcome(profile)
        made = self._ask("POST", "createRoom", {**_ROOM, "room_alias_name": name, "invite": [user]})
        code = self._code(made)
        if code == "M_ROOM_IN_USE" or made.status == 409:
            return ""
        if code == "M_FORBIDDEN" and self._named(name):
            # The room is made and named before anybody is invited to it.
            raise NotSent(_INVITE_REFUSED)
        if code == "M_FORBIDDEN":
            raise NotSent(Rejected("matrix_may_make_no_rooms", Blame.ACCOUNT))
        return self._told(made, "room_id")

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> HttpReply:
        body = b"" if document is None else orjson.dumps(document)
        return self.ask(self._request(method, path, body))

    def _request(self, method: str, path: str, body: bytes) -> HttpRequest:
        return HttpRequest(f"{self._base}/{path}", body, self._headers, method)

    def _code(self, reply: HttpReply) -> str | None:
        try:
            return self.code_of(reply) if reply.status >= 400 else None
        except (ValueError, TypeError, LookupError):
            return None

    def _told(self, reply: HttpReply, name: str) -> str:
        try:
            if reply.status == 200:
                return reply.identifier(name)
        except (ValueError, TypeError, LookupError):
            pass
        raise self.unwelcome(reply)

    def verify(self, request: HookRequest) -> None:
        """Check that the homeserver brings the token that it and we share."""
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, self._bearer):
            raise BadSignature("not the homeserver's token")

    def answer(self, _request: HookRequest) -> bytes:
        """What the homeserver wants to read: an empty object."""
        return b"{}"

    def read(self, request: HookRequest) -> list[Receipt | InboundMessage]:
        """Read a transaction."""
        return read_transaction(request.body, self._user, request.received_at)


def _quoted(part: str) -> str:
    return quote(part, safe="")
