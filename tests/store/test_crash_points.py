"""A crash between any two writes, everywhere: run again, everything ends as if nothing had been.

Each use case is ended before its n-th statement, commit, message or hint, for every n that there
is; what it had open is rolled back, as it is when its process dies. Then two minutes pass, and
another process does what is due.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import NAMESPACE_DNS, uuid4, uuid5

import orjson
import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from app.domain.tokens import Purpose
from app.store.inbox import TRACKING, Arrival, keep_arrivals
from app.usecases.delivering import settling
from app.usecases.hearing.feedback import read_feedback
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.operating.apply import Declared, apply
from tests.store.conftest import DECLARED, House, KeptHints, customer, intent, policy

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PEOPLE = ("ada", "bob", "cyd")
"""Ada's mailbox takes everything, Bob's is gone, Cyd's is busy at the first try."""


class Crash(BaseException):
    """The process ends here."""


class Points:
    """Counts the points that a use case passes, and ends it before the one chosen."""

    def __init__(self) -> None:
        self.fatal = 0
        self.passed = 0

    def __call__(self, *given: object, **__: object) -> None:
        self.passed += 1
        if self.passed == self.fatal:
            if given and isinstance(given[0], Connection):
                # Ended in a commit, SQLAlchemy takes it for done and would keep its locks.
                given[0].connection.rollback()
            raise Crash


class FatalHints(KeptHints):
    """Hints before each of which the process may end."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self.points = points

    def deliver(self, channel: str, lane: str, batches: Any) -> None:
        self.points()
        super().deliver(channel, lane, batches)

    def decide(self, intents: Any) -> None:
        self.points()
        super().decide(intents)


@pytest.fixture
def points(house: House, monkeypatch: pytest.MonkeyPatch) -> Points:
    points = Points()
    event.listen(house.runtime.engine, "before_cursor_execute", points)
    event.listen(house.runtime.engine, "commit", points)
    house.hints = FatalHints(points)
    house.runtime = replace(house.runtime, hints=house.hints)
    relay = house.runtime.accounts["relay"].provider
    send = relay.send

    def fatal_send(batch: Any, deadline: float) -> Any:
        points()
        return send(batch, deadline)

    monkeypatch.setattr(relay, "send", fatal_send)
    again = policy("again", (["email"], 1800), (["email"], None))
    apply(house.runtime, replace(DECLARED, policies={**DECLARED.policies, "again": again}))
    return points


def address(who: str, name: str) -> str:
    return f"{who}-{name}@example.com"


def enter(house: House, name: str, **more: Any) -> None:
    """Accept one intent for each of the people, and one that is refused."""
    documents = [
        intent(customer(f"{who}-{name}"), key=f"{who}-{name}", campaign=name, **more)
        for who in PEOPLE
    ]
    documents[0]["urgency"] = "urgent"
    chunk = uuid5(NAMESPACE_DNS, name)
    accept(
        house.runtime,
        Submission("demo", chunk, keep_refusals=True),
        [*documents, intent("nobody", key=name)],
    )


def later(house: House) -> None:
    """Two minutes pass."""
    for table, clock in (("deliveries", "due_at"), ("intents", "decide_at"), ("inbox", "due_at")):
        house.execute(
            f"UPDATE {table} SET {clock} = {clock} - interval '2 minutes'"
            f" WHERE {clock} < now() + interval '2 minutes'"
        )


def do_what_is_due(house: House) -> None:
    """Run the house until nothing moves any more."""
    house.work()
    for _ in range(12):
        later(house)
        house.run()
        read_feedback(house.runtime)
        waiting = (
            "SELECT FROM deliveries WHERE state IN ('planned', 'queued', 'sending', 'unknown')"
            " UNION ALL SELECT FROM deliveries WHERE due_at < now() + interval '2 minutes'"
            " UNION ALL SELECT FROM inbox WHERE due_at IS NOT NULL"
        )
        if not house.rows(waiting):
            return
    pytest.fail("it does not come to rest")


def nothing(house: House, name: str) -> None:
    pass


def entered(house: House, name: str) -> None:
    enter(house, name, policy="again")


def hinted(house: House, name: str) -> None:
    entered(house, name)
    house.tick()


def work(house: House, name: str) -> None:
    house.work()


def tick(house: House, name: str) -> None:
    house.tick()


def died_in_hand(house: House, name: str) -> None:
    """A worker has claimed, and is never heard of again; its lease has ended."""
    hinted(house, name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(house.runtime.accounts["relay"].provider, "send", dies)
        with pytest.raises(Crash):
            house.work()
    house.hints.deliveries.clear()
    later(house)


def dies(batch: Any, deadline: float) -> Any:
    raise Crash


def tick_and_work(house: House, name: str) -> None:
    """Leases become unknown in one tick, and are resolved and released in the next."""
    house.tick()
    house.run()


def unseen(house: House, name: str) -> None:
    """All is handed over, and half an hour has passed without an open."""
    hinted(house, name)
    house.work()
    relent(house, name)
    do_what_is_due(house)
    house.execute(
        "UPDATE deliveries SET handed_over_at = handed_over_at - interval '31 minutes',"
        " due_at = CASE WHEN due_at IS NOT NULL THEN now() END WHERE campaign = :name",
        name=name,
    )


def opened(house: House, name: str) -> None:
    """Ada opens hers, in the very moment in which the next one is due."""
    unseen(house, name)
    [delivery] = house.rows(
        "SELECT d.id FROM deliveries d JOIN intents i ON i.id = d.intent_id WHERE i.key = :key",
        key=f"ada-{name}",
    )
    body = {"delivery": delivery.id, "event": "opened", "index": 0, "agent": BROWSER}
    body |= {"ip": "127.0.0.1", "method": "GET"}
    with house.runtime.engine.begin() as connection:
        keep_arrivals(connection, [Arrival(TRACKING, uuid4().hex, orjson.dumps(body))])


def read(house: House, name: str) -> None:
    read_feedback(house.runtime)


def relent(house: House, name: str) -> None:
    """Cyd's mailbox takes mail from now on."""
    house.sink.faults.refuse.pop(address("cyd", name), None)


@dataclass(frozen=True)
class Ending:
    """Where everything of one run ended: intents, deliveries, refusals, and what arrived."""

    intents: dict[str, tuple[str, int]]
    deliveries: dict[tuple[str, int], str]
    refusals: int
    arrived: dict[tuple[str, int], int]
    doubts: dict[tuple[str, int], int]


def ending(house: House, name: str) -> Ending:
    intents = house.rows(
        "SELECT i.key, i.state, (SELECT count(*) FROM deliveries d WHERE d.intent_id = i.id)"
        " FROM intents i WHERE campaign = :name",
        name=name,
    )
    deliveries = house.rows(
        "SELECT i.key, d.id, d.step, d.state, (SELECT count(*) FROM attempts a"
        " WHERE a.delivery_id = d.id AND a.outcome = 'ambiguous')"
        " FROM deliveries d JOIN intents i ON i.id = d.intent_id WHERE d.campaign = :name",
        name=name,
    )
    sign = house.runtime.words.signer.sign
    marks = [envelope.header("X-Converge-Delivery") for envelope in house.sink.messages]
    who = {row.id: (row.key.removesuffix(name), row.step) for row in deliveries}
    return Ending(
        intents={row[0].removesuffix(name): (row[1], row[2]) for row in intents},
        deliveries={who[row.id]: row.state for row in deliveries},
        refusals=len(house.rows("SELECT FROM refusals WHERE key = :name", name=name)),
        arrived={who[row.id]: marks.count(sign(Purpose.TRACE, row.id)) for row in deliveries},
        doubts={who[row.id]: row[4] for row in deliveries},
    )


Step = Callable[[House, str], None]


@contextmanager
def counted(points: Points, fatal: int) -> Iterator[None]:
    points.passed, points.fatal = 0, fatal
    try:
        yield
    finally:
        points.fatal = 0


@pytest.mark.parametrize(
    ("prepare", "use_case", "again", "forgets"),
    [
        (nothing, entered, entered, False),
        (nothing, entered, entered, True),
        (entered, tick, nothing, False),
        (entered, tick, nothing, True),
        (hinted, work, nothing, False),
        (hinted, work, nothing, True),
        (died_in_hand, tick_and_work, nothing, True),
        (unseen, tick_and_work, nothing, True),
        (opened, read, read, True),
    ],
    ids=[
        *("accept", "accept-hints-lost", "dispatch", "dispatch-hints-lost"),
        *("deliver", "deliver-hints-lost", "lease-ended", "escalate", "feedback"),
    ],
)
def test_a_crash_at_any_point_changes_nothing(
    house: House, points: Points, prepare: Step, use_case: Step, again: Step, forgets: bool
) -> None:
    """`again` is what the one who asked does when no answer comes; `forgets` also loses hints."""
    reference: Ending | None = None
    for fatal in count():
        name = f"run-{fatal}"
        house.sink.faults.refuse = {
            address("bob", name): "550 5.1.1 No such user",
            address("cyd", name): "451 4.3.0 Busy",
        }
        prepare(house, name)
        crashed = False
        with counted(points, fatal):
            try:
                use_case(house, name)
            except Crash:
                crashed = True
        if crashed and forgets:
            house.hints.deliveries.clear()
            house.hints.decisions.clear()
        again(house, name)
        relent(house, name)
        do_what_is_due(house)
        end = ending(house, name)
        if reference is None:
            reference = end
            assert end.deliveries, "there is something to lose"
        told = f"crashed before point {fatal}"
        assert replace(end, arrived={}, doubts={}) == replace(reference, arrived={}, doubts={}), (
            told
        )
        for key, arrived in end.arrived.items():
            assert arrived >= reference.arrived[key], f"{told}: {key} is lost"
            more = end.doubts[key] - reference.doubts[key]
            assert arrived <= reference.arrived[key] + max(more, 0), f"{told}: {key} came again"
        if fatal and not crashed:
            break
    assert fatal > 3, "it passed some points"


def test_a_ledger_that_is_away_while_mail_leaves_hears_of_it_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is settled by the worker that sent it, however long it must ask."""
    monkeypatch.setattr(settling, "AGAIN_S", 0.01)
    engine, relay = house.runtime.engine, house.runtime.accounts["relay"].provider
    send, refused = relay.send, iter(range(5))

    def away(*_: object, **__: object) -> None:
        if next(refused, None) is not None:
            raise OperationalError("", {}, Exception("the ledger is away"))

    def sent_while_away(batch: Any, deadline: float) -> Any:
        outcomes = send(batch, deadline)
        house.runtime.catalog.forget()  # it is read again every other second
        event.listen(engine, "before_cursor_execute", away)
        return outcomes

    monkeypatch.setattr(relay, "send", sent_while_away)
    house.accept(intent(customer()))
    assert house.run() == {"sent": 1}
    assert house.states() == {"sent": 1}
    assert len(house.sink.messages) == 1


def test_what_was_declared_a_moment_ago_is_known_before_anything_leaves(house: House) -> None:
    """Another process has applied a new sender and a new policy, and accepted an intent."""
    known = house.runtime.catalog()
    brand = DECLARED.brands["demo"]
    senders = {**brand.senders, "club": {"name": "Club", "email": "club@shop.example"}}
    policies = {**DECLARED.policies, "brand-new": policy("brand-new", (["email"], None))}
    new = Declared(brands={"demo": replace(brand, senders=senders)}, policies=policies)
    apply(house.runtime, new)
    house.accept(intent(customer(), sender="club", policy="brand-new"))
    house.runtime.catalog._catalog = known
    assert house.run() == {"sent": 1}
    assert house.states() == {"sent": 1}
