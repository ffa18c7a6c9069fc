"""Binding: an intent's document is checked and tied to what the brand has declared.

Everything here is about one document and the catalog; the ledger is not asked.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from app.domain.decision import WhenBlocked
from app.domain.policy import Policy
from app.domain.vocabulary import Kind, Urgency
from app.store.catalog import Brand, Catalog
from app.store.refusals import is_name
from app.usecases.intake.packing import fingerprint, pack
from app.usecases.intake.refusing import Refusal
from converge_producer import InvalidIntent, intent_id, validate_intent
from converge_producer.wire import DEFAULT_KIND, DEFAULT_URGENCY

DEFAULT_POLICY = "notify"


@dataclass(slots=True)
class Bound:
    """One intent of a chunk, tied to ids of the catalog."""

    line: int
    id: UUID
    key: str
    document: Mapping[str, Any]
    fingerprint: bytes
    sender_id: int
    topic_id: int
    policy_id: int
    policy: Policy
    kind: Kind
    urgency: Urgency
    campaign: str
    ref: str
    send_after: datetime | None
    expires_at: datetime | None
    replaces: UUID | None
    data: Mapping[str, Any] = field(default_factory=dict)
    when_blocked: WhenBlocked = WhenBlocked.HOLD


@dataclass(frozen=True, slots=True)
class Desk:
    """Binds the documents of one brand, for callers who may speak for `senders` (None: all)."""

    catalog: Catalog
    brand: Brand
    senders: Collection[str] | None
    test: bool
    now: datetime

    def bind(self, line: int, document: Mapping[str, Any]) -> Bound:
        """Check and bind one document; raises `Refusal`."""
        try:
            validate_intent(document, self.now, pack)
        except InvalidIntent as error:
            raise Refusal(error.field, "invalid", error.reason) from error
        said = document.get("sender")
        sender_id = self._sender(said)
        kind = Kind(document.get("kind") or DEFAULT_KIND)
        policy_id, policy = self._policy(document.get("policy") or DEFAULT_POLICY)
        to = document["to"]
        key = document.get("key") or uuid4().hex
        replaces = document.get("replaces")
        return Bound(
            line=line,
            id=self._id(said, key),
            key=key,
            document=document,
            fingerprint=fingerprint(document),
            sender_id=sender_id,
            topic_id=self._topic(document["topic"]),
            policy_id=policy_id,
            policy=policy,
            kind=kind,
            urgency=Urgency(document.get("urgency") or DEFAULT_URGENCY),
            campaign=document.get("campaign") or "",
            ref=to if isinstance(to, str) else to["ref"],
            send_after=_moment(document.get("send_after")),
            expires_at=_moment(document.get("expires_at")),
            replaces=self._id(said, replaces) if replaces else None,
            data=document.get("data") or {},
            when_blocked=WhenBlocked(document.get("when_blocked") or WhenBlocked.HOLD),
        )

    def _id(self, sender: str | None, key: str) -> UUID:
        return intent_id(self.brand.name, sender, key, test=self.test)

    def _sender(self, said: str | None) -> int:
        name = said or self.brand.default_sender
        if name is None:
            raise Refusal("sender", "unknown_sender", "the brand has no sender; declare one")
        sender = self.brand.senders.get(name)
        if sender is None:
            raise Refusal("sender", "unknown_sender", _unknown(name, self.brand.senders))
        if self.senders is not None and name not in self.senders:
            raise Refusal("sender", "forbidden_sender", "the key does not speak for this sender")
        return sender.id

    def _topic(self, name: str) -> int:
        topic_id = self.brand.topics.get(name)
        if topic_id is None:
            raise Refusal("topic", "unknown_topic", _unknown(name, self.brand.topics))
        return topic_id

    def _policy(self, name: str) -> tuple[int, Policy]:
        bound = self.catalog.policies.get(name)
        if bound is None:
            raise Refusal("policy", "unknown_policy", _unknown(name, self.catalog.policies))
        return bound


def said_of(document: Any) -> tuple[str | None, str | None]:
    """The sender and key that a document names, as far as it can be read at all."""
    if not isinstance(document, dict):
        return None, None
    sender, key = document.get("sender"), document.get("key")
    return (
        sender[:200] if isinstance(sender, str) else None,
        key[:200] if isinstance(key, str) else None,
    )


def _unknown(name: str, known: Collection[str]) -> str:
    listed = ", ".join(sorted(known)[:20]) or "none"
    said = repr(name) if is_name(name) else "what it says, which is no name,"
    return f"{said} is not declared; known: {listed}"


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
