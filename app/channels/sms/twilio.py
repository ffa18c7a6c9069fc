"""Texts through Twilio's Messages API, its status callbacks, and what people text back.

Sources: twilio.com/docs/messaging/api/message-resource (sending, status values),
/docs/usage/webhooks/messaging-webhooks and /docs/messaging/guides/webhook-request (what comes
back), /docs/usage/webhooks/webhooks-security (signatures), /docs/api/errors (codes).

Twilio knows no idempotency key, so a request without a verdict stays `Ambiguous`. It gives no
time of its own with what it reports, and reports in any order: the time is that of the request.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final, Self
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator

from app.channels.contract import (
    Accepted,
    BadSignature,
    Blame,
    HookRequest,
    InboundMessage,
    Message,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Retryable,
    TextBody,
    Traits,
    UnreadableHook,
    Word,
)
from app.channels.http import (
    DEFAULT_RETRY_AFTER,
    HttpProvider,
    HttpReply,
    HttpRequest,
    outcome_of_status,
)
from app.channels.http_session import HttpSettings
from app.domain.vocabulary import Channel, EventType
from app.faults import WEB_FORM, WebAddress, fitting

SIGNATURE_HEADER: Final = "x-twilio-signature"
MOST_FIELDS: Final = 200
_PORTS: Final = {"https": 443, "http": 80}

# Not a number that can be texted: invalid (twice so), unreachable, no mobile, a landline, unknown
# to its carrier, a landline by its carrier's word.
_RECIPIENT: Final = ("21211", "21217", "21214", "21614", "21635", "30005", "30006")
_OPTED_OUT: Final = "21610"  # they texted STOP; Twilio sends them nothing until they text START
# Advanced Opt-Out: what Twilio took a text for, and has answered itself
# (twilio.com/docs/messaging/tutorials/advanced-opt-out).
_ANSWERED: Final = {"STOP": Word.STOP, "START": Word.START, "HELP": Word.HELP}
# About us: password, closed or suspended, no such account, an address for receipts that Twilio
# cannot call, no such messaging service or an empty one.
_ACCOUNT: Final = ("20003", "20005", "10001", "30002", "20404", "21609", "21701", "21704")
# This message in this way alone: region not enabled, no body, too long, a sender that does not
# serve this number, a trial account's unverified number, nobody in the service to send it, filtered
# by a carrier.
_CONTENT: Final = ("21408", "21602", "21617", "21606", "21612", "21660", "21608", "21703", "30007")
_TOO_FAST: Final = "20429"
_ON_ITS_WAY: Final = frozenset(
    {"accepted", "scheduled", "queued", "sending", "sent", "partially_delivered"}
)
_ARRIVED: Final = {"delivered": EventType.DELIVERED, "read": EventType.READ}
_CODE: Final = re.compile(r"[0-9]{1,6}")
_REFUSALS: Final = frozenset(range(400, 500)) - {409}
_NUMBER: Final = re.compile(r"/([0-9]{1,18})")
_GIVEN_UP: Final = frozenset({"undelivered", "failed", "canceled"})


_HEX: Final = "and 32 characters of 0-9 and a-f, as the console shows it"


class TwilioSettings(HttpSettings):
    """An account, whom its texts come from, and where Twilio reports to.

    `auth_token` signs what Twilio reports; while it is changed, both are given, separated by a
    comma, and the first one sends. With an API key (`api_key`, `api_secret`) that one sends
    instead. Left out, `from_number` is the sender's own; in a messaging service Twilio chooses.
    `public_url` is where Converge is reached from outside; "" asks for no receipts.
    """

    account_sid: Annotated[str, fitting(r"AC[0-9a-f]{32}", f"AC {_HEX}")]
    auth_token: SecretStr
    api_key: Annotated[str, fitting(r"SK[0-9a-f]{32}", f"SK {_HEX}")] | None = None
    api_secret: SecretStr | None = None
    from_number: str | None = Field(default=None, min_length=1)
    messaging_service: Annotated[str, fitting(r"MG[0-9a-f]{32}", f"MG {_HEX}")] | None = None
    public_url: Annotated[str, fitting(r"(https?://.+)?", f'{WEB_FORM}, or ""')]
    url: WebAddress = "https://api.twilio.com"

    @property
    def tokens(self) -> list[str]:
        """The tokens that may have signed a report."""
        return [one.strip() for one in self.auth_token.get_secret_value().split(",") if one.strip()]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.tokens:
            raise ValueError("auth_token is empty")
        if (self.api_key is None) != (self.api_secret is None):
            raise ValueError("api_key and api_secret go together")
        return self


class TwilioProvider(HttpProvider):
    """Sends texts, and reads reports and answers."""

    traits: ClassVar[Traits] = Traits(channels=frozenset({Channel.SMS}), receipts=True)
    Settings: ClassVar[type[BaseModel]] = TwilioSettings
    # 21611: the number's queue is full. 30003: a phone that is off, or out of reach.
    codes: ClassVar[Mapping[str, Outcome]] = {
        **{code: Rejected(f"twilio_{code}", Blame.RECIPIENT) for code in _RECIPIENT},
        _OPTED_OUT: Rejected(f"twilio_{_OPTED_OUT}", Blame.OPTED_OUT),
        **{code: Rejected(f"twilio_{code}", Blame.ACCOUNT) for code in _ACCOUNT},
        **{code: Rejected(f"twilio_{code}", Blame.CONTENT) for code in _CONTENT},
        "21611": RateLimited(60.0, "twilio_21611"),
        "30003": Retryable("twilio_30003", Blame.RECIPIENT),
        _TOO_FAST: RateLimited(DEFAULT_RETRY_AFTER, f"twilio_{_TOO_FAST}"),
    }

    def __init__(self, account: str, channel: Channel, settings: TwilioSettings) -> None:
        super().__init__(account, channel, settings)
        self._tokens = [token.encode() for token in settings.tokens]
        user, password = settings.account_sid, settings.tokens[0]
        if settings.api_key and settings.api_secret:
            user, password = settings.api_key, settings.api_secret.get_secret_value()
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {basic}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        base = settings.url.rstrip("/")
        self._url = f"{base}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        self._from = settings.from_number
        self._always: dict[str, str] = {}
        if settings.messaging_service:
            self._always["MessagingServiceSid"] = settings.messaging_service
        self._reports_to = ""
        if settings.public_url:
            self._reports_to = f"{settings.public_url.rstrip('/')}/hooks/{account}"

    def build(self, message: Message) -> HttpRequest:
        """Make the form of one text."""
        if not isinstance(message.body, TextBody):
            raise TypeError("a text is needed")
        form = {"To": message.recipient, "Body": message.body.text, **self._always}
        if self._from:
            form["From"] = self._from
        elif "MessagingServiceSid" not in form:
            form["From"] = message.sender
        if self._reports_to:
            # Whoever got no answer does not know the SID; the address is signed with the rest.
            form["StatusCallback"] = f"{self._reports_to}/{message.delivery_id}"
        return HttpRequest(self._url, urlencode(form).encode(), self._headers)

    def interpret(self, reply: HttpReply) -> Outcome:
        """Take the message's SID."""
        return Accepted(reply.identifier("sid"))

    def code_of(self, reply: HttpReply, /) -> str | None:
        """Read `{"code": 21610, "message": …}`."""
        return str(reply.json()["code"])

    def refused(self, reply: HttpReply) -> Outcome | None:
        """Read the code; of a 429 that says no more than that, Retry-After is minded.

        A code that is not known here is named all the same: Twilio's pages say what it means.
        """
        code = self.code_of(reply)
        if reply.status == 429 and code == _TOO_FAST:
            return None
        known = super().refused(reply)
        if known is None and code and _CODE.fullmatch(code) and reply.status in _REFUSALS:
            return outcome_of_status(reply.status, reply.headers, f"twilio_{code}")
        return known

    def verify(self, request: HookRequest) -> None:
        """Check X-Twilio-Signature under each token; raise `BadSignature`.

        What Twilio calls is what each text told it, so that address counts, too, where ours is
        known by another name. The signature covers no time: that a repeat is harmless is left to
        the inbox and to the ids.
        """
        given = request.headers.get(SIGNATURE_HEADER, "").encode()
        signed = _signed_part(request)
        # All are computed and compared, so that the time tells nothing.
        fits = [
            hmac.compare_digest(given, base64.b64encode(hmac.digest(token, text, hashlib.sha1)))
            for token in self._tokens
            for text in (f"{url}{signed}".encode() for url in self._called(request))
        ]
        if not any(fits):
            raise BadSignature("the signature does not match")

    def _called(self, request: HookRequest) -> Iterator[str]:
        """The URLs that Twilio may have called."""
        yield from _spellings(request.url)
        if self._reports_to:
            query = urlsplit(request.url).query
            yield from _spellings(f"{self._reports_to}{request.path}{query and f'?{query}'}")

    def read(self, request: HookRequest) -> list[Receipt | InboundMessage]:
        """Read a status callback or an incoming message; raise `UnreadableHook`."""
        try:
            form = dict(_fields(request.body))
            sid = form["MessageSid"]
            if not sid:
                raise UnreadableHook("MessageSid is empty")
            if "MessageStatus" in form or _NUMBER.fullmatch(request.path):
                return _receipts(form, sid, request)
            inbound = InboundMessage(
                external_id=sid,
                sender=form["From"],
                recipient=form["To"],
                text=form["Body"],
                at=request.received_at,
                ref=form.get("OriginalRepliedMessageSid") or None,
                answered=_ANSWERED.get(form.get("OptOutType", "")),
            )
        except KeyError as error:
            raise UnreadableHook(f"no {error.args[0]}") from error
        except ValueError as error:
            raise UnreadableHook("not a form") from error
        return [inbound]


def _receipts(
    form: Mapping[str, str], sid: str, request: HookRequest
) -> list[Receipt | InboundMessage]:
    status = form["MessageStatus"]
    number = _NUMBER.fullmatch(request.path)
    delivery_id = int(number[1]) if number else None
    if status in _ON_ITS_WAY:
        # Of a text whose request had no answer this is the first, and often the last, that is told.
        taken = Receipt(
            f"{sid}:{status}", sid, EventType.ACCEPTED, request.received_at, delivery_id=delivery_id
        )
        return [] if delivery_id is None else [taken]
    code = form.get("ErrorCode", "")
    reason = f"twilio_{code}" if code.isascii() and code.isdigit() else f"twilio_{status}"
    event = _ARRIVED.get(status)
    if status in _GIVEN_UP:
        event = EventType.BOUNCED if code in _RECIPIENT else EventType.FAILED
    if event is None:
        raise UnreadableHook("a MessageStatus that is not known")
    detail = {"reason": reason} if status in _GIVEN_UP else {}
    opted_out = status in _GIVEN_UP and code == _OPTED_OUT
    return [
        Receipt(
            f"{sid}:{status}",
            sid,
            event,
            request.received_at,
            detail,
            opted_out=opted_out,
            delivery_id=delivery_id,
        )
    ]


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS
    )


def _signed_part(request: HookRequest) -> str:
    """What is signed after the URL: the fields by name; none of a body whose hash is in the URL."""
    hashes = parse_qs(urlsplit(request.url).query).get("bodySHA256")
    if hashes:
        found = hashlib.sha256(request.body).hexdigest()
        if not hmac.compare_digest(hashes[0].lower().encode(), found.encode()):
            raise BadSignature("the body is not the one that was signed")
        return ""
    try:
        fields = sorted(set(_fields(request.body)))
    except ValueError as error:
        raise BadSignature("not a form") from error
    return "".join(name + value for name, value in fields)


def _spellings(url: str) -> Iterator[str]:
    """The URL with and without its port: Twilio is not of one mind on which one it signs."""
    yield url
    parts = urlsplit(url)
    host = parts.netloc
    named = f":{parts.port or _PORTS.get(parts.scheme)}"
    other = host.removesuffix(named) if parts.port else host + named
    yield parts._replace(netloc=other).geturl()
