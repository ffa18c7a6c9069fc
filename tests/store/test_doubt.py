"""A text without a verdict: what its vendor tells by our own number ends the doubt, at any time."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from app.channels.registry import build_accounts
from app.store.inbox import Arrival, keep_arrivals
from app.usecases.delivering import deliver as delivering
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.hearing.feedback import read_feedback
from app.usecases.hearing.hooks import PATH
from app.usecases.operating.apply import Declared, apply
from tests.contract.servers import Answer, Request, ScriptedHttp
from tests.store.conftest import DECLARED, House, intent, policy

TWILIO = {
    "channel": "sms",
    "provider": "twilio",
    "account_sid": "AC" + "0" * 32,
    "auth_token": "token",
    "public_url": "https://converge.example",
}
ON_THE_WAY = ("queued", "sending", "sent")


class Killed(BaseException):
    """The worker is gone."""


@dataclass
class Texting:
    """A house that texts through a Twilio of its own, which takes everything.

    One that is `silent` answers nothing.
    """

    house: House
    posts: list[Request] = field(default_factory=list)
    silent: bool = False

    def answer(self, request: Request) -> Answer:
        self.posts.append(request)
        if self.silent:
            return Answer(how="hang")
        return Answer(201, b'{"sid": "SM%d"}' % len(self.posts))

    def dies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker hands the text over, and is killed before it settles."""

        def die(*_: object, **__: object) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(delivering, "settle_tried", die)
            [(_, _, account, ids)] = self.house.hints.deliveries
            self.house.hints.deliveries.clear()
            with pytest.raises(Killed):
                deliver(self.house.runtime, account, ids, Hand())

    def told(self, status: str, sid: str = "SM1") -> None:
        """Twilio calls the text's own address."""
        [row] = self.house.rows("SELECT id FROM deliveries")
        body = urlencode({"MessageSid": sid, "MessageStatus": status}).encode()
        arrival = Arrival("texts", uuid4().hex, body, {PATH: f"/{row.id}"})
        with self.house.runtime.engine.begin() as connection:
            keep_arrivals(connection, [arrival])
        read_feedback(self.house.runtime)
        unread = self.house.rows("SELECT problem FROM inbox WHERE problem IS NOT NULL")
        assert unread == []

    def later(self) -> None:
        """All clocks ring, twice."""
        for _ in range(2):
            self.house.execute("UPDATE deliveries SET due_at = now() WHERE state <> 'queued'")
            self.house.tick()

    def state(self) -> str:
        [row] = self.house.rows("SELECT state FROM deliveries")
        return str(row.state)


@pytest.fixture
def texting(house: House, request: pytest.FixtureRequest) -> Iterator[Texting]:
    texting = Texting(house, silent=getattr(request, "param", False))
    patience = {"read_timeout": 0.3} if texting.silent else {}
    with ScriptedHttp(texting.answer).running() as server:
        accounts = build_accounts({"texts": {**TWILIO, **patience, "url": server.url}}, {})
        wishes = policy("sms-only", (["sms"], 1800), (["email"], None))
        apply(house.runtime, Declared(DECLARED.brands, {"sms-only": wishes}))
        house.runtime = replace(house.runtime, accounts={**house.runtime.accounts, **accounts})
        house.accept(intent({"ref": "ada", "phone": "+12025550102"}, policy="sms-only"))
        house.tick()
        yield texting
        accounts["texts"].provider.close()


silent = pytest.mark.parametrize("texting", [True], indirect=True, ids=["silent"])


@pytest.mark.parametrize("when", ["sending", "unknown", "planned", "queued"])
@pytest.mark.parametrize("status", [*ON_THE_WAY, "delivered", "undelivered"])
def test_a_killed_workers_text_is_not_sent_again_once_it_is_told_of(
    texting: Texting, monkeypatch: pytest.MonkeyPatch, when: str, status: str
) -> None:
    texting.dies(monkeypatch)
    house = texting.house
    if when != "sending":
        house.execute("UPDATE deliveries SET due_at = now()")
        house.tick()
    if when in {"planned", "queued"}:
        house.execute("UPDATE deliveries SET due_at = now()")
        house.tick()
        if when == "planned":
            house.execute("UPDATE deliveries SET state = 'planned'")
    assert texting.state() == when
    texting.told(status)
    hinted = house.hints.deliveries
    texting.later()
    house.hints.deliveries += hinted
    house.work()
    assert len(texting.posts) == 1
    states = {"delivered": "delivered", "undelivered": "failed"}
    assert texting.state() == states.get(status, "sent")
    told = [row.type for row in house.rows("SELECT type FROM events")]
    assert told == {"delivered": ["delivered"], "undelivered": ["failed"]}.get(status, [])
    texting.told("read")
    assert texting.state() == "delivered", "its reference is known now"


@silent
def test_a_text_without_an_answer_is_not_sent_again_once_it_is_told_of(texting: Texting) -> None:
    assert texting.house.work() == {"unknown": 1}
    texting.told("queued")
    [row] = texting.house.rows("SELECT state, reason, handed_over_at IS NULL FROM deliveries")
    assert tuple(row) == ("sent", None, False)
    texting.later()
    texting.house.work()
    assert len(texting.posts) == 1
    assert texting.state() == "sent"


@silent
def test_what_is_told_before_the_time_out_ends_the_doubt_at_once(
    texting: Texting, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = delivering.settle_tried

    def told_first(*arguments: object) -> object:
        texting.told("sent")
        return settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(delivering, "settle_tried", told_first)
    texting.house.work()
    assert texting.state() == "sent"
    assert [row.outcome for row in texting.house.rows("SELECT outcome FROM attempts")] == [
        "ambiguous"
    ]


def test_what_is_told_before_a_worker_settles_changes_nothing_for_it(
    texting: Texting, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = delivering.settle_tried

    def told_first(*arguments: object) -> object:
        for status in ON_THE_WAY:
            texting.told(status)
        return settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(delivering, "settle_tried", told_first)
    assert texting.house.work() == {"sent": 1}
    [row] = texting.house.rows("SELECT state, attempts, provider_ref FROM deliveries")
    assert tuple(row) == ("sent", 1, "SM1")
    [clock] = texting.house.rows("SELECT due_at > now() + interval '20 minutes' FROM deliveries")
    assert clock[0], "its clock runs"
    assert texting.house.hints.decisions == []


def test_what_is_on_its_way_is_no_event_and_waits_for_nothing(texting: Texting) -> None:
    texting.house.work()
    for status in ON_THE_WAY:
        texting.told(status)
        texting.told(status, sid="SMother")
    assert texting.state() == "sent"
    assert texting.house.rows("SELECT FROM events") == []
    assert texting.house.rows("SELECT FROM inbox WHERE due_at IS NOT NULL") == []
