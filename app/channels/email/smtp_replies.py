"""What an SMTP server's reply means for the message that it answers.

Sources: RFC 5321 4.2 (reply codes), RFC 3463 and the IANA registry of RFC 5248 (enhanced codes),
RFC 4954 section 6 (authentication), RFC 1870 (size), RFC 7504 (521, 556), RFC 7505 (null MX),
RFC 7293 (5.7.17-18) and RFC 7372 (5.7.20-26).
"""

import re
from enum import Enum
from typing import Final

from app.channels.contract import Blame, Outcome, Rejected, Retryable


class Step(Enum):
    """Which command of a transaction a reply answers; `BODY` is the final dot or `BDAT LAST`."""

    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"


_ENHANCED = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")

# First match wins: the basic code, the enhanced detail, the enhanced subject, the step.
_BY_CODE: Final = {
    521: Blame.ACCOUNT,  # this host takes no mail at all
    530: Blame.ACCOUNT,  # authentication or STARTTLS required
    534: Blame.ACCOUNT,  # mechanism too weak
    535: Blame.ACCOUNT,  # credentials invalid
    538: Blame.ACCOUNT,  # encryption required for the mechanism
    556: Blame.RECIPIENT,  # the domain takes no mail
}
_BY_DETAIL: Final = {
    "1.7": Blame.ACCOUNT,  # bad sender address syntax
    "1.8": Blame.ACCOUNT,  # bad sender system address
    "2.3": Blame.CONTENT,  # longer than the mailbox allows
    "3.4": Blame.CONTENT,  # longer than the system allows
    "7.2": Blame.RECIPIENT,  # list expansion prohibited
    "7.8": Blame.ACCOUNT,  # credentials invalid
    "7.9": Blame.ACCOUNT,  # mechanism too weak
    "7.11": Blame.ACCOUNT,  # encryption needed
    "7.13": Blame.ACCOUNT,  # the account that authenticated is disabled
    "7.14": Blame.ACCOUNT,  # trust relationship required
    "7.17": Blame.RECIPIENT,  # the mailbox has a new owner
    "7.18": Blame.RECIPIENT,  # the domain has a new owner
    "7.20": Blame.ACCOUNT,  # no passing DKIM signature
    "7.21": Blame.ACCOUNT,
    "7.22": Blame.ACCOUNT,
    "7.23": Blame.ACCOUNT,  # SPF
    "7.24": Blame.ACCOUNT,
    "7.25": Blame.ACCOUNT,  # reverse DNS
    "7.26": Blame.ACCOUNT,  # several authentication checks failed
    "7.27": Blame.ACCOUNT,  # the sender's domain has a null MX
}
_BY_SUBJECT: Final = {
    "1": Blame.RECIPIENT,  # addressing
    "2": Blame.RECIPIENT,  # mailbox
    "4": Blame.RECIPIENT,  # routing (Exchange Online says 5.4.1 for an unknown user)
    "6": Blame.CONTENT,  # content or media
}
_BY_STEP: Final = {
    Step.RSET: Blame.ACCOUNT,
    Step.MAIL: Blame.ACCOUNT,
    Step.RCPT: Blame.RECIPIENT,
    Step.DATA: Blame.CONTENT,
    Step.BODY: Blame.CONTENT,
}
# 5.7.1 and bare 550/554 before the body mean "this recipient" or "you"; only the text tells.
_ABOUT_US = re.compile(rb"relay|block|blacklist|denylist|reputation|authenticat|client host", re.I)

# What a passing refusal may say of a recipient: addressing, mailbox, routing. Without an enhanced
# code RFC 5321 tells: 450 is about the mailbox, 451 and 452 are about the server.
_RECIPIENT_LATER: Final = {"1", "2", "4"}
_BARE_LATER: Final = {450: "2"}
# Said with 4.7.1 by some: a policy, and yet of this recipient alone.
_GREYLISTED = re.compile(rb"gr[ae]y-?list", re.I)

# "queued as ID" (Postfix), "id=ID" (Exim), "ID Message accepted" (Sendmail), "Ok ID" (SES).
_QUEUE_ID = re.compile(
    rb"queued as ([\w.-]+)|\bid=([\w.-]+)|(\S{6,}) Message accepted"
    rb"|^(?:2\.\d\.\d )?Ok ([\w.-]{20,})",
    re.I,
)


def reason_of(code: int, text: bytes) -> str:
    """Name a reply as `smtp_550_5.1.1`, or `smtp_550` where it has no enhanced code."""
    found = _ENHANCED.match(text)
    return f"smtp_{code}_{found[0].decode()}" if found else f"smtp_{code}"


def refusal(step: Step, code: int, text: bytes) -> Outcome:
    """Turn a negative (or unexpected) reply into the outcome of its message."""
    reason = reason_of(code, text)
    if 500 <= code < 600:
        return Rejected(reason, _blame(step, code, text))
    return Retryable(reason, _blame_for_now(step, code, text))


def queue_id(text: bytes) -> str | None:
    """Find the server's own reference in the text of its final 250."""
    found = _QUEUE_ID.search(text)
    return found[found.lastindex or 0].decode("ascii", "replace") if found else None


def _blame_for_now(step: Step, code: int, text: bytes) -> Blame:
    """Whose fault a passing refusal is: ours, but where it is clearly this recipient's.

    A server that greylists, or that cannot reach somebody's domain, is well.
    """
    if step is not Step.RCPT or not 450 <= code <= 452:
        return Blame.ACCOUNT
    if _GREYLISTED.search(text):
        return Blame.RECIPIENT
    found = _ENHANCED.match(text)
    subject = found[2].decode() if found else _BARE_LATER.get(code)
    if subject not in _RECIPIENT_LATER or _ABOUT_US.search(text):
        return Blame.ACCOUNT
    return _blame(step, code, text)


def _blame(step: Step, code: int, text: bytes) -> Blame:
    if code in _BY_CODE:
        return _BY_CODE[code]
    before_body = step in {Step.MAIL, Step.RCPT}
    if code == 552 and step is not Step.RCPT:
        return Blame.CONTENT  # RFC 1870 6.1: larger than fits; at RCPT it is a full mailbox
    found = _ENHANCED.match(text)
    subject, detail = (found[2].decode(), found[3].decode()) if found else ("", "")
    if f"{subject}.{detail}" in _BY_DETAIL:
        return _BY_DETAIL[f"{subject}.{detail}"]
    if before_body and subject in {"", "7"} and _ABOUT_US.search(text):
        return Blame.ACCOUNT
    if step is Step.MAIL:
        return _BY_STEP[step]  # a 5.1.x here is about the sender's address
    return _BY_SUBJECT.get(subject, _BY_STEP[step])
