"""Accept: a chunk of intents becomes rows, each decided at once, in one transaction.

The answer is given after the commit. The same key is the same intent from any process; a chunk
that comes twice writes nothing twice; one bad intent does not spoil its chunk.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from app.domain.decision import Send, Situation, Stop, decide
from app.domain.vocabulary import IntentState, Kind, Urgency
from app.store.catalog import Brand
from app.store.customers import CustomerRow, Put, find_customers, upsert_customers
from app.store.intents import (
    end_intents,
    fingerprints,
    insert_accepted,
    ledger_now,
)
from app.store.optouts import enter_gate
from app.store.pauses import pauses_in_force
from app.store.refusals import insert_refusals
from app.store.session import LEDGER_AWAY
from app.usecases.consent.suppressing import heed
from app.usecases.deciding.persons import STRANGER, persons
from app.usecases.delivering.accounts import Choice, Chooser, hint_urgent
from app.usecases.giving_way import again_if_undone
from app.usecases.intake.binding import Bound, Desk, said_of
from app.usecases.intake.contents import bind_contents
from app.usecases.intake.records import first_decision, intent_fields, verdict_fields
from app.usecases.intake.refusing import (
    FAULT,
    UNDECLARED,
    Refusal,
    unknown_customer,
    unreachable,
    unstorable,
)
from app.usecases.intake.submission import Submission, Verdict
from app.usecases.observing import first_ids, observe_accepted, observe_new
from app.usecases.people.addresses import customer_row, merge_rows
from app.usecases.people.customers import reconsider
from app.usecases.runtime import Runtime
from converge_producer import InvalidIntent
from converge_producer import intent_id as id_of

_log = structlog.get_logger(__name__)


def accept(runtime: Runtime, submission: Submission, documents: Sequence[Any]) -> list[Verdict]:
    """Take a chunk of intent documents; return a verdict for each, in order, after the commit.

    A document may be anything that JSON can say: what is no intent is refused.
    """
    began = datetime.now(UTC)
    verdicts = _accept(runtime, submission, list(enumerate(documents)))
    counts = Counter(verdict.status for verdict in verdicts)
    codes = Counter(verdict.code for verdict in verdicts if verdict.code)
    new = [verdict.id for verdict in verdicts if verdict.status == "accepted"]
    _log.info("accepted", brand=submission.brand, intent_ids=first_ids(new), **counts)
    observe_accepted(runtime, counts, codes)
    if submission.trace is not None and runtime.tracing.on:
        observe_new(runtime, submission.trace, new, began)
    return sorted(verdicts, key=lambda verdict: verdict.line)


def _accept(
    runtime: Runtime,
    submission: Submission,
    documents: Sequence[tuple[int, Mapping[str, Any]]],
    *,
    again: bool = False,
) -> Collection[Verdict]:
    try:
        batch = _take(runtime, submission, documents)
    except IntegrityError:
        # A customer was removed between our look and our write; at the next look nobody is there.
        if again:
            raise
        return _accept(runtime, submission, documents, again=True)
    except (*LEDGER_AWAY, ProgrammingError):
        # The ledger is away, or of a schema beyond ours: whoever asked comes again.
        raise
    except Exception as error:  # noqa: BLE001  # told below, by its kind alone
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


@again_if_undone
def _take(
    runtime: Runtime, submission: Submission, documents: Sequence[tuple[int, Mapping[str, Any]]]
) -> "_Batch":
    batch = _Batch(runtime, submission, dict(documents))
    with runtime.engine.begin() as connection:
        batch.take(connection)
    return batch


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
        self._puts: list[Put] = []
        self._now = datetime.now(UTC)
        self._health = runtime.health.health(runtime.accounts)

    def take(self, connection: Connection) -> None:
        """Do all of it within one transaction."""
        self._now = now = ledger_now(connection)
        brand, bound = self._bind(now)
        if any(verdict.code in UNDECLARED for verdict in self.verdicts.values()):
            # It may have been declared a moment ago.
            self._runtime.catalog.anew(connection)
            self.verdicts.clear()
            self._repeats.clear()
            brand, bound = self._bind(now)
        if brand is not None:
            customers = self._customers(connection, brand, bound)
            bound = [one for one in bound if one.line not in self.verdicts]
            said = bind_contents(self._runtime, connection, brand, bound, customers, self.refuse)
            used = self._insert(connection, brand, self._now, customers, said.intents)
            said.hold(connection, used)
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
        reconsider(self._runtime, self._puts)

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
            enter_gate(connection, brand.id)
            merged = merge_rows(rows)
            puts = upsert_customers(connection, brand.id, merged, test=self._submission.test)
            self._puts = list(puts.values())
            if heed(self._runtime, connection, brand.id, {row["ref"] for row in rows}):
                self._now = ledger_now(connection)  # what was said just now counts already
        refs = {one.ref for one in bound if one.line not in self.verdicts}
        test = self._submission.test
        customers = find_customers(connection, brand.id, refs, test=test)
        for one in bound:
            if one.ref not in customers:
                self.refuse(one.line, unknown_customer(one.document["to"], test=test), one.id)
        return customers

    def _insert(
        self,
        connection: Connection,
        brand: Brand,
        now: datetime,
        customers: Mapping[str, CustomerRow],
        contents: Sequence[tuple[Bound, int]],
    ) -> set[int]:
        """Decide each intent at once, and write down those for which there is a way.

        Return the contents that these have.
        """
        test = self._submission.test
        channels = self._runtime.channels(test=test)
        services = self._runtime.services(test=test)
        pauses = pauses_in_force(connection)
        resting = self._runtime.resting_channels(self._health)[test]
        chooser = Chooser(self._runtime, connection, self._health, pauses)
        named = [customers[one.ref] for one, _ in contents]
        known = persons(
            connection,
            brand,
            {one.id for one in named},
            marketing=any(one.kind == Kind.MARKETING for one, _ in contents),
            particular={one.id for one in named if one.particular},
        )
        rows = []
        bound: dict[UUID, Bound] = {}
        for one, content_id in contents:
            customer = customers[one.ref]
            who = known.get(customer.id, STRANGER)
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
                resting=resting,
                services=services,
                expires_at=expires_at,
                send_after=one.send_after,
                pauses=pauses,
                topic_id=one.topic_id,
                kind=one.kind,
                urgency=one.urgency,
                when_blocked=one.when_blocked,
                person=who.person,
                rules=brand.rules,
                activity=who.activity,
            )
            decision = decide(situation, now)
            verdict = decision.verdict
            if isinstance(verdict, Stop):
                self.refuse(one.line, unreachable(decision), one.id)
                continue
            choice = Choice()
            if one.urgency == Urgency.URGENT and isinstance(verdict, Send):
                choice = chooser.choose(verdict.channel, test=test)
            rows.append(
                {
                    **intent_fields(one, customer.id, content_id, expires_at),
                    **first_decision(decision, expires_at),
                    **verdict_fields(verdict, now, choice, self._runtime.timing.hint_lost),
                }
            )
            bound[one.id] = one
        new = self._write(connection, brand, now, rows, bound)
        return {row["content_id"] for row in rows if row["id"] in new}

    def _write(
        self,
        connection: Connection,
        brand: Brand,
        now: datetime,
        rows: list[dict[str, Any]],
        bound: Mapping[UUID, Bound],
    ) -> Collection[UUID]:
        if not rows:
            return ()
        rows.sort(key=itemgetter("id"))  # the one order, so that two chunks never deadlock
        new = insert_accepted(
            connection,
            brand.id,
            rows,
            test=self._submission.test,
            trace=self._submission.trace,
            now=now,
        )
        for row in rows:
            if row["id"] in new:
                one = bound[row["id"]]
                self.verdicts[one.line] = Verdict(one.line, "accepted", one.id, one.key)
                if row["account"]:
                    delivery_id = new[one.id]
                    assert delivery_id is not None  # noqa: S101  # an account means a delivery
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
        return new

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
