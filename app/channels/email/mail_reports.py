"""Mail that comes back, as facts: bounces (RFC 3464, internationalised RFC 6533) and complaints
(ARF, RFC 5965).

Python's own parser reads both forms; what is ours is what they mean. Which message a report is
about is told by the token that each of ours carries in its headers and, with `return_path`, in its
envelope: many reports name no address, or a forwarded one, and anybody can name any.

A bounce marks the address only where it is permanent and about the address: a full mailbox, a
deferral and a judgement about spam say nothing of it. A notice of delay is no bounce.
"""

import re
from base64 import b64decode
from binascii import a2b_qp
from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes, message_from_string, policy
from email.message import Message
from email.utils import parseaddr
from hashlib import blake2b
from typing import Final

from app.channels.contract import Blame, Receipt, Rejected, UnreadableHook
from app.channels.email.smtp_replies import Step, refusal
from app.domain.vocabulary import EventType

FIRST_BYTES: Final = 1_000_000
"""Of a longer mail no more is looked at where what counts begins in the first half of this."""
_COUNTS: Final = re.compile(
    rb"^Content-Type:\s*message/(?:(?:global-)?delivery-status|feedback-report)", re.I | re.M
)
MOST_RECIPIENTS: Final = 20
MOST_PARTS: Final = 50

_GLOBAL_STATUS: Final = "message/global-delivery-status"
_STATUSES: Final = ("message/delivery-status", _GLOBAL_STATUS)
_RETURNED: Final = ("message/global-headers", "message/global")
_BLANK: Final = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")
_COMMENT: Final = re.compile(r"\([^()]*\)")
_ACTION: Final = re.compile(r"[A-Za-z-]+")
_ESCAPED: Final = re.compile(r"\\x\{((?:10|[1-9A-F])?[0-9A-F]{2,4})\}", re.I)
# A token of ours for a delivery: its purpose's letter, then a number that is far from full. One
# whose capitals a server made small is none; another place in the mail may still have it whole.
_TOKEN: Final = rb"((?-i:dA)[A-Za-z0-9_-]{34})"
_TRACES: Final = (
    re.compile(rb"^[> \t]*X-Converge-Delivery:\s*" + _TOKEN + rb"\s*$", re.I | re.M),
    re.compile(rb"^[> \t]*(?:X-)?(?:Original-)?Message-ID:\s*<" + _TOKEN + rb"@", re.I | re.M),
    re.compile(rb"\+" + _TOKEN + rb"@"),
    re.compile(rb"^(?:In-Reply-To|References):\s*<" + _TOKEN + rb"@", re.I | re.M),
)
_STATUS: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CODE: Final = re.compile(r"\b([45])\d\d[ -]")
_NOBODY: Final = re.compile(
    r"user unknown|unknown user|unknown recipient|no such (?:user|mailbox|recipient|address|person)"
    r"|no mailbox here|does ?n[o']t exist|mailbox (?:not found|unavailable|disabled)"
    r"|invalid (?:recipient|mailbox)|account (?:is |has been )?(?:disabled|closed)"
    r"|(?:address|user|recipient) not found|not a valid (?:user|mailbox)",
    re.I,
)
_FULL: Final = re.compile(
    r"quota|mailbox (?:is )?full|insufficient (?:disk )?(?:space|storage)", re.I
)
_UNWANTED: Final = re.compile(r"spam|block|blacklist|denylist|reputation|policy|dmarc|virus", re.I)
_DELAYED: Final = re.compile(
    r"delayed|still (?:being )?(?:trying|retried)|will (?:continue|keep|be retried)|warning message"
    r"|do not need to resend",
    re.I,
)
# Expired while it was retried, and loops: about the way, not about the address.
_ABOUT_THE_WAY: Final = frozenset({"4.6", "4.7"})
_NO_COMPLAINT: Final = frozenset({"not-spam", "auth-failure", "virus"})
_DAEMONS: Final = re.compile(r"(?:mailer-daemon|postmaster|mail-daemon)@?", re.I)


def read_report(raw: bytes, received_at: datetime) -> list[Receipt]:
    """Read a mail; raise `UnreadableHook` for one that is no report.

    What reports nothing that changes anything (a delay, an automatic reply) is an empty list.
    """
    if _COUNTS.search(raw, 0, FIRST_BYTES // 2):
        raw = raw[:FIRST_BYTES]
    mail = message_from_bytes(raw, policy=policy.compat32)
    if not mail.keys():
        raise UnreadableHook("not a mail")
    parts = _parts(mail)
    traced = next(filter(None, map(_traced, (raw, *_hidden(parts)))), "")
    about = _About(raw, traced, received_at)
    report = _parameter(mail, "report-type")
    if report == "feedback-report":
        return _complaint(parts, about)
    if report == "disposition-notification":
        return []
    for name in _STATUSES:
        if name in parts:
            return list(_bounces(parts[name], about))
    if _from_a_daemon(mail):
        return _plain_bounce(mail, parts, about)
    if _automatic(mail):
        return []
    raise UnreadableHook("neither a bounce nor a complaint")


class _About:
    """What all facts of one mail share."""

    def __init__(self, raw: bytes, trace: str, at: datetime) -> None:
        self._name = trace or blake2b(raw, digest_size=16).hexdigest()
        self._trace = trace
        self._at = at

    def receipt(self, event: EventType, reason: str, recipient: str) -> Receipt:
        """A fact of it; raise `UnreadableHook` where nothing says what it is about."""
        if not self._trace and not recipient:
            raise UnreadableHook("a report that names no message of ours and no address")
        return Receipt(
            external_id=f"{self._name}:{recipient[:200]}:{event.value}:{reason}",
            ref="",
            event=event,
            at=self._at,
            detail={"reason": reason},
            trace=self._trace,
            recipient=recipient,
        )


def _traced(raw: bytes) -> str:
    return next((found[1].decode() for each in _TRACES if (found := each.search(raw))), "")


def _hidden(parts: dict[str, Message]) -> Iterator[bytes]:
    """What is encoded of the message that came back: of `message` types, RFC 6533's alone are."""
    for name in _RETURNED:
        if name in parts and _encoding(parts[name]):
            yield _decoded(parts[name])


def _encoding(part: Message) -> str:
    """The encoding that is to be undone."""
    named = _field(part, "Content-Transfer-Encoding").lower()
    return named if named in {"base64", "quoted-printable"} else ""


def _as_it_came(mail: Message) -> bytes:
    """A parsed part as it was, but for the ends of its lines; Python's own way minds its form."""
    body = mail.get_payload(decode=True)
    lines = "".join(f"{name}: {value}\n" for name, value in mail.raw_items())
    head = lines.encode(errors="surrogateescape")
    return head + b"\n" + (body if isinstance(body, bytes) else b"")


def _decoded(part: Message) -> bytes:
    """A `message/global-…` part as bytes, which the parser took for a mail."""
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else None
    raw = _as_it_came(inner) if isinstance(inner, Message) else b""
    match _encoding(part):
        case "base64":
            signs = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
            return b64decode(signs[: len(signs) - (len(signs) % 4 == 1)] + b"==")
        case "quoted-printable":
            return a2b_qp(raw)
    return raw


def _parts(mail: Message, depth: int = 3) -> dict[str, Message]:
    """The parts of a mail by type, the first of each, and not those of what it returns."""
    payload = mail.get_payload()
    if not isinstance(payload, list):
        return {mail.get_content_type(): mail}
    found: dict[str, Message] = {}
    for part in payload[:MOST_PARTS]:
        if isinstance(part, Message):
            found.setdefault(part.get_content_type(), part)
            if depth and part.get_content_maintype() == "multipart":
                found = {**_parts(part, depth - 1), **found}
    return found


def _blocks(part: Message) -> list[Message]:
    """The groups of fields that a part of a report consists of."""
    if part.get_content_type() == _GLOBAL_STATUS:
        text = _decoded(part).decode(errors="replace")
        return [message_from_string(block) for block in _BLANK.split(text.strip())[:MOST_PARTS]]
    payload = part.get_payload()
    blocks = payload if isinstance(payload, list) else []
    return [one for one in blocks if isinstance(one, Message)]


def _bounces(part: Message, about: _About) -> Iterator[Receipt]:
    blocks = [block for block in _blocks(part) if block["Final-Recipient"] or block["Action"]]
    if not blocks:
        raise UnreadableHook("a delivery status without recipients")
    for block in blocks[:MOST_RECIPIENTS]:
        word = _ACTION.search(_COMMENT.sub("", _field(block, "Action")))
        action = word[0].lower() if word else ""
        told = _meaning(action, _field(block, "Status"), _field(block, "Diagnostic-Code"))
        if told is not None:
            recipient = _address(block, "Original-Recipient") or _address(block, "Final-Recipient")
            yield about.receipt(*told, recipient)


def _meaning(action: str, status: str, diagnostic: str) -> tuple[EventType, str] | None:
    """What a recipient's fields say: the event and its reason, or nothing."""
    if action == "delivered":
        return EventType.DELIVERED, "dsn_delivered"
    if action not in {"failed", ""}:
        return None  # delayed, relayed, expanded: it is on its way
    found = _STATUS.search(status)
    if found is None or found[0].endswith(".0.0"):
        found = _STATUS.search(diagnostic) or found  # "5.0.0" says that somebody did not look
    reason = f"dsn_{found[0]}" if found else "dsn_failed"
    if found is None and not action:
        return None
    lasting = found[1] == "5" if found else _CODE.search(diagnostic) is not None
    event = EventType.BOUNCED if lasting and _of_address(found, diagnostic) else EventType.FAILED
    return event, reason


def _of_address(found: re.Match[str] | None, text: str) -> bool:
    """Whether a permanent failure is about the address."""
    if _FULL.search(text):
        return False
    if _NOBODY.search(text):
        return True
    subject, detail = (found[2], found[3]) if found else ("0", "0")
    if f"{subject}.{detail}" in _ABOUT_THE_WAY | {"2.2"}:
        return False
    if subject == "0":
        return not _UNWANTED.search(text)
    # As if it had been said at once. Of policy (7) there is no telling at which step it was.
    step = Step.BODY if subject == "7" else Step.RCPT
    outcome = refusal(step, 550, f"5.{subject}.{detail} ".encode())
    return isinstance(outcome, Rejected) and outcome.blame is Blame.RECIPIENT


def _complaint(parts: dict[str, Message], about: _About) -> list[Receipt]:
    part = parts.get("message/feedback-report")
    blocks = _blocks(part) if part is not None else []
    if not blocks:
        raise UnreadableHook("a feedback report without its fields")
    kind = _field(blocks[0], "Feedback-Type").lower()
    if kind in _NO_COMPLAINT:
        return []
    safe = kind if re.fullmatch(r"[a-z-]{1,30}", kind) else "unknown"
    recipient = _address(blocks[0], "Original-Rcpt-To") or _address(blocks[0], "Removal-Recipient")
    return [about.receipt(EventType.COMPLAINED, f"arf_{safe}", recipient)]


def _plain_bounce(mail: Message, parts: dict[str, Message], about: _About) -> list[Receipt]:
    """A bounce in prose, as qmail and Exim write them: only its words say what happened."""
    part = parts.get("text/plain")
    payload = part.get_payload(decode=True) if part is not None else b""
    text = payload[:5_000].decode(errors="replace") if isinstance(payload, bytes) else ""
    text = f"{_field(mail, 'Subject')}\n{text}"
    if _DELAYED.search(text):
        return []
    found = _STATUS.search(text)
    code = _CODE.search(text)
    if found is None and code is None and not _NOBODY.search(text):
        raise UnreadableHook("a bounce that does not say why")
    status = found[0] if found else f"{code[1]}.0.0" if code else "5.1.1"
    recipient = _field(mail, "X-Failed-Recipients").partition(",")[0].strip()
    told = _meaning("failed", status, text)
    return [about.receipt(*told, recipient)] if told else []


def _from_a_daemon(mail: Message) -> bool:
    _, address = parseaddr(_field(mail, "From"))
    return "X-Failed-Recipients" in mail or _DAEMONS.match(address) is not None


def _automatic(mail: Message) -> bool:
    """Whether no person wrote it (RFC 3834, and what was used before it)."""
    return (
        _field(mail, "Auto-Submitted").lower() not in {"", "no"}
        or "X-Autoreply" in mail
        or "X-Autorespond" in mail
        or _field(mail, "Precedence").lower() in {"bulk", "junk", "auto_reply", "list"}
    )


def _field(block: Message, name: str) -> str:
    value = block.get(name)
    return "" if value is None else " ".join(str(value).split())


def _parameter(mail: Message, name: str) -> str:
    return str(mail.get_param(name) or "").lower()


def _address(block: Message, name: str) -> str:
    """An address as endpoints have it: `rfc822; <Ada@EXAMPLE.com>` is `Ada@example.com`.

    What `utf-8;` cannot say as it is, it says as `\\x{F6}` (RFC 6533, 3).
    """
    value = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), _field(block, name))
    local, _, domain = value.rpartition(";")[2].strip(" <>").rpartition("@")
    return f"{local}@{domain.lower()}" if local and domain and len(value) < 400 else ""
