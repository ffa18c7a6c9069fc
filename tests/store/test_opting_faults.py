"""Saying no beside crashes and beside others: nothing of it is lost, and nothing is said twice."""

from collections.abc import Callable
from random import Random
from threading import Semaphore
from typing import Any

import pytest
from sqlalchemy import Connection, event

from app.domain.tokens import Purpose
from app.domain.vocabulary import Channel
from app.usecases.consent.preferences import correct_address
from app.usecases.consent.voices import Named, Voice
from app.usecases.hearing import feedback
from app.usecases.hearing.feedback import read_feedback
from app.usecases.hearing.unsubscribing import unsubscribe
from app.usecases.people.correcting import AddressChange
from tests.store.conftest import House, customer, intent
from tests.store.interleaving import side_by_side
from tests.store.test_crash_points import Crash, FatalHints, Points, later
from tests.store.test_feedback_reports import PHONE, answer, came, report
from tests.store.test_opting import OTHER, STOPPED, Texts, consents, send, texting, texts

__all__ = ["texting", "texts"]


@pytest.fixture
def points(texting: House, monkeypatch: pytest.MonkeyPatch) -> Points:
    points = Points()
    event.listen(texting.runtime.engine, "before_cursor_execute", points)
    event.listen(texting.runtime.engine, "commit", points)
    hints = FatalHints(points)
    monkeypatch.setattr(texting, "hints", hints)
    object.__setattr__(texting.runtime, "hints", hints)  # the runtime is frozen and shared here
    return points


def said_by(house: House, ref: str) -> list[tuple[Any, ...]]:
    return [row[1:] for row in consents(house) if row[0] == ref]


def crashes(points: Points, fatal: int, act: Any) -> bool:
    points.passed, points.fatal = 0, fatal
    try:
        act()
    except Crash:
        return True
    finally:
        points.fatal = 0
    return False


def test_a_crash_anywhere_in_a_stop_loses_and_repeats_nothing(
    texting: House, texts: Texts, points: Points
) -> None:
    crashed, fatal = True, 0
    while crashed:
        fatal += 1
        ref, phone = f"p{fatal}", f"+1202555{1000 + fatal}"
        send(texting, ref, phone)
        came(texting, answer(f"IN{fatal}", phone, "stop"))
        crashed = crashes(points, fatal, lambda: read_feedback(texting.runtime))
        if crashed:
            texting.hints.deliveries.clear()
        read_feedback(texting.runtime)
        texting.work()
        later(texting)
        texting.run()
        told = f"crashed before point {fatal}"
        assert said_by(texting, ref) == [("sms", None, None, False, "text")], told
        assert [text for to, text in texts.said if to == phone][1:] == [STOPPED], told
    assert fatal > 10, "it passed some points"


def test_a_crash_anywhere_in_a_click_is_made_good_by_the_next_one(
    texting: House, points: Points
) -> None:
    house = texting
    sign = house.runtime.words.signer.sign
    crashed, fatal = True, 0
    while crashed:
        fatal += 1
        ref = f"p{fatal}"
        send(house, ref, f"+1202555{1000 + fatal}", policy="sms-only", kind="conversational")
        number = house.rows("SELECT max(id) AS id FROM deliveries")[0].id
        now = house.rows("SELECT now() AS now")[0].now
        token = sign(Purpose.UNSUBSCRIBE, number)

        def click(token: str = token, now: Any = now) -> None:
            unsubscribe(house.runtime, token, now)

        crashed = crashes(points, fatal, click)
        events = house.rows("SELECT FROM events WHERE delivery_id = :id", id=number)
        assert len(events) == len(said_by(house, ref)), "one is never there without the other"
        click()
        assert said_by(house, ref) == [(None, None, "conversational", False, "one_click")]
    assert fatal > 5, "it passed some points"


@pytest.mark.parametrize("seed", range(2))
def test_two_stops_at_once_are_one_no_and_one_confirmation(
    texting: House, texts: Texts, database_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(feedback, "BATCH", 1)
    monkeypatch.setattr(feedback, "_reading", Semaphore(2))  # as in two processes
    came(texting, answer("IN1", words="STOP"))
    came(texting, answer("IN2", words="unsubscribe"))

    def act() -> None:
        read_feedback(texting.runtime)

    with side_by_side(texting.runtime.engine, database_url, one=act, two=act) as both:
        both.by_chance(Random(seed))
    texting.work()
    texting.run()
    assert said_by(texting, "ada") == [("sms", None, None, False, "text")]
    assert texts.said[1:] == [("+12025550101", STOPPED)]


@pytest.mark.parametrize("seed", range(2))
def test_a_number_given_to_somebody_while_it_says_no_keeps_the_no(
    texting: House, texts: Texts, database_url: str, seed: int
) -> None:
    came(texting, answer("IN1", OTHER, "STOP"))

    def stop() -> None:
        read_feedback(texting.runtime)

    def accept() -> None:
        texting.accept(intent(customer("bob", phone=OTHER), policy="sms-only"))

    with side_by_side(texting.runtime.engine, database_url, stop=stop, accept=accept) as both:
        both.by_chance(Random(seed))
    texting.hints.decisions.clear()
    texting.run()
    assert said_by(texting, "bob") == [("sms", None, None, False, "text")]
    assert all(text == STOPPED for to, text in texts.said if to == OTHER)


def by_a_chunk(house: House) -> None:
    house.accept(intent(customer("bob", phone=PHONE), policy="sms-only"))


def by_correction(house: House) -> None:
    brand_id = house.runtime.catalog().brands["demo"].id
    change = AddressChange(None, PHONE, Channel.SMS)
    voice = Voice("preferences", own=True, actor="customer")
    correct_address(house.runtime, Named(brand_id, "bob"), change, voice)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("give", [by_a_chunk, by_correction])
def test_a_number_that_changes_hands_while_it_says_no_keeps_the_no(
    texting: House, database_url: str, give: Callable[[House], None]
) -> None:
    house = texting
    gone = {"ref": "ada", "phone": None}
    house.accept(*(intent(to, policy="sms-then-email") for to in (gone, customer("bob"))))
    came(house, answer("IN1", words="STOP"))

    def stop() -> None:
        read_feedback(house.runtime)

    with side_by_side(
        house.runtime.engine, database_url, stop=stop, give=lambda: give(house)
    ) as both:
        both.go("give", "FROM suppressions")
        both.go("give", "SELECT")  # whoever said no was looked for
        assert not both.go("stop"), "it waits for whoever is given the number"
        both.finish()
    assert said_by(house, "bob") == [("sms", None, None, False, "text")]


@pytest.mark.usefixtures("texts")
def test_words_are_read_a_few_at_a_time_and_in_order(
    texting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is given an address while they are, so that must not take as long as a batch does."""
    monkeypatch.setattr(feedback, "WORDS_AT_ONCE", 2)
    closed: list[Connection] = []

    def gates(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if "pg_advisory_xact_lock(" in statement:
            closed.append(connection)

    came(texting, report("SM1", "delivered"))
    for n, words in enumerate(("STOP", "START", "STOP", "hello", "START", "STOP")):
        came(texting, answer(f"IN{n}", words=words))
    event.listen(texting.runtime.engine, "before_cursor_execute", gates)
    counts = read_feedback(texting.runtime)
    event.remove(texting.runtime.engine, "before_cursor_execute", gates)
    assert counts["messages"] == 6
    assert counts["delivered"] == 1
    assert [row[3] for row in said_by(texting, "ada")] == [False, True, False, True, False]
    assert len(set(closed)) == 3, "for two words each time"
