"""The producer: checks intents, gives them their ids, and hands them over in chunks."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from converge_producer.errors import InvalidIntent, NotTaken, Refusal, Refused, Unreachable
from converge_producer.intake import Intake, brand_of, chunked, is_test_key
from converge_producer.intent import Intent, to_document
from converge_producer.wire import intent_id, pack_intent

DEFAULT_BRAND: Final = "demo"
_BROKERS: Final = ("redis", "rediss", "sentinel", "redis+socket", "amqp", "amqps", "pyamqp")
_BRAND: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

AnyIntent = Intent | Mapping[str, Any]

# While a test captures (`intents_sent`), every producer of the process keeps its intents here.
_captured: list[dict[str, Any]] | None = None


class Producer:
    """Hands intents to Converge.

    `url` is the broker (`redis://`, `amqp://` ...), the HTTP API (`https://`; needs `key`), or
    `memory://`, which checks the same and keeps documents in `sent`. `key` is an API key; it names
    the brand, as does `brand`, else `CONVERGE_BRAND`, else `demo`. `sender` speaks where an intent
    names none. Creating one opens nothing; it is safe over threads and over fork.

    Over the broker an intent is as durable as the broker until it is accepted, and what accept
    refuses is listed by `converge refused list`; HTTP answers after commit, with every refusal.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        sender: str | None = None,
        *,
        brand: str | None = None,
    ) -> None:
        self._brand = _brand(brand, key)
        self._test = is_test_key(key)
        self._sender = sender
        self._intake = _intake(url, key, self._brand)
        self.sent: list[dict[str, Any]] = []

    def enqueue(self, intent: AnyIntent) -> UUID:
        """Hand over one intent and return its id.

        Raises `InvalidIntent` before anything leaves; `Refused` when the API says no; `NotTaken`
        within seconds when broker or API cannot be reached.
        """
        packed, its_id = self._prepare(intent, datetime.now(UTC))
        self._hand_over([its_id], [packed])
        return its_id

    def enqueue_many(self, intents: Iterable[AnyIntent]) -> list[UUID]:
        """Hand over many intents in chunks and return their ids, in order.

        All are checked, and kept in memory, before the first leaves: an `InvalidIntent` names its
        place (`[3].topic`) and nothing was sent. `Refused` comes after all others were taken;
        `NotTaken` says which were taken before the way broke.
        """
        now = datetime.now(UTC)
        ids, packed = [], []
        for place, intent in enumerate(intents):
            try:
                text, its_id = self._prepare(intent, now)
            except InvalidIntent as problem:
                raise problem.under(f"[{place}]") from None
            ids.append(its_id)
            packed.append(text)
        self._hand_over(ids, packed)
        return ids

    def close(self) -> None:
        """Close connections; the next enqueue opens anew."""
        if self._intake is not None:
            self._intake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, intent: AnyIntent, now: datetime) -> tuple[str, UUID]:
        document = to_document(intent)
        if self._sender is not None and "sender" not in document:
            document["sender"] = self._sender
        if "key" not in document:
            document["key"] = uuid4().hex
        packed = pack_intent(document, now)
        sender, key = document.get("sender"), document["key"]
        return packed, intent_id(self._brand, sender, key, test=self._test)

    def _hand_over(self, ids: list[UUID], packed: list[str]) -> None:
        if _captured is not None:
            _captured.extend(map(json.loads, packed))
        elif self._intake is None:
            self.sent.extend(map(json.loads, packed))
        else:
            _send(self._intake, ids, packed)


def _send(intake: Intake, ids: list[UUID], packed: list[str]) -> None:
    refusals: list[Refusal] = []
    for chunk in chunked(ids, packed):
        try:
            refusals += intake.take(chunk)
        except Unreachable as error:
            raise NotTaken(
                _without(ids[: chunk.first], refusals),
                ids[chunk.first :],
                error.reason,
                uncertain=error.uncertain,
                refusals=refusals,
            ) from error
    if refusals:
        raise Refused(_without(ids, refusals), refusals)


def _without(ids: list[UUID], refusals: list[Refusal]) -> list[UUID]:
    refused = {refusal.index for refusal in refusals}
    return [one for place, one in enumerate(ids) if place not in refused]


def _brand(brand: str | None, key: str | None) -> str:
    named = brand or (brand_of(key) if key else None) or os.environ.get("CONVERGE_BRAND")
    if named and not _BRAND.fullmatch(named):
        raise ValueError("a brand's name is made of letters, digits, - and _")
    return named or DEFAULT_BRAND


def _intake(url: str, key: str | None, brand: str) -> Intake | None:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return None
    # Imported here, so that each pays for the client that it uses and for no other.
    if scheme in ("http", "https"):
        if not key:
            raise ValueError("the HTTP API needs a key: Producer(url, key)")
        from converge_producer.intake_http import HttpIntake

        return HttpIntake(url, key)
    if scheme in _BROKERS:
        from converge_producer.intake_broker import BrokerIntake

        return BrokerIntake(url, brand, test=is_test_key(key))
    # The URL may hold a password, so only its scheme is repeated.
    raise ValueError(
        f"no broker, http(s) or memory URL (its scheme is {scheme!r}); "
        f"brokers are {', '.join(_BROKERS)}"
    )
