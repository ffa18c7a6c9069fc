"""Answering: the message that answers a word such as STOP, or brings the link that somebody asked
for, by itself and at once.

It is an intent like any other, with a decision, a delivery and its attempts, and differs in two
things. It goes back the way that the word came, so nothing is left to decide. And where the person
has just said no, it has a yes of its own in the consent ledger: for this topic, sender and endpoint
alone, for five minutes. That is what the law allows, and all that it allows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from app.domain.consent import Scope, Subject, standing
from app.domain.decision import Reason, Send
from app.domain.vocabulary import Channel, Kind, Urgency
from app.store.answers import (
    VALID_S,
    Turn,
    answers_policy,
    answers_topic,
    nobody,
    take_turn,
)
from app.store.consents import consents_of
from app.store.contents import hold_contents
from app.store.intents import insert_accepted, ledger_now
from app.store.optouts import Holder
from app.usecases.consent.consents import Statement, say
from app.usecases.delivering.accounts import Choice
from app.usecases.intake.contents import content_ids
from app.usecases.intake.records import verdict_fields
from app.usecases.runtime import Runtime
from converge_producer import intent_id as id_of

NAMESPACE: Final = "(answer)"
"""Stands before the keys of answers, so that they are nobody else's."""
_DOCUMENT: Final[dict[str, Any]] = {"text": "{{ text }}"}
_HASH: Final = blake2b(orjson.dumps(_DOCUMENT), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be answered, to what was said or asked at `at`.

    `key` names it, so that it is said once; `fact` names the word; `due` is from when on it may
    leave (None: at once).
    """

    holder: Holder
    sender_id: int
    account: str
    key: str
    fact: str
    text: str
    at: datetime
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stranger:
    """An address that no customer of a brand has, whence a word came at `at`."""

    brand_id: int
    channel: Channel
    service: str
    address: str
    at: datetime

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Where it stands in the order in which all take turns of strangers."""
        return self.brand_id, self.channel.value, self.service, self.address


LEFT_TO_GO_S: Final = 60
"""An answer that waits is planned so long before it would come too late."""


def turn_of(connection: Connection, one: Stranger, *, news: bool) -> tuple[Holder, Turn] | None:
    """Where and when a stranger may be answered; None: not any more, or not so soon again.

    Whoever gets an answer may be a machine that answers it, and any number may be forged: so there
    is one a minute at most, and ever fewer. `news`: what changed something may wait for its turn.
    """
    left = one.at + timedelta(seconds=VALID_S) - ledger_now(connection)
    if left <= timedelta():
        return None
    nobody_id = nobody(connection, one.brand_id)
    turn = take_turn(
        connection,
        nobody_id,
        channel=one.channel,
        service=one.service,
        address=one.address,
        patience_s=max(0.0, left.total_seconds() - LEFT_TO_GO_S) if news else 0.0,
    )
    if turn is None:
        return None
    return Holder(one.brand_id, nobody_id, turn.endpoint_id, one.channel, True, None), turn


def answer(runtime: Runtime, connection: Connection, one: Answer) -> int | None:
    """Write an answer down, to be hinted at after the commit; None where it was given before, would
    come too late or is due later.

    The customer is locked.
    """
    holder = one.holder
    catalog = runtime.catalog.knowing(senders=[one.sender_id], connection=connection)
    brand = catalog.brands_by_id[holder.brand_id]
    account = runtime.accounts[one.account]
    now = ledger_now(connection)
    expires_at = one.at + timedelta(seconds=VALID_S)
    if expires_at <= (one.due or now):
        return None
    topic_id = answers_topic(connection, brand.id)
    sender = catalog.senders_by_id[one.sender_id]
    key = id_of(brand.name, sender.name, f"{NAMESPACE}:{one.key}", test=account.sandbox)
    content_id = content_ids(runtime, connection, brand.id, {_HASH: _DOCUMENT}).by_hash[_HASH]
    goes = Send(step=0, channel=holder.channel, endpoint_id=holder.endpoint_id, at=one.due or now)
    taken = Choice("" if one.due else one.account)
    new = insert_accepted(
        connection,
        brand.id,
        [
            {
                "id": key,
                "sender_id": sender.id,
                "topic_id": topic_id,
                "customer_id": holder.customer_id,
                "content_id": content_id,
                "policy_id": answers_policy(connection, holder.channel),
                "key": f"{NAMESPACE}:{one.key}",
                "fingerprint": blake2b(one.text.encode(), digest_size=16).hexdigest(),
                "kind": Kind.TRANSACTIONAL.value,
                "urgency": Urgency.URGENT.value,
                "campaign": "",
                "data": {"text": one.text},
                "when_blocked": "drop",
                "send_after": None,
                "expires_at": expires_at,
                "decide_at": expires_at,
                "considered": [[0, holder.channel.value, Reason.CHOSEN.value, holder.endpoint_id]],
                **verdict_fields(goes, now, taken, runtime.timing.hint_lost),
                "account": one.account,  # also of what waits for its turn
            }
        ],
        test=account.sandbox,
        trace=None,
        now=now,
    )
    if key not in new:
        return None
    _allow(connection, one, topic_id, holder.channel)
    hold_contents(connection, {content_id: _DOCUMENT})
    return None if one.due else new[key]


def _allow(connection: Connection, one: Answer, topic_id: int, channel: Channel) -> None:
    """Where the person said no, write down that this one answer is lawful all the same."""
    holder = one.holder
    subject = Subject(channel, holder.endpoint_id, one.sender_id, topic_id, Kind.TRANSACTIONAL)
    said = consents_of(connection, [holder.customer_id]).get(holder.customer_id, [])
    now = ledger_now(connection)
    if standing(said, subject, now).allowed:
        return
    scope = Scope(channel, holder.endpoint_id, one.sender_id, topic_id, Kind.TRANSACTIONAL)
    allowed = Statement(
        customer_id=holder.customer_id,
        scope=scope,
        allow=True,
        source="answer",
        until=one.at + timedelta(seconds=VALID_S),
        evidence="the one answer that the law allows",
        fact=f"{one.fact}:answer",
    )
    say(connection, holder.brand_id, [allowed])
