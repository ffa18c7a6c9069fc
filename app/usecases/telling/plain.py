"""Plain words for every code of ours: reasons, ends, sources of statements, outcomes, events.

Sentences that people read are made of these. What a provider says (`smtp_550_5.1.1`) is its own
code and stays as it is, in parentheses. Times are in UTC, and say so.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from app.domain.consent import Ground
from app.domain.decision import Preferred, Reason
from app.domain.selection import Left
from app.domain.vocabulary import Channel, EventType, IntentState, Source

BY: Final[Mapping[str, str]] = {
    Channel.EMAIL: "by email",
    Channel.SMS: "by SMS",
    Channel.CHAT: "by chat",
    Channel.SOCIAL: "by social message",
}
SOURCES: Final[Mapping[str, str]] = {
    Source.PREFERENCES: "in the preference centre",
    Source.ONE_CLICK: "by the unsubscribe link of a mail",
    Source.TEXT: "in a message to us",
    Source.PROVIDER: "through the network, which keeps messages from them at their wish",
    Source.COMPLAINT: "by reporting a message as unwanted",
    Source.BOUNCE: "through the mail system, which sent a message back",
    Source.API: "over the API",
    Source.CLI: "over the command line",
    Source.IMPORT: "in an import",
    Source.ANSWER: "for the one answer that the law allows",
}
"""Goes on from "the customer said no" or "the customer said yes"."""
_LEFT: Final[Mapping[str, str]] = {
    Reason.NO_ENDPOINT: "no address is known",
    Reason.PAUSED: "it is paused",
    Reason.UNHEALTHY: "no account can send it now",
    Reason.NO_ACCOUNT: (
        "no account is declared for it (live messages never go to those of the sandbox, nor test "
        "messages elsewhere); add one to providers.toml"
    ),
    Reason.SERVICE_NOT_SERVED: "no account reaches the service of the address",
    Reason.LOWER_SCORE: "another way of this step comes first",
    Reason.OVER: "no address is left that was not tried",
    Reason.CHOSEN: "it can be used",
}
PREFERRED: Final[Mapping[str, str]] = {
    Preferred.ACTIVE: "where the customer was active a moment ago",
    Preferred.WISHED: "as the customer wishes",
}
_BARS_IN_SHORT: Final[Mapping[str, str]] = {
    Reason.NO_CONSENT: "the customer does not allow it",
    Reason.MUTED_SENDER: "the customer muted the sender",
    Reason.QUIET: "these were quiet hours",
    Reason.CAPPED: "the customer had got as much as a cap allows",
}
_DROPPED: Final = "dropped_"
_ENDS: Final[Mapping[str, str]] = {
    **_BARS_IN_SHORT,
    **{
        f"{_DROPPED}{reason}": f"{words}, and it was to be dropped then"
        for reason, words in _BARS_IN_SHORT.items()
    },
    "expires_at": "its time is up",
    "unseen_after_the_last_step": "its last step was taken, and nobody saw it in time",
    "nothing_can_still_come": "nothing is left that could be tried",
    "unreachable": "no address of the customer can be reached",
    "cancelled": "somebody asked for it",
    "replaced": "a newer message took its place",
    "customer_removed": "the customer was removed",
    "seen": "it was seen",
}
STATES: Final[Mapping[str, str]] = {
    IntentState.OPEN: "still open",
    IntentState.SEEN: "seen",
    IntentState.EXHAUSTED: "ended without being seen",
    IntentState.EXPIRED: "expired before it was seen",
    IntentState.CANCELLED: "cancelled",
}
OUTCOMES: Final[Mapping[str, str]] = {
    "accepted": "took it",
    "retryable": "did not take it; it may be tried again",
    "rate_limited": "asked for a slower pace",
    "rejected": "refused it",
    "ambiguous": "gave no verdict; it may or may not have gone out",
}
EVENTS: Final[Mapping[str, str]] = {
    EventType.ACCEPTED: "Its provider has it",
    EventType.DELIVERED: "It arrived",
    EventType.OPENED_BY_MACHINE: "A machine fetched it, which does not count as seen",
    EventType.OPENED: "It was opened",
    EventType.CLICKED: "A link in it was followed",
    EventType.READ: "It was read",
    EventType.REPLIED: "It was answered",
    EventType.BOUNCED: "It came back",
    EventType.FAILED: "It was taken, and could not be delivered",
    EventType.COMPLAINED: "It was reported as unwanted",
    EventType.UNSUBSCRIBED: "The customer unsubscribed",
}
ACCOUNTS_LEFT: Final[Mapping[str, str]] = {
    Left.UNHEALTHY: "resting after failures",
    Left.PAUSED: "paused",
    Left.FAILED: "had just failed",
}
# Why a delivery stands where it stands, or what is behind an attempt or an event. What is not here
# is a provider's own code.
_CODES: Final[Mapping[str, str]] = {
    **_BARS_IN_SHORT,
    Reason.UNHEALTHY: "all accounts of its channel rested",
    "service_not_served": "its account does not reach the address's service",
    "account_gone": "its account is not configured any more",
    "lease_ended": "its worker was not heard of again",
    "no_verdict": "no verdict came",
    "put_back": "something kept its worker from trying it",
    "provider_fault": "a fault of ours cost its verdict; it is in our log",
    "render_fault": "a fault of ours kept it from being written; it is in our log",
    "killed_its_worker": "it ended three workers",
    "rate_limit": "the account's rate limit is used up",
    "rate_limited": "too fast for it",
    "expires_at": "its time was up",
    "endpoint_removed": "the address was removed",
    "endpoint_invalid": "the address takes nothing any more",
    "body_not_email": "it is not a valid email body",
    "body_too_big": "it is longer than its provider takes",
    "sender_address_invalid": "the sender's address cannot be used",
    "recipient_address_invalid": "the address cannot be used",
    "person": "",
    "mail_proxy": "fetched by the mail program's proxy",
    "method": "a HEAD request, not a page view",
    "no_user_agent": "by a program without a name",
    "apple_prefetch": "Apple's mail privacy fetches everything",
    "gmail_prefetch": "Gmail fetches ahead",
    "scanner": "by a security scanner",
    "scanner_network": "from the network of a security scanner",
    "prefetch_network": "from a network that fetches everything",
    "burst": "many of its links were followed at once",
    "content_gone": "its text is no longer kept",
    "robot": "by a robot",
    "too_early": "too soon after it was handed over for a person",
    **{f"intent_{state}": f"the intent was {words}" for state, words in STATES.items()},
}


def when(at: datetime) -> str:
    """A time in a sentence: to the minute, or to the second where it is not a whole one."""
    shown = at.astimezone(UTC)
    form = "%Y-%m-%d %H:%M:%S UTC" if shown.second else "%Y-%m-%d %H:%M UTC"
    return shown.strftime(form)


def span(seconds: float) -> str:
    """A length of time: `45 s`, `30 min`, `2 h`, `3 d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:g} s"


def by(channel: str) -> str:
    """`by email`."""
    return BY.get(channel, f"by {channel}")


def named(channel: str) -> str:
    """A channel as a noun in a sentence: `email`, `SMS`."""
    return "SMS" if channel == Channel.SMS else channel


def left(why: str, told: str | None = None, until: datetime | None = None) -> str:
    """Why a channel was left: by what, and until when."""
    ends = f" until {when(until)}" if until is not None else ""
    match why:
        case Reason.NO_CONSENT if told == Ground.NO_YES:
            return "the customer has not said yes to marketing or to this topic"
        case Reason.NO_CONSENT:
            return f"the customer said no {_source(told)}{',' + ends if ends else ''}".rstrip()
        case Reason.MUTED_SENDER:
            muted = f"the customer muted this sender {_source(told)}".rstrip()
            return f"{muted},{ends}" if ends else f"{muted}, for good"
        case Reason.QUIET:
            clock = f", by the clock of {told}" if told not in (None, "", "quiet_hours") else ""
            return f"it is in quiet hours{ends}{clock}"
        case Reason.CAPPED:
            return f'the cap "{told}" is used up{ends}' if told else f"a cap is used up{ends}"
    return _LEFT.get(why, words(why))


def end(reason: str | None) -> str:
    """Why an intent ended, or is to end."""
    return _ENDS.get(reason or "", words(reason)) if reason else "no reason was given"


def because(code: str | None) -> str:
    """What stands behind something, in parentheses and after a space; nothing where nothing does.

    A code of a provider's stays as it is.
    """
    if not code:
        return ""
    if code.startswith("content_"):
        told = f"its {words(code.removeprefix('content_'))} cannot be said in this form"
    else:
        told = _CODES.get(code, code)
    return f" ({told})" if told else ""


def scope(names: Mapping[str, Any]) -> str:
    """What a statement speaks of: `marketing messages about orders from store by SMS`."""
    parts = [
        names["kind"] or "",
        "messages",
        f"about {names['topic']}" if names["topic"] else "",
        f"from {names['sender']}" if names["sender"] else "",
        by(names["channel"]) if names["channel"] else "",
        f"to {names['address']}" if names["address"] else "",
    ]
    told = " ".join(part for part in parts if part)
    return "all messages" if told == "messages" else told


def statement(one: Mapping[str, Any]) -> str:
    """One statement of consent, as a sentence."""
    until = f" until {when(one['until'])}" if one["until"] else ""
    if one["by"] == "law":
        return f"The law allows one answer: {scope(one['scope'])}{until}."
    source = _source(one["source"])
    said = "allowed" if one["allow"] else "forbade"
    who = "The customer" if one["by"] == "customer" else "The brand noted that the customer"
    return f"{who} {said} {scope(one['scope'])}{until}, {source}."


def listed(parts: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    *others, end_of_it = parts
    return f"{', '.join(others)} {last} {end_of_it}" if others else end_of_it


def words(code: str | None) -> str:
    """A code of which no words are known, without its underscores."""
    return (code or "").replace("_", " ")


def _source(told: str | None) -> str:
    return SOURCES.get(told or "", f"({words(told)})" if told else "")
