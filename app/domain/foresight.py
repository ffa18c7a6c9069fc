"""Foresight: what would become of an intent that nobody sees, decision by decision.

Pure: the clock moves, nothing else does. Every message is handed over the moment it may leave, and
counts under its caps; a pause that holds one is taken to end there, for nobody knows when it will.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime

from app.domain.consent import Subject
from app.domain.decision import Decision, PastDelivery, Send, Situation, Wait, decide
from app.domain.permission import Person
from app.domain.vocabulary import DeliveryState

MOST = 100
"""Decisions after which it is enough: a ladder has ten steps, and each may wait a few times."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One decision, and when it would be taken."""

    at: datetime
    decision: Decision


def foresee(situation: Situation, now: datetime) -> list[Moment]:
    """Decide at `now` and at every later time at which it would be decided again, to the end."""
    moments: list[Moment] = []
    while len(moments) < MOST:
        decision = decide(situation, now)
        moments.append(Moment(now, decision))
        verdict = decision.verdict
        if isinstance(verdict, Send):
            now = max(now, verdict.at)
            situation = _handed_over(situation, verdict, now)
        elif isinstance(verdict, Wait) and verdict.until > now:
            now = verdict.until
        else:
            break
    return moments


def _handed_over(situation: Situation, sent: Send, now: datetime) -> Situation:
    delivery = PastDelivery(sent.step, sent.channel, sent.endpoint_id, DeliveryState.SENT, now)
    return situation._replace(
        past=(*situation.past, delivery),
        person=_counted(situation, sent, now),
        pauses=(),
    )


def _counted(situation: Situation, sent: Send, now: datetime) -> Person:
    """The customer with one message more under every cap that it falls under."""
    subject = Subject(
        sent.channel,
        sent.endpoint_id,
        situation.sender_id,
        situation.topic_id,
        situation.kind,
    )
    counts: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    for name, slots in situation.person.counts.items():
        counts[name].update(slots)
    for cap in situation.rules.caps:
        if cap.fits(subject):
            counts[cap.name][cap.slot(now)] += 1
    return replace(situation.person, counts=counts)
