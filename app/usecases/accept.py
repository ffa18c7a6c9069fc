"""Accept: a chunk of intents becomes rows, each decided at once, in one transaction.

The answer is given after the commit. The same key is the same intent from any process; a chunk
that comes twice writes nothing twice; one bad intent does not spoil its chunk.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.domain.decision import Send, Situation, Stop, decide
from app.domain.pause import Pause
from app.domain.vocabulary import Channel, IntentState, Urgency
from app.store.catalog import Brand
from app.store.customers import CustomerRow, find_customers, upsert_customers
from app.store.intents import (
    end_intents,
    fingerprints,
    insert_accepted,
    ledger_now,
)
from app.store.pauses import pauses_in_force
from app.store.refusals import insert_refusals
from app.usecases.accounts import choose_account, hint_urgent
from app.usecases.addresses import customer_row, merge_rows
from app.usecases.binding import Bound, Desk, said_of
from app.usecases.contents import bind_contents
from app.usecases.records import considered_record, verdict_fields
from app.usecases.refusing import FAULT, UNDECLARED, Refusal, unreachable, unstorable
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer import intent_id as id_of

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """Who hands in a chunk, and how: `chunk` makes a repeat harmless, `keep_refusals` says that
    nobody waits for the answer, so refusals are kept in the ledger."""

    brand: str
    chunk: UUID
    senders: Collection[str] | None = None
    test: bool = False
    keep_refusals: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one document. `status`: accepted, exists, conflict or refused."""

    line: int
    status: str
    id: UUID | None = None
    key: str | None = None
    field: str | None = None
    code: str | None = None
    reason: str | None = None


def accept(runtime: Runtime, submission: Submission, documents: Sequence[Any]) -> list[Verdict]:
    """Take a chunk of intent documents; return a verdict for each, in order, after the commit.

    A document may be anything that JSON can say: what is no intent is refused.
    """
    verdicts = _accept(runtime, submission, list(enumerate(documents)))
    counts = Counter(verdict.status for verdict in verdicts)
    _log.info("accepted", brand=submission.brand, **counts)
    return sorted(verdicts, key=lambda verdict: verdict.line)


def _accept(
    runtime: Runtime,
    submission: Submission,
    documents: Sequence[tuple[int, Mapping[str, Any]]],
    *,
    again: bool = False,
) -> Iterable[Verdict]:
    batch = _Batch(runtime, submission, dict(documents))
    try:
        with runtime.engine.begin() as connection:
            batch.take(connection)
    except IntegrityError:
        # A customer was removed between our look and our write; at the next look nobody is there.
        if again:
            raise
        return _accept(runtime, submission, documents, again=True)
    except (OperationalError, PoolTimeout):
        raise  # the ledger is away: whoever asked comes again
    except Exception as error:  # noqa: BLE001 (told below, by its kind alone)
        # Some document passed every check and still cannot be kept, or trips over a fault of
        # ours. It is found by halves, so that it alone is refused, and nothing is lost.
        if len(documents) > 1:
            middle = len(documents) // 2
            return [
                *_accept(runtime, submission, documents[:middle]),
                *_accept(runtime, submission, documents[middle:]),
            ]
        batch = _Batch(runtime, submission, dict(documents))
        if isinstance(error, DataError | TypeError | ValueError | OverflowError):
            _log.warning("unstorable_intent", kind=type(error).__name__)
            batch.refuse(documents[0][0], unstorable(documents[0][1]))
        else:
            _log.error("intent_failed", exc_info=error)
            batch.refuse(documents[0][0], FAULT)
        with runtime.engine.begin() as connection:
            batch.keep_refusals(connection)
    batch.hint()
    return batch.verdicts.values()


class _Batch:
    """The work on one chunk: each document ends as a verdict."""

    def __init__(
        self, runtime: Runtime, submission: Submission, documents: Mapping[int, Mapping[str, Any]]
    ) -> None:
        self._runtime = runtime
        self._submission = submission
        self._documents = documents
        self.verdicts: dict[int, Verdict] = {}
        self._urgent: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._repeats: list[tuple[Bound, Bound]] = []
        self._now = datetime.now(UTC)

    def take(self, connection: Connection) -> None:
        """Do all of it within one transaction."""
        self._now = now = ledger_now(connection)
        brand, bound = self._bind(now)
        if any(verdict.code in UNDECLARED for verdict in self.verdicts.values()):
            # It may have been declared a moment ago.
            self._runtime.catalog.forget()
            self.verdicts.clear()
            self._repeats.clear()
            brand, bound = self._bind(now)
        if brand is not None:
            customers = self._customers(connection, brand, bound)
            bound = [one for one in bound if one.line not in self.verdicts]
            contents = bind_contents(
                self._runtime, connection, brand, bound, customers, self.refuse
            )
            self._insert(connection, brand, now, customers, contents)
            self._answer_repeats()
        self.keep_refusals(connection, brand)

    def refuse(self, line: int, refusal: Refusal, intent_id: UUID | None = None) -> None:
        """Refuse one document; the first refusal of a line stands."""
        sender, key = said_of(self._documents[line])
        if intent_id is None and key:
            # What is asked for by this id later is told why it was refused.
            intent_id = id_of(self._submission.brand, sender, key, test=self._submission.test)
        self.verdicts.setdefault(
            line,
            Verdict(line, "refused", intent_id, key, refusal.field, refusal.code, refusal.reason),
        )

    def hint(self) -> None:
        """Tell the workers about urgent deliveries; all others wait for the dispatcher."""
        hint_urgent(self._runtime, self._urgent, self._now)

    def _refuse_all(self) -> None:
        refusal = Refusal(
            "brand",
            "unknown_brand",
            f"the brand {self._submission.brand[:63]!r} is not declared here; "
            "declare it in brands.toml and run `converge apply`",
        )
        for line in self._documents:
            self.refuse(line, refusal)

    def _bind(self, now: datetime) -> tuple[Brand | None, list[Bound]]:
        catalog = self._runtime.catalog()
        brand = catalog.brands.get(self._submission.brand)
        if brand is None:
            self._refuse_all()
            return None, []
        desk = Desk(catalog, brand, self._submission.senders, self._submission.test, now)
        bound: dict[UUID, Bound] = {}
        for line, document in self._documents.items():
            try:
                one = desk.bind(line, document)
            except Refusal as refusal:
                self.refuse(line, refusal)
                continue
            first = bound.setdefault(one.id, one)
            if first is not one:
                self._repeats.append((first, one))
        return brand, list(bound.values())

    def _customers(
        self, connection: Connection, brand: Brand, bound: list[Bound]
    ) -> dict[str, CustomerRow]:
        """Create or change the customers that came along, and find everyone."""
        rows = []
        for one in bound:
            to = one.document["to"]
            if not isinstance(to, str):
                try:
                    rows.append(customer_row(to, self._runtime.default_region, "to."))
                except InvalidIntent as error:
                    self.refuse(one.line, Refusal(error.field, "invalid", error.reason), one.id)
        if rows:
            upsert_customers(connection, brand.id, merge_rows(rows), test=self._submission.test)
        refs = {one.ref for one in bound if one.line not in self.verdicts}
        customers = find_customers(connection, brand.id, refs)
        for one in bound:
            if one.ref not in customers:
                reason = (
                    "no customer has this ref; give a customer object, "
                    "or load customers with `converge customers import`"
                )
                self.refuse(one.line, Refusal("to", "unknown_customer", reason), one.id)
        return customers

    def _insert(
        self,
        connection: Connection,
        brand: Brand,
        now: datetime,
        customers: Mapping[str, CustomerRow],
        contents: Sequence[tuple[Bound, int]],
    ) -> None:
        """Decide each intent at once, and write down those for which there is a way."""
        channels = self._runtime.channels(test=self._submission.test)
        pauses = pauses_in_force(connection)
        accounts: dict[Channel, str] = {}
        rows = []
        bound: dict[UUID, Bound] = {}
        for one, content_id in contents:
            customer = customers[one.ref]
            expires_at = one.expires_at or max(now, one.send_after or now) + timedelta(
                seconds=one.policy.expires_after
            )
            situation = Situation(
                policy=one.policy,
                brand_id=brand.id,
                sender_id=one.sender_id,
                campaign=one.campaign,
                endpoints=customer.endpoints,
                channels=channels,
                expires_at=expires_at,
                send_after=one.send_after,
                pauses=pauses,
            )
            decision = decide(situation, now)
            verdict = decision.verdict
            if isinstance(verdict, Stop):
                self.refuse(one.line, unreachable(decision), one.id)
                continue
            account = ""
            if one.urgency == Urgency.URGENT and isinstance(verdict, Send):
                if verdict.channel not in accounts:
                    accounts[verdict.channel] = self._account(verdict.channel, now, pauses)
                account = accounts[verdict.channel]
            rows.append(
                {
                    **_intent_fields(one, customer.id, content_id),
                    "test": self._submission.test,
                    "expires_at": expires_at,
                    "decide_at": expires_at if isinstance(verdict, Send) else verdict.until,
                    "decided_at": now,
                    "considered": considered_record(decision),
                    **verdict_fields(verdict, now, account, self._runtime.timing.hint_lost),
                }
            )
            bound[one.id] = one
        self._write(connection, brand, rows, bound)

    def _account(self, channel: Channel, now: datetime, pauses: Sequence[Pause]) -> str:
        """The account for all urgent work of this chunk on a channel; none: an empty name."""
        chosen = choose_account(
            self._runtime, channel, test=self._submission.test, now=now, pauses=pauses
        )
        return chosen.name if chosen else ""

    def _write(
        self,
        connection: Connection,
        brand: Brand,
        rows: list[dict[str, Any]],
        bound: Mapping[UUID, Bound],
    ) -> None:
        if not rows:
            return
        rows.sort(key=itemgetter("id"))  # the one order, so that two chunks never deadlock
        new = insert_accepted(connection, brand.id, rows)
        for row in rows:
            if row["id"] in new:
                one = bound[row["id"]]
                self.verdicts[one.line] = Verdict(one.line, "accepted", one.id, one.key)
                if row["account"]:
                    delivery_id = new[one.id]
                    assert delivery_id is not None  # noqa: S101 (an account means a delivery)
                    self._urgent[row["channel"], row["account"]].append(delivery_id)
        known = fingerprints(connection, [key for key in bound if key not in new])
        for key, said in known.items():
            self._repeat(bound[key], said)
        replaced = [bound[key].replaces for key in new if bound[key].replaces]
        if replaced:
            end_intents(
                connection,
                [key for key in replaced if key is not None],
                IntentState.CANCELLED,
                "replaced",
            )

    def _answer_repeats(self) -> None:
        """What stands twice in the chunk shares the fate of the first."""
        for first, one in self._repeats:
            fate = self.verdicts[first.line]
            if fate.status == "refused" and one.fingerprint == first.fingerprint:
                self.verdicts[one.line] = replace(fate, line=one.line)
            else:
                self._repeat(one, first.fingerprint)

    def _repeat(self, one: Bound, said: bytes) -> None:
        """The same key again: the same content is welcome, another content is a conflict."""
        if one.fingerprint == said:
            self.verdicts[one.line] = Verdict(one.line, "exists", one.id, one.key)
        else:
            self.verdicts[one.line] = Verdict(
                one.line,
                "conflict",
                one.id,
                one.key,
                "key",
                "conflict",
                "the key is taken by an intent with other content; the first one stands",
            )

    def keep_refusals(self, connection: Connection, brand: Brand | None = None) -> None:
        """Keep the refusals of a chunk for whose verdicts nobody waits."""
        if not self._submission.keep_refusals:
            return
        rows = [
            {
                "line": verdict.line,
                "sender": said_of(self._documents[verdict.line])[0],
                "key": verdict.key,
                "intent_id": verdict.id,
                "field": verdict.field,
                "code": verdict.code,
                "reason": verdict.reason,
                "document": self._documents[verdict.line] if verdict.code != "unstorable" else None,
            }
            for verdict in self.verdicts.values()
            if verdict.status in ("refused", "conflict")
        ]
        if rows:
            insert_refusals(
                connection,
                self._submission.chunk,
                self._submission.brand,
                brand.id if brand else None,
                rows,
            )


def _intent_fields(one: Bound, customer_id: int, content_id: int) -> dict[str, Any]:
    return {
        "id": one.id,
        "sender_id": one.sender_id,
        "topic_id": one.topic_id,
        "customer_id": customer_id,
        "content_id": content_id,
        "policy_id": one.policy_id,
        "key": one.key,
        "fingerprint": one.fingerprint.hex(),
        "kind": one.kind,
        "urgency": one.urgency,
        "campaign": one.campaign,
        "data": one.data,
        "send_after": one.send_after,
    }
