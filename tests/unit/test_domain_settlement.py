"""What becomes of a delivery after each outcome."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.outcome import Accepted, Ambiguous, Blame, RateLimited, Rejected, Retryable
from app.domain.pause import Pause, paused_for
from app.domain.settlement import (
    BACKOFF_CAP,
    ELSEWHERE_AFTER,
    MAX_ATTEMPTS,
    Attempted,
    Settled,
    backoff,
    resolve_unknown,
    settle,
)
from app.domain.states import DELIVERY_MOVES, INTENT_MOVES, may_become
from app.domain.vocabulary import DeliveryState, IntentState, Kind

NOW = datetime(2026, 10, 25, 0, 59, tzinfo=UTC)
HOUR = timedelta(hours=1)


def attempted(**changes: object) -> Attempted:
    usual: dict[str, object] = {
        "attempts": 0,
        "expires_at": NOW + 24 * HOUR,
        "lease_until": NOW + timedelta(seconds=60),
        "timeout": 1800.0,
    }
    return Attempted(**{**usual, **changes})  # type: ignore[arg-type]


def after(outcome: object, **changes: object) -> Settled:
    return settle(attempted(**changes), outcome, NOW, lambda: 0.5)  # type: ignore[arg-type]


def test_accepted_starts_the_escalation_clock() -> None:
    assert after(Accepted("r")) == Settled(DeliveryState.SENT, NOW + HOUR / 2, None, 1)
    assert after(Accepted("r"), timeout=None).due_at is None


def test_a_rate_limit_waits_and_spends_no_attempt() -> None:
    settled = after(RateLimited(7.0))
    assert (settled.state, settled.attempts) == (DeliveryState.PLANNED, 0)
    assert settled.due_at == NOW + timedelta(seconds=7)


def test_a_retry_backs_off_and_moves_to_a_healthy_account() -> None:
    settled = after(Retryable("smtp_451"), elsewhere=True)
    assert (settled.state, settled.attempts, settled.move_account) == (
        DeliveryState.PLANNED,
        1,
        True,
    )
    assert settled.due_at is not None
    assert settled.due_at > NOW


def test_the_last_attempt_fails_and_asks_for_a_decision() -> None:
    settled = after(Retryable("smtp_451"), attempts=MAX_ATTEMPTS - 1)
    assert (settled.state, settled.due_at) == (DeliveryState.FAILED, NOW)


def test_no_retry_is_planned_past_the_deadline() -> None:
    settled = after(RateLimited(3600), expires_at=NOW + HOUR / 2)
    assert (settled.state, settled.due_at) == (DeliveryState.FAILED, NOW)


@pytest.mark.parametrize(
    ("attempts", "elsewhere", "seconds"),
    [(0, True, ELSEWHERE_AFTER), (1, True, 3000), (0, False, 3000)],
)
def test_what_one_account_is_too_slow_for_waits_for_it_only_where_it_must(
    attempts: int, elsewhere: bool, seconds: float
) -> None:
    settled = after(RateLimited(3000), attempts=attempts, elsewhere=elsewhere)
    assert settled.due_at == NOW + timedelta(seconds=seconds)
    assert (settled.state, settled.attempts) == (DeliveryState.PLANNED, attempts)
    assert not settled.move_account, "who takes it is chosen when it is due"


@pytest.mark.parametrize(
    ("blame", "elsewhere", "state", "invalid", "moved"),
    [
        (Blame.RECIPIENT, True, DeliveryState.FAILED, True, False),
        (Blame.CONTENT, True, DeliveryState.FAILED, False, False),
        (Blame.ACCOUNT, True, DeliveryState.PLANNED, False, True),
        (Blame.ACCOUNT, False, DeliveryState.PLANNED, False, False),
    ],
)
def test_a_rejection_follows_its_blame(
    blame: Blame, elsewhere: bool, state: DeliveryState, invalid: bool, moved: bool
) -> None:
    settled = after(Rejected("x", blame), elsewhere=elsewhere)
    assert (settled.state, settled.endpoint_invalid, settled.move_account) == (
        state,
        invalid,
        moved,
    )


def test_the_ambiguous_is_sent_again_only_where_that_is_safe() -> None:
    assert after(Ambiguous("lost"), idempotent=True).state is DeliveryState.PLANNED
    unknown = after(Ambiguous("lost"))
    assert (unknown.state, unknown.due_at) == (
        DeliveryState.UNKNOWN,
        NOW + timedelta(seconds=60),
    )


def test_the_same_key_goes_again_to_the_same_account_alone() -> None:
    assert not after(Ambiguous("lost"), idempotent=True, elsewhere=True).move_account


def test_accounts_that_all_refuse_us_do_not_pass_a_message_round_for_ever() -> None:
    refused = Rejected("http_401", Blame.ACCOUNT)
    settled = after(refused, elsewhere=True, attempts=MAX_ATTEMPTS - 1)
    assert settled.state is DeliveryState.FAILED


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Kind.TRANSACTIONAL, DeliveryState.PLANNED),
        (Kind.CONVERSATIONAL, DeliveryState.PLANNED),
        (Kind.MARKETING, DeliveryState.FAILED),
    ],
)
def test_the_kind_decides_about_what_was_never_heard_of(kind: Kind, state: DeliveryState) -> None:
    assert resolve_unknown(kind, 1, NOW + HOUR, NOW, "lease_ended").state is state
    assert resolve_unknown(kind, 1, NOW, NOW, "lease_ended").state is DeliveryState.FAILED


@given(st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_backoff_is_never_nothing_and_never_beyond_its_cap(attempts: int, chance: float) -> None:
    assert timedelta(seconds=1) <= backoff(attempts, lambda: chance)
    assert backoff(attempts, lambda: chance) <= timedelta(seconds=BACKOFF_CAP)


outcomes = st.one_of(
    st.builds(Accepted),
    st.builds(Retryable, st.just("r")),
    st.builds(RateLimited, st.floats(0, 1e5)),
    st.builds(Rejected, st.just("r"), st.sampled_from(Blame)),
    st.builds(Ambiguous, st.just("r")),
)


@given(
    outcomes,
    st.integers(0, MAX_ATTEMPTS - 1),
    st.integers(1, 100_000),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_every_outcome_settles_into_a_state_that_sending_may_become(
    outcome: object,
    attempts: int,
    left: int,
    elsewhere: bool,
    idempotent: bool,
    chance: float,
) -> None:
    before = attempted(
        attempts=attempts,
        expires_at=NOW + timedelta(seconds=left),
        elsewhere=elsewhere,
        idempotent=idempotent,
    )
    settled = settle(before, outcome, NOW, lambda: chance)  # type: ignore[arg-type]
    assert settled.state in DELIVERY_MOVES[DeliveryState.SENDING]
    assert attempts <= settled.attempts <= attempts + 1 <= MAX_ATTEMPTS
    if settled.state is DeliveryState.PLANNED:
        assert settled.due_at is not None
        assert NOW <= settled.due_at < before.expires_at


def test_no_state_ever_goes_back_to_open_or_from_an_end() -> None:
    over = {IntentState.SEEN, IntentState.EXPIRED, IntentState.CANCELLED}
    assert all(not INTENT_MOVES[state] for state in over)
    assert INTENT_MOVES[IntentState.EXHAUSTED] == {IntentState.OPEN}, "only by an operator's replay"
    assert set(DELIVERY_MOVES) == set(DeliveryState)
    assert not DELIVERY_MOVES[DeliveryState.EXPIRED]
    again = {DeliveryState.PLANNED, DeliveryState.QUEUED}
    assert DELIVERY_MOVES[DeliveryState.CANCELLED] == again, "what was withdrawn untried, alone"
    assert DeliveryState.SENDING not in DELIVERY_MOVES[DeliveryState.SENT]
    assert may_become(DeliveryState.DELIVERED) == ["failed", "sending", "sent", "unknown"]


moments = st.integers(0, 100).map(lambda minutes: NOW + timedelta(minutes=minutes))


@given(st.lists(st.tuples(moments, st.none() | moments)), moments, moments)
def test_paused_time_is_counted_once_however_pauses_overlap(
    spans: list[tuple[datetime, datetime | None]], start: datetime, end: datetime
) -> None:
    end = max(start, end)
    pauses = [Pause(since, None if until is None else max(since, until)) for since, until in spans]
    minutes = 0
    at = start
    while at < end:
        minutes += any(
            one.started_at <= at and (one.ended_at is None or at < one.ended_at) for one in pauses
        )
        at += timedelta(minutes=1)
    assert paused_for(pauses, start, end) == timedelta(minutes=minutes)
