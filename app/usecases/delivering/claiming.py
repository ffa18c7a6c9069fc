"""Claiming: which of the hinted deliveries go out now. What is paused waits without a worker, and
what the customer, the law or a cap does not allow any more is held or withdrawn."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.channels.registry import Account
from app.domain.caps import Cap, remembered_s
from app.domain.consent import Subject
from app.domain.decision import Reason, WhenBlocked
from app.domain.pause import Pause
from app.domain.permission import Bar, Barred, barred
from app.domain.vocabulary import Channel, Kind, Urgency
from app.store import deliveries
from app.store import persons as counting
from app.store.catalog import Brand
from app.store.deliveries import Claimed
from app.store.intents import ledger_now
from app.store.pauses import pauses_in_force
from app.store.session import LEDGER_AWAY
from app.usecases.deciding.persons import STRANGER, persons
from app.usecases.giving_way import again_if_undone
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

WITHDRAW_WITHIN = timedelta(seconds=5)
"""What is to be withdrawn waits so long: if we end before, whoever claims it next withdraws it."""

CountedUnder = tuple[int, str, datetime]
"""A count: of which customer, under which cap, in which slot."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The database's time, read once and counted on by `time.monotonic()` from `ticked`."""

    read: datetime
    ticked: float

    def now(self) -> datetime:
        """The time now, aware UTC."""
        return self.read + timedelta(seconds=time.monotonic() - self.ticked)


@dataclass(slots=True)
class Hold:
    """What a worker holds after claiming: what may go, under which token, and what was counted for
    it. `began` is the monotonic time from which on the lease runs."""

    token: UUID
    began: float
    pauses: list[Pause]
    claimed: list[Claimed]
    counted: dict[int, list[CountedUnder]] = field(default_factory=dict)
    withdrawn: dict[int, str] = field(default_factory=dict)

    @property
    def clock(self) -> Clock:
        """The time as the claim had it, counted on."""
        return Clock(self.claimed[0].claimed_at, self.began)

    def give_back(self, connection: Connection, ids: Iterable[int]) -> None:
        """Take from the counts what deliveries were counted for: they did not go out after all."""
        give_back_counts(connection, (place for key in ids for place in self.counted.get(key, ())))


class ClaimUnanswered(Exception):
    """The ledger was asked to commit a claim and did not answer: it may hold or not."""

    def __init__(self, hold: Hold) -> None:
        super().__init__("the commit of a claim was not answered")
        self.hold = hold


def claim(runtime: Runtime, account: Account, ids: Sequence[int], token: UUID) -> Hold:
    """Claim what may go; put back what may not. Raises `ClaimUnanswered`."""
    hold, found, paused = _take(runtime, account, ids, token)
    results = {
        "claimed": len(hold.claimed),
        "paused": paused,
        "barred": found - paused - len(hold.claimed),
        "rejected": len(ids) - found,
    }
    for result, count in results.items():
        runtime.tally.add("converge_claims_total", count, account=account.name, result=result)
    if hold.withdrawn:
        _withdraw(runtime, hold.withdrawn)
    return hold


@again_if_undone
def _take(
    runtime: Runtime, account: Account, ids: Sequence[int], token: UUID
) -> tuple[Hold, int, int]:
    """What may go, how many could be claimed, and how many of them are paused."""
    hold: Hold | None = None
    try:
        with runtime.engine.begin() as connection:
            # The lease runs from here on, however long the claim may wait for somebody's locks.
            began = time.monotonic()
            pauses = pauses_in_force(connection)
            rows = deliveries.claim(connection, ids, account.name, token, runtime.timing.lease)
            paused = {one.id for one in rows if any(_fits(pause, one, account) for pause in pauses)}
            if paused:
                deliveries.hand_back(connection, paused, token)
            free = Hold(token, began, pauses, [one for one in rows if one.id not in paused])
            _mind_services(runtime, connection, account, token, free)
            if free.claimed:
                _mind_permission(runtime, connection, account, token, free)
            hold = free
    except LEDGER_AWAY as error:
        if hold is None or not hold.claimed:
            raise
        raise ClaimUnanswered(hold) from error
    return hold, len(rows), len(paused)


def give_back_counts(connection: Connection, counts: Iterable[CountedUnder]) -> None:
    """Take from the counts what did not go out after all."""
    rows = _count_rows(Counter(counts))
    if rows:
        counting.take_back(connection, rows)


def _fits(pause: Pause, one: Claimed, account: Account) -> bool:
    return pause.fits(
        brand_id=one.brand_id,
        channel=account.channel,
        sender_id=one.sender_id,
        campaign=one.campaign,
        account=account.name,
    )


def _mind_services(
    runtime: Runtime, connection: Connection, account: Account, token: UUID, hold: Hold
) -> None:
    """Put back what is at a service that the account does not serve: the dispatcher does not know.

    Chance gives it to another account; where none serves it any more, it is decided again.
    """
    if not account.traits.services:
        return
    foreign = [one for one in hold.claimed if not account.traits.serves(one.service)]
    if not foreign:
        return
    others = runtime.accounts_for(account.channel, test=account.sandbox)
    put_back = []
    for one in foreign:
        until = one.claimed_at
        if one.attempts or not any(other.traits.serves(one.service) for other in others):
            until += WITHDRAW_WITHIN
            hold.withdrawn[one.id] = Reason.UNHEALTHY
        put_back.append({"id": one.id, "due_at": until, "reason": "service_not_served"})
    deliveries.put_off(connection, put_back, token)
    gone = {one.id for one in foreign}
    hold.claimed = [one for one in hold.claimed if one.id not in gone]


def _mind_permission(
    runtime: Runtime, connection: Connection, account: Account, token: UUID, hold: Hold
) -> None:
    """Ask again, of each message, what was asked when it was decided: it may have changed since."""
    now = hold.claimed[0].claimed_at
    bars: dict[int, Barred] = {}
    by_brand: dict[int, list[Claimed]] = defaultdict(list)
    for one in hold.claimed:
        by_brand[one.brand_id].append(one)
    brands = runtime.catalog().brands_by_id
    if not by_brand.keys() <= brands.keys():
        brands = runtime.catalog.anew(connection).brands_by_id
    for brand_id, mine in by_brand.items():
        brand = brands[brand_id]
        before = _counted_before(connection, brand, mine)
        bars |= _bars(connection, brand, account.channel, mine, before, now)
        free = [one for one in mine if one.id not in bars and one.id not in before]
        bars |= _count(connection, brand, account.channel, free, now, hold.counted)
    if not bars:
        return
    put_back = []
    for one in hold.claimed:
        bar = bars.get(one.id)
        if bar is None:
            continue
        waits = bar.until is not None and one.when_blocked == WhenBlocked.HOLD
        until = bar.until if waits else now + WITHDRAW_WITHIN
        put_back.append({"id": one.id, "due_at": until, "reason": bar.bar.value})
        if not waits:
            hold.withdrawn[one.id] = bar.bar.value
    deliveries.put_off(connection, put_back, token)
    hold.claimed = [one for one in hold.claimed if one.id not in bars]


def _counted_before(
    connection: Connection, brand: Brand, claimed: Sequence[Claimed]
) -> Collection[int]:
    """Those that count under caps since an earlier try, which may have reached the customer.

    They are not counted again, and no cap holds them: they would stand in their own way.
    """
    again = [one.id for one in claimed if one.again] if brand.rules.caps else []
    return deliveries.left_in_doubt(connection, again) if again else ()


def _bars(
    connection: Connection,
    brand: Brand,
    channel: Channel,
    claimed: Sequence[Claimed],
    counted_before: Collection[int],
    now: datetime,
) -> dict[int, Barred]:
    marketing = any(one.kind == Kind.MARKETING for one in claimed)
    customers = {one.customer_id for one in claimed}
    # A no that comes while this is read waits for the claim (`look_again`): what the claim found
    # of its customers still holds.
    particular = {one.customer_id for one in claimed if one.particular}
    known = persons(connection, brand, customers, marketing=marketing, particular=particular)
    if not known and not marketing and not brand.rules.caps:
        return {}  # nothing is known of any of them: nearly every batch
    if known:  # what was said since the claim began was read as well, and holds
        now = ledger_now(connection)
    uncapped = replace(brand.rules, caps=())
    return {
        one.id: bar
        for one in claimed
        if (
            bar := barred(
                known.get(one.customer_id, STRANGER).person,
                uncapped if one.id in counted_before else brand.rules,
                _subject(one, channel),
                Urgency(one.urgency),
                now,
            )
        )
    }


def _count(
    connection: Connection,
    brand: Brand,
    channel: Channel,
    claimed: Sequence[Claimed],
    now: datetime,
    counted: dict[int, list[CountedUnder]],
) -> dict[int, Barred]:
    """Count what is about to go under every cap that it falls under; bar what is one too many.

    It is counted first and looked at afterwards, so that of two who do so at once one waits. What
    answers a STOP or HELP is no message of the brand's: it uses up nothing.
    """
    caps = {cap.name: cap for cap in brand.rules.caps}
    places = (
        {
            one.id: [
                (one.customer_id, name, cap.slot(now))
                for name, cap in caps.items()
                if cap.fits(_subject(one, channel)) and one.topic_id != brand.answers_topic
            ]
            for one in claimed
        }
        if caps
        else {}
    )
    added = Counter(place for each in places.values() for place in each)
    if not added:
        return {}
    counting.count(connection, _count_rows(added))
    customers = {customer for customer, _, _ in added}
    found = counting.cap_counts(connection, customers, remembered_s(caps.values()))
    bars: dict[int, Barred] = {}
    for one in reversed(claimed):
        mine = places[one.id]
        over = [
            (free, name)
            for customer, name, _ in mine
            if not _urgent(one)
            and (free := _too_many(caps[name], found[customer].get(name, {}), now)) is not None
        ]
        if over:
            until, name = max(over)
            bars[one.id] = Barred(Bar.CAPPED, until, name)
            for customer, cap, slot in mine:
                found[customer][cap][slot] -= 1  # type: ignore[index]  # a dict of ours
        else:
            counted[one.id] = mine
    give_back_counts(connection, (place for key in bars for place in places[key]))
    return bars


def _too_many(cap: Cap, counts: Mapping[datetime, int], now: datetime) -> datetime | None:
    """When a message may go that is counted already; None: it is within the cap."""
    return Cap(cap.name, cap.most + 1, cap.window_s, cap.scope).free_at(counts, now)


def _urgent(one: Claimed) -> bool:
    return one.urgency == Urgency.URGENT and one.kind == Kind.TRANSACTIONAL


def _subject(one: Claimed, channel: Channel) -> Subject:
    return Subject(channel, one.endpoint_id, one.sender_id, one.topic_id, Kind(one.kind))


def _count_rows(counts: Mapping[CountedUnder, int]) -> list[dict[str, Any]]:
    return [
        {"customer_id": customer, "cap": cap, "slot": slot, "n": n}
        for (customer, cap, slot), n in counts.items()
    ]


def _withdraw(runtime: Runtime, reasons: Mapping[int, str]) -> None:
    """Take back for good, and decide at once what else there is; in a transaction of its own, for
    intents are locked before deliveries.

    A ledger that is away for it must not keep what was claimed beside it from going out.
    """
    try:
        with runtime.engine.begin() as connection:
            again = deliveries.withdraw(connection, reasons)
    except LEDGER_AWAY:
        _log.warning("withdraw_later", deliveries=len(reasons))
        return
    if again:
        runtime.hints.decide(again)
