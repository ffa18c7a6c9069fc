"""Trying a policy: what would happen to an intent that nobody sees, and why; nothing is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from app.domain.decision import Send, Situation, Stop, Verdict, Wait, WhenBlocked
from app.domain.foresight import Moment, foresee
from app.domain.policy import Policy
from app.domain.vocabulary import Kind, Urgency
from app.store.catalog import Brand
from app.store.customers import find_customers
from app.store.pauses import pauses_in_force
from app.store.session import read_only
from app.store.wishes import addresses_of
from app.usecases.deciding.persons import STRANGER, persons
from app.usecases.intake.records import considered_record
from app.usecases.intake.refusing import unreachable
from app.usecases.runtime import Runtime
from app.usecases.telling.decisions import decided
from app.usecases.telling.pages import BadFilter
from app.usecases.telling.shown import considered, mask

ASSUMED = (
    "nothing is seen",
    "every message is handed over at once, by accounts that work",
    "the customer says nothing more, and gets nothing else",
    "a pause ends when it would hold the first message",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """An intent that is not. `policy` is one of the ledger by its name, or any; the brand's default
    sender and first topic are taken where none is named."""

    customer: str
    policy: Policy | str
    at: datetime
    sender: str | None = None
    topic: str | None = None
    kind: Kind = Kind.TRANSACTIONAL
    urgency: Urgency = Urgency.NORMAL
    when_blocked: WhenBlocked = WhenBlocked.HOLD


def try_policy(runtime: Runtime, brand: Brand, trial: Trial) -> dict[str, Any]:
    """Say what would happen, decision by decision.

    `{"brand", "customer", "policy", "sender", "topic", "kind", "urgency", "when_blocked", "at",
    "expires_at", "zone" (the customer's own, or None), "assumed": [...], "refused" (why it would
    not be taken at all, or None), "steps": [{"at", "local" (in `zone`, or None), "verdict",
    "step", "channel", "address", "until", "reason", "considered" (as `show_intent` has it),
    "text"}]}`.

    Raises `BadFilter` for a customer, policy, sender or topic that there is not.
    """
    policy = _policy(runtime, trial.policy)
    sender = trial.sender or brand.default_sender or ""
    topic = trial.topic or next(iter(brand.topics), "")
    if sender not in brand.senders:
        raise _unknown("sender", sender, brand.senders)
    if topic not in brand.topics:
        raise _unknown("topic", topic, brand.topics)
    expires_at = trial.at + timedelta(seconds=policy.expires_after)
    with runtime.engine.begin() as connection:
        read_only(connection)
        customer = find_customers(connection, brand.id, [trial.customer]).get(trial.customer)
        if customer is None:
            raise BadFilter("customer", f"brand {brand.name} knows nobody by this ref")
        addresses = {one.id: mask(one.address) for one in addresses_of(connection, customer.id)}
        situation = Situation(
            policy=policy,
            brand_id=brand.id,
            sender_id=brand.senders[sender].id,
            campaign="",
            endpoints=customer.endpoints,
            channels=runtime.channels(test=False),
            services=runtime.services(test=False),
            expires_at=expires_at,
            pauses=pauses_in_force(connection),
            topic_id=brand.topics[topic],
            kind=trial.kind,
            urgency=trial.urgency,
            when_blocked=trial.when_blocked,
            **_person(connection, brand, customer.id, trial),
        )
    zones = situation.person.zones
    zone = zones[0] if len(zones) == 1 else None
    moments = foresee(situation, trial.at)
    first = moments[0].decision
    return {
        "brand": brand.name,
        "customer": trial.customer,
        "policy": policy.name,
        "sender": sender,
        "topic": topic,
        "kind": trial.kind.value,
        "urgency": trial.urgency.value,
        "when_blocked": trial.when_blocked.value,
        "at": trial.at,
        "expires_at": expires_at,
        "zone": str(zone) if zone else None,
        "assumed": list(ASSUMED),
        "refused": unreachable(first).reason if isinstance(first.verdict, Stop) else None,
        "steps": [
            _step(one, place, addresses, zone, expires_at) for place, one in enumerate(moments)
        ],
    }


def _policy(runtime: Runtime, policy: Policy | str) -> Policy:
    if isinstance(policy, Policy):
        return policy
    known = runtime.catalog().policies
    if policy not in known:
        raise _unknown("policy", policy, known)
    return known[policy][1]


def _unknown(field: str, name: str, known: Iterable[str]) -> BadFilter:
    return BadFilter(field, f"{name!r} is not declared; known: {', '.join(sorted(known))}")


def _person(connection: Connection, brand: Brand, customer_id: int, trial: Trial) -> dict[str, Any]:
    """What a situation holds of the customer: what they allow and wish, and where they were."""
    marketing = trial.kind is Kind.MARKETING
    found = persons(connection, brand, [customer_id], marketing=marketing)
    known = found.get(customer_id, STRANGER)
    before = {channel: at for channel, at in known.activity.items() if at <= trial.at}
    return {"person": known.person, "rules": brand.rules, "activity": before}


def _step(
    moment: Moment,
    place: int,
    addresses: Mapping[int, str],
    zone: ZoneInfo | None,
    expires_at: datetime,
) -> dict[str, Any]:
    verdict = moment.decision.verdict
    sent = verdict if isinstance(verdict, Send) else None
    told = {
        "verdict": _VERDICTS[type(verdict)],
        "until": verdict.until if isinstance(verdict, Wait) else None,
        "reason": None if isinstance(verdict, Send) else verdict.reason,
        "considered": [considered(one) for one in considered_record(moment.decision)],
    }
    return {
        "at": moment.at,
        "local": moment.at.astimezone(zone).replace(tzinfo=None) if zone else None,
        "step": sent.step + 1 if sent else None,
        "channel": sent.channel.value if sent else None,
        "address": addresses.get(sent.endpoint_id) if sent else None,
        **told,
        "text": decided({**told, "cause": "due" if place else "accepted"}, expires_at),
    }


_VERDICTS: Mapping[type[Verdict], str] = {Send: "send", Wait: "wait", Stop: "stop"}
