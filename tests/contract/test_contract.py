"""Every provider, in every situation that a vendor or a network can put it in."""

import threading
import time
from collections.abc import Callable

import pytest

from app.channels.contract import (
    Accepted,
    Ambiguous,
    Blame,
    Outcome,
    Provider,
    RateLimited,
    Rejected,
    Retryable,
    WebhookReader,
)
from app.channels.registry import PROVIDERS
from tests.contract.case import CASES, GONE, NULL, Case, HttpCase, Situation

GENEROUS_S = 30.0  # how late a machine may be; a timeout of a provider is far longer or shorter


def _rejected(blame: Blame) -> Callable[[Outcome], bool]:
    return lambda outcome: isinstance(outcome, Rejected) and outcome.blame is blame


def _limited(least: float, most: float) -> Callable[[Outcome], bool]:
    return lambda outcome: isinstance(outcome, RateLimited) and least <= outcome.retry_after <= most


def _is(kind: type) -> Callable[[Outcome], bool]:
    return lambda outcome: isinstance(outcome, kind)


EXPECTED: dict[Situation, Callable[[Outcome], bool]] = {
    Situation.ACCEPTS: _is(Accepted),
    Situation.REFUSES_BAD_RECIPIENT: _is(Accepted),  # of the good; the bad has its own test
    Situation.TOO_FAST_SECONDS: _limited(7, 7),
    Situation.TOO_FAST_DATE: _limited(1, 90),
    Situation.TOO_FAST_BARE: _limited(0.1, 60),
    Situation.UNAVAILABLE_FOR_NOW: _limited(7, 7),
    Situation.FAILS: _is(Retryable),
    Situation.BAD_GATEWAY: _is(Ambiguous),
    Situation.KNOWN_ALREADY: _is(Accepted),
    Situation.WRONG_CREDENTIALS: _rejected(Blame.ACCOUNT),
    Situation.FORBIDDEN: _rejected(Blame.ACCOUNT),
    Situation.TOO_BIG: _rejected(Blame.CONTENT),
    Situation.HANGS: _is(Ambiguous),
    Situation.DROPS: _is(Ambiguous),
    Situation.DROPS_MID_REPLY: _is(Ambiguous),
    Situation.UNREADABLE: _is(Ambiguous),
    Situation.DRIPS: _is(Ambiguous),
    Situation.DRIPS_BODY: _is(Ambiguous),
    Situation.ENDLESS: _is(Ambiguous),
    Situation.NOT_THERE: _is(Retryable),
}
ENDS_BY_THE_CLOCK = {Situation.HANGS, Situation.DRIPS, Situation.DRIPS_BODY, Situation.ENDLESS}

pytestmark = pytest.mark.parametrize(
    "case", [kind() for kind in CASES], ids=lambda c: type(c).__name__
)


def _send(provider: Provider, messages: list, seconds: float) -> list[Outcome]:  # type: ignore[type-arg]
    began = time.monotonic()
    outcomes = provider.send(messages, began + seconds)
    assert time.monotonic() - began < seconds + GENEROUS_S
    assert len(outcomes) == len(messages)
    return outcomes


def _once_it_has_come(case: Case, send: Callable[[float], list[Outcome]]) -> list[Outcome]:
    """Send within so many seconds; within more of them where no message came to its vendor.

    On a slow machine the time may be over before anything has left, and that proves nothing.
    """
    for seconds in (0.5, 5.0, 15.0):
        outcomes = send(seconds)
        if case.came():
            break
    return outcomes


@pytest.mark.parametrize("situation", Situation, ids=lambda s: s.name)
def test_what_happens_is_the_right_outcome(case: Case, situation: Situation) -> None:
    if situation in case.exempt:
        assert case.exempt[situation]
        return

    def send(seconds: float) -> list[Outcome]:
        with case.provider_in(situation) as provider:
            return _send(provider, [case.message(1)], seconds)

    by_the_clock = situation in ENDS_BY_THE_CLOCK
    [outcome] = _once_it_has_come(case, send) if by_the_clock else send(20.0)
    assert EXPECTED[situation](outcome), outcome


MISSHAPEN = {
    "gone": GONE,
    "null": NULL,
    "empty": "",
    "number": 7,
    "boolean": True,
    "list": ["x"],
    "object": {"id": "x"},
    "unprintable": "SM\0",
    "endless": "x" * 1000,
}


@pytest.mark.parametrize("instead", MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_yes_without_a_reference_is_none(case: Case, instead: object) -> None:
    """Receipts would look for it in vain, or find somebody else's."""
    if not isinstance(case, HttpCase):
        return
    misshapen = type(case)()
    misshapen.instead = instead
    with misshapen.provider_in(Situation.UNREADABLE) as provider:
        [outcome] = _send(provider, [case.message(1)], 20.0)
    assert isinstance(outcome, Ambiguous), outcome


def test_its_own_timeouts_end_a_hang_before_the_deadline(case: Case) -> None:
    def send(seconds: float) -> list[Outcome]:
        with case.provider_in(Situation.HANGS, read_timeout=seconds) as provider:
            began = time.monotonic()
            outcomes = _send(provider, [case.message(1)], 100.0)
            assert time.monotonic() - began < seconds + GENEROUS_S
        return outcomes

    [outcome] = _once_it_has_come(case, send)
    assert isinstance(outcome, Ambiguous), outcome


def test_a_bad_recipient_is_blamed_and_its_neighbours_go_on(case: Case) -> None:
    bad = {0, 3, 4, 19}
    messages = [case.message(n, case.bad if n in bad else case.good) for n in range(20)]
    with case.provider_in(Situation.REFUSES_BAD_RECIPIENT) as provider:
        outcomes = _send(provider, messages, 20.0)
    for number, outcome in enumerate(outcomes):
        expected = _rejected(Blame.RECIPIENT) if number in bad else _is(Accepted)
        assert expected(outcome), (number, outcome)


def test_what_cannot_be_sent_is_rejected_and_its_neighbours_go_on(case: Case) -> None:
    unsendable = case.unsendable()
    messages = [case.message(1), *unsendable, case.message(2)]
    with case.provider_in(Situation.ACCEPTS) as provider:
        outcomes = _send(provider, messages, 20.0)
    assert isinstance(outcomes[0], Accepted)
    assert isinstance(outcomes[-1], Accepted)
    assert all(isinstance(outcome, Rejected) for outcome in outcomes[1:-1]), outcomes


def test_nothing_is_begun_after_the_deadline(case: Case) -> None:
    with case.provider_in(Situation.ACCEPTS) as provider:
        outcomes = provider.send([case.message(1), case.message(2)], time.monotonic() - 1)
    assert [type(outcome) for outcome in outcomes] == [Retryable, Retryable]


def test_an_empty_batch_is_no_work(case: Case) -> None:
    with case.provider_in(Situation.NOT_THERE) as provider:
        assert provider.send([], time.monotonic() + 5) == []


def test_a_batch_that_meets_a_hang_ends_for_every_message(case: Case) -> None:
    def send(seconds: float) -> list[Outcome]:
        with case.provider_in(Situation.HANGS) as provider:
            return _send(provider, [case.message(n) for n in range(50)], seconds)

    outcomes = _once_it_has_come(case, send)
    assert {type(outcome) for outcome in outcomes} <= {Ambiguous, Retryable}
    assert any(isinstance(outcome, Ambiguous) for outcome in outcomes)


def test_a_batch_that_is_refused_at_the_door_is_retryable_as_a_whole(case: Case) -> None:
    with case.provider_in(Situation.NOT_THERE) as provider:
        outcomes = _send(provider, [case.message(n) for n in range(50)], 20.0)
    assert {type(outcome) for outcome in outcomes} == {Retryable}


def test_reasons_are_codes_and_hold_no_address(case: Case) -> None:
    for situation in (Situation.REFUSES_BAD_RECIPIENT, Situation.FAILS, Situation.UNREADABLE):
        with case.provider_in(situation) as provider:
            for outcome in _send(provider, [case.message(1, case.bad)], 20.0):
                reason = getattr(outcome, "reason", "none")
                assert reason.replace("_", "").replace(".", "").isalnum(), reason
                assert case.bad.strip("+@").split("@")[0].split(":")[0] not in reason


def test_it_is_used_by_many_threads_at_once(case: Case) -> None:
    results: list[list[Outcome]] = []
    with case.provider_in(Situation.ACCEPTS) as provider:
        threads = [
            threading.Thread(
                target=lambda: results.append(
                    _send(provider, [case.message(n) for n in range(20)], 30.0)
                )
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [len(result) for result in results] == [20] * 4
    assert all(isinstance(outcome, Accepted) for result in results for outcome in result)


def test_its_traits_keep_their_word(case: Case) -> None:
    kind = PROVIDERS[case.provider]
    assert case.channel in kind.traits.channels
    assert issubclass(kind, WebhookReader) == kind.traits.receipts
