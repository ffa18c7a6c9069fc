"""Facts: what lies in the inbox, told as facts about deliveries.

Reading decides nothing: what a fact does is `feedback`'s.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from app.channels.contract import (
    LONGEST_NAME,
    HookRequest,
    InboundMessage,
    Receipt,
    UnreadableHook,
    WebhookReader,
)
from app.domain.opt_words import Said, Word, read_words
from app.domain.tokens import BadToken, ExpiredToken, Purpose
from app.domain.vocabulary import EventType
from app.store import events
from app.store.events import Spoken
from app.store.inbound import keep_inbound
from app.store.inbox import TRACKING, Received
from app.store.optouts import close_gates
from app.usecases.consent.noes import Way
from app.usecases.hearing.fetches import judge
from app.usecases.hearing.heard import Heard, concerned
from app.usecases.hearing.hooks import PATH
from app.usecases.hearing.reading import Fact, Reading
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

OVERTAKEN_TRIES = 5
"""So often, over half a minute, what may be about somebody else's message waits for ours."""
ANSWERS_WITHIN = timedelta(days=7)
"""How long after its hand-over a message may be what somebody answers without saying so."""


def read_facts(
    runtime: Runtime, connection: Connection, received: Sequence[Received], *, words: bool = True
) -> Reading:
    """Read a batch of the inbox, and keep the messages that are in it; without `words`, what holds
    one such as STOP is left for later."""
    reading = Reading()
    readers = _readers(runtime, {one.source for one in received})
    _tracked(runtime, connection, [one for one in received if one.source == TRACKING], reading)
    receipts: dict[str, list[tuple[Received, Receipt]]] = defaultdict(list)
    messages: list[tuple[Received, InboundMessage]] = []
    for one in received:
        if one.source == TRACKING:
            continue
        reader = readers.get(one.source)
        if reader is None:
            # In another process it may be configured, or in a moment.
            reading.not_yet(one, "no account of this name reads webhooks here")
            continue
        told = _interpret(reader, one, reading)
        written = [each for each in told if isinstance(each, InboundMessage)]
        if not words and any(map(_said, written)):
            reading.unread.pop(one.id, None)
            reading.later.append(one.id)
            continue
        messages += ((one, each) for each in written)
        receipts[one.source] += ((one, each) for each in told if isinstance(each, Receipt))
    for account, pairs in receipts.items():
        if pairs:
            _reported(runtime, connection, account, pairs, reading)
    if messages:
        _answered(runtime, connection, messages, reading)
    return reading


def _tracked(
    runtime: Runtime, connection: Connection, received: Sequence[Received], reading: Reading
) -> None:
    """Fetches of our own pixels and links."""
    if not received:
        return
    for one, fetch, delivery, verdict in judge(runtime, connection, received):
        if delivery is None:
            reading.never(one, "no such delivery")
            continue
        name = f"{delivery.id}:{fetch.event.value}:{fetch.index}:{verdict.event.value}"
        reading.facts.append(
            Fact(TRACKING, name, delivery, verdict.event, one.received_at, verdict.reason)
        )


def _readers(runtime: Runtime, sources: Iterable[str]) -> dict[str, WebhookReader]:
    """The providers that read what came in, by account; asked once, as asking is slow."""
    known = {name: runtime.accounts[name].reader for name in sources if name in runtime.accounts}
    return {name: found for name, found in known.items() if found is not None}


def _interpret(
    reader: WebhookReader, one: Received, reading: Reading
) -> list[Receipt | InboundMessage]:
    """What one webhook tells; what cannot be read in it is noted with the reason."""
    request = HookRequest(
        body=one.body,
        headers=one.headers,
        url="",
        received_at=one.received_at,
        path=one.headers.get(PATH, ""),
    )
    told: list[Receipt | InboundMessage] = []
    try:
        for each in reader.read(request):
            at = _in_time(each.at, one.received_at)
            if at is None:
                reading.never(one, "a time that is none")
            elif not _storable(each):
                reading.never(one, "an id or address is empty, too long or no plain text")
            else:
                told.append(replace(each, at=at))
    except UnreadableHook as problem:
        reading.never(one, str(problem))
    except Exception as bug:  # noqa: BLE001  # one body never holds up all others
        _log.error("hook_not_read", account=one.source, inbox=one.id, kind=type(bug).__name__)
        reading.never(one, "reading it failed")
    return told


def _in_time(at: datetime, latest: datetime) -> datetime | None:
    """A moment as the ledger keeps it: in UTC, as it takes no offset of 16 hours, and not in the
    future; None for what is no moment."""
    try:
        return min(at, latest).astimezone(UTC) if at.tzinfo else None
    except OverflowError:
        return None


def _storable(told: Receipt | InboundMessage) -> bool:
    """Whether the ledger can hold it: a row that it cannot would spoil its whole batch."""
    names = [told.external_id, told.ref or ""]
    if isinstance(told, InboundMessage):
        names += told.sender, told.recipient, told.service
    else:
        names += told.detail.get("reason", ""), told.recipient
    return bool(told.external_id) and all(
        len(name) <= LONGEST_NAME and name.isprintable() for name in names
    )


def _text(told: str) -> str:
    """What the ledger can hold of a text: neither NUL nor half a surrogate pair."""
    return told.replace("\0", "").encode(errors="replace").decode()


def _reported(
    runtime: Runtime,
    connection: Connection,
    account: str,
    pairs: Sequence[tuple[Received, Receipt]],
    reading: Reading,
) -> None:
    """Receipts of an account; what matches no delivery yet stays in the inbox."""
    spoken = _spoken_of(runtime, connection, account, pairs)
    up_to: dict[int, list[Fact]] = defaultdict(list)
    for n, (one, receipt) in enumerate(pairs):
        if receipt.event is EventType.ACCEPTED and not _in_doubt(spoken.get(n)):
            continue
        delivery = spoken.get(n)
        if delivery is None and receipt.ref and _anothers(one, receipt):
            reading.not_ours.add(one.id)
            continue
        if delivery is None and receipt.ref:
            reading.overtaken(one)
            continue
        if delivery is None:
            token = " or with a token that is not ours" if receipt.trace else ""
            reading.never(one, f"about a message that was never sent from here{token}")
            continue
        fact = Fact(
            account,
            receipt.external_id,
            delivery,
            receipt.event,
            receipt.at,
            receipt.detail.get("reason", ""),
            receipt.permanent,
            _no(receipt),
            ref=receipt.ref if _in_doubt(delivery) else "",
        )
        reading.facts.append(fact)
        if receipt.read_up_to:
            up_to[delivery.id].append(fact)
    if up_to:
        reading.facts += _read_before(connection, up_to)


def _anothers(one: Received, receipt: Receipt) -> bool:
    """Whether it is taken to be about a message that is not ours."""
    return bool(receipt.recipient) and one.tries >= OVERTAKEN_TRIES


def _spoken_of(
    runtime: Runtime,
    connection: Connection,
    account: str,
    pairs: Sequence[tuple[Received, Receipt]],
) -> dict[int, Spoken]:
    """Which delivery each receipt is about: by the vendor's reference or, where we never learned
    it, by our own number; else by our own token, else by the address that something was lately
    sent to. Who has read a message that is not ours has read what we sent before."""
    receipts = [receipt for _, receipt in pairs]
    by_ref = events.find_by_ref(connection, account, {one.ref for one in receipts if one.ref})
    numbers = {one.delivery_id for one in receipts if one.delivery_id and one.ref not in by_ref}
    by_number = events.find_without_ref(connection, account, numbers) if numbers else {}
    traced = {
        n: number
        for n, one in enumerate(receipts)
        if not one.ref and (number := _traced(runtime, one)) is not None
    }
    by_id = events.find_by_id(connection, set(traced.values())) if traced else {}
    addressed = [
        {"n": n, "address": one.recipient, "latest": None if not one.ref else one.at}
        for n, one in enumerate(receipts)
        # Who shows a token that does not hold is not believed for the address beside it.
        if (not one.ref and not one.trace and one.recipient)
        or (one.read_up_to and one.ref not in by_ref and _anothers(pairs[n][0], one))
    ]
    lately = ANSWERS_WITHIN.total_seconds()
    by_address = events.find_by_address(connection, account, addressed, lately) if addressed else {}
    found: dict[int, Spoken] = {}
    for n, one in enumerate(receipts):
        if one.ref:
            spoken = by_ref.get(one.ref) or by_number.get(one.delivery_id or 0)
        else:
            spoken = by_id.get(traced[n]) if n in traced else None
        spoken = spoken or by_address.get(n)
        if spoken is not None:
            found[n] = spoken
    return found


def _traced(runtime: Runtime, receipt: Receipt) -> int | None:
    try:
        return runtime.words.signer.read(receipt.trace, Purpose.TRACE, receipt.at).id
    except (BadToken, ExpiredToken):
        return None


def _in_doubt(delivery: Spoken | None) -> bool:
    """Whether it is of a delivery that we had no reference of."""
    return delivery is not None and delivery.provider_ref is None


def _no(receipt: Receipt) -> Way | None:
    if receipt.opted_out:
        return Way.PROVIDER
    return _NOES.get(receipt.event)


_NOES: Mapping[EventType, Way] = {
    EventType.COMPLAINED: Way.COMPLAINT,
    EventType.UNSUBSCRIBED: Way.ONE_CLICK,
}


def _read_before(connection: Connection, up_to: dict[int, list[Fact]]) -> Iterator[Fact]:
    for later, before in events.find_before(connection, list(up_to)):
        for fact in up_to[later]:
            yield replace(fact, external_id=f"{fact.external_id}:{before.id}", spoken=before)


def _answered(
    runtime: Runtime,
    connection: Connection,
    messages: Iterable[tuple[Received, InboundMessage]],
    reading: Reading,
) -> None:
    """Messages of people: kept, and told as answers where they answer something."""
    unique = {(one.source, message.external_id): (one, message) for one, message in messages}
    known = list(unique.values())
    words = {n: _heard(runtime, one, message) for n, (one, message) in enumerate(known)}
    brands = runtime.catalog().brands_by_id
    stops = [one for one in words.values() if one is not None and one.said.word is Word.STOP]
    if stops:
        # Before a message of anybody is kept, which locks whom it is from.
        close_gates(connection, {brand_id for one in stops for brand_id in concerned(brands, one)})
    kept = keep_inbound(
        connection,
        [_message_row(runtime, n, one, message) for n, (one, message) in enumerate(known)],
        brand_ids=list(brands),
        answers_within_s=ANSWERS_WITHIN.total_seconds(),
    )
    reading.messages += len(kept)
    spoken = events.find_by_id(connection, {each.delivery_id for each in kept if each.delivery_id})
    for each in kept:
        one, message = known[each.n]
        if each.customer_id is not None:
            channel = runtime.accounts[one.source].channel.value
            reading.active.append(
                {"customer_id": each.customer_id, "channel": channel, "at": message.at}
            )
        heard = words[each.n]
        if heard is not None:
            reading.heard.append(replace(heard, spoken=spoken.get(each.delivery_id or 0)))
        if each.delivery_id is None:
            continue
        name = f"message:{message.external_id}"
        event = EventType.REPLIED
        if heard is not None and heard.said.word is Word.STOP:
            event = EventType.UNSUBSCRIBED
        fact = Fact(one.source, name, spoken[each.delivery_id], event, message.at, written=True)
        reading.facts.append(fact)


def _said(message: InboundMessage) -> Said | None:
    """What a message says to the machine; nothing for what people write to people."""
    return Said(message.answered) if message.answered else read_words(_text(message.text))


def _heard(runtime: Runtime, one: Received, message: InboundMessage) -> Heard | None:
    said = _said(message)
    if said is None:
        return None
    return Heard(
        said=said,
        name=f"message {one.source} {message.external_id}",
        account=one.source,
        channel=runtime.accounts[one.source].channel,
        service=message.service,
        address=message.sender,
        recipient=message.recipient,
        at=message.at,
        answered=message.answered is not None,
    )


def _message_row(
    runtime: Runtime, n: int, one: Received, message: InboundMessage
) -> dict[str, Any]:
    return {
        "n": n,
        "account": one.source,
        "external_id": message.external_id,
        "channel": runtime.accounts[one.source].channel.value,
        "service": message.service,
        "sender": message.sender,
        "recipient": message.recipient,
        "text": _text(message.text),
        "at": message.at,
        "ref": message.ref,
    }
