"""What a Matrix homeserver pushes to an application service, as facts.

Source: spec.matrix.org, application service API (PUT /_matrix/app/v1/transactions/{txnId}) and
client-server API (m.room.message, m.receipt, rich replies, threads). Events are written by
anybody on any server: one that is out of shape is passed over, and the others are read.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.channels.contract import InboundMessage, Receipt, UnreadableHook
from app.domain.vocabulary import EventType

SERVICE: Final = "matrix"
_EVENT_ID: Final = re.compile(r"\$[!-~]{1,254}")
_QUOTED: Final = re.compile(r"\A(?:> .*\n)+\n?")  # how clients repeat what they answer


def read_transaction(body: bytes, us: str, received_at: datetime) -> list[Receipt | InboundMessage]:
    """Read what others than `us`, our user id, wrote and read; raise `UnreadableHook`.

    Nothing is told to have been later than `received_at`.
    """
    try:
        transaction: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableHook(f"cannot be read as JSON: {error.msg}") from error
    if not isinstance(transaction, dict):
        raise UnreadableHook("not an object")
    events = transaction.get("events", [])  # a ping has none
    # The second is what homeservers said before the first was agreed on; some say both.
    passing = transaction.get("ephemeral", transaction.get("de.sorunome.msc2409.ephemeral", []))
    if not isinstance(events, list) or not isinstance(passing, list):
        raise UnreadableHook("events are not a list")
    told: list[Receipt | InboundMessage] = []
    for event in events:
        told += _messages(event, us, received_at)
    for event in passing:
        told += _receipts(event, us, received_at)
    return told


def _messages(event: Any, us: str, latest: datetime) -> Iterator[InboundMessage]:
    match event:
        case {
            "type": "m.room.message",
            "event_id": str(event_id),
            "sender": str(sender),
            "content": {"msgtype": str(kind), "body": str(body), **content},
        } if kind != "m.notice" and sender != us and _EVENT_ID.fullmatch(event_id):
            text, ref = _said(body, content)
            yield InboundMessage(
                external_id=event_id,
                sender=sender,
                recipient=us,
                text=text,
                at=_time(event.get("origin_server_ts"), latest),
                service=SERVICE,
                ref=ref if ref and _EVENT_ID.fullmatch(ref) else None,
            )


def _said(body: str, content: object) -> tuple[str, str | None]:
    """What was said, and the event that it answers."""
    match content:
        case {"m.relates_to": {"rel_type": "m.replace"}, "m.new_content": {"body": str(text)}}:
            return text, None
        # Within a thread, clients name its last message for those that know no threads.
        case {
            "m.relates_to": {"rel_type": "m.thread", "is_falling_back": True, "event_id": str(ref)}
        }:
            return body, ref
        case {"m.relates_to": {"m.in_reply_to": {"event_id": str(ref)}}}:
            return _QUOTED.sub("", body, count=1), ref
    return body, None


def _receipts(event: Any, us: str, latest: datetime) -> Iterator[Receipt]:
    match event:
        case {"type": "m.receipt", "content": dict(by_event)}:
            for event_id, kinds in by_event.items():
                match kinds:
                    case {"m.read": dict(readers)} if _EVENT_ID.fullmatch(event_id):
                        for reader, read in readers.items():
                            if reader != us and isinstance(read, dict):
                                yield _receipt(event_id, reader, read, latest)


def _receipt(event_id: str, reader: str, read: dict[str, Any], latest: datetime) -> Receipt:
    # Of a thread alone, it says nothing of what was written beside the thread.
    everything = read.get("thread_id", "main") == "main"
    return Receipt(
        external_id=f"{event_id}:read",
        ref=event_id,
        event=EventType.READ,
        at=_time(read.get("ts"), latest),
        read_up_to=everything,
        recipient=reader,
    )


def _time(milliseconds: Any, latest: datetime) -> datetime:
    try:
        return min(datetime.fromtimestamp(milliseconds / 1000, UTC), latest)
    except (TypeError, ValueError, OverflowError, OSError):
        return latest
