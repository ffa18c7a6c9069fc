"""The decision: tables of situations, and properties that hold for all of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import (
    Decision,
    PastDelivery,
    Reachable,
    Reason,
    Send,
    Situation,
    Stop,
    Wait,
    decide,
)
from app.domain.pause import Pause
from app.domain.policy import Policy, Step
from app.domain.vocabulary import Channel, DeliveryState, IntentState

NOW = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EMAIL, SMS, CHAT = Channel.EMAIL, Channel.SMS, Channel.CHAT
LADDER = Policy(
    "notify",
    (Step((EMAIL,), 1800), Step((CHAT, SMS), 7200), Step((SMS,))),
    expires_after=3 * 86_400,
)
IN_FLIGHT = {DeliveryState(name) for name in ("planned", "queued", "sending", "unknown")}
ENDPOINTS = (Reachable(1, EMAIL), Reachable(2, SMS), Reachable(3, CHAT))


def situation(**changes: object) -> Situation:
    usual: dict[str, object] = {
        "policy": LADDER,
        "brand_id": 1,
        "sender_id": 1,
        "campaign": "",
        "endpoints": ENDPOINTS,
        "channels": frozenset(Channel),
        "expires_at": NOW + timedelta(days=3),
    }
    return Situation(**{**usual, **changes})  # type: ignore[arg-type]


def past(
    step: int,
    channel: Channel,
    state: DeliveryState,
    endpoint: int | None = None,
    ago: timedelta | None = None,
) -> PastDelivery:
    known = {EMAIL: 1, SMS: 2, CHAT: 3}
    at = None if ago is None else NOW - ago
    return PastDelivery(step, channel, endpoint or known[channel], state, at)


def taken(decision: Decision) -> tuple[int, Channel, int]:
    assert isinstance(decision.verdict, Send), decision
    return decision.verdict.step, decision.verdict.channel, decision.verdict.endpoint_id


def why(decision: Decision) -> list[tuple[int, str, str]]:
    return [(one.step, one.channel.value, one.why.value) for one in decision.considered]


def test_the_first_step_is_taken_at_once() -> None:
    decision = decide(situation(), NOW)
    assert taken(decision) == (0, EMAIL, 1)
    assert why(decision) == [(0, "email", "chosen")]


def test_what_is_for_later_waits_and_says_until_when() -> None:
    later = NOW + timedelta(hours=3)
    assert decide(situation(send_after=later), NOW).verdict == Wait(later, "send_after", own=True)
    assert taken(decide(situation(send_after=later), later)) == (0, EMAIL, 1)


def test_a_blocked_step_passes_on_to_the_next_that_can_be_reached() -> None:
    decision = decide(situation(endpoints=(Reachable(2, SMS),)), NOW)
    assert taken(decision) == (1, SMS, 2)
    assert why(decision) == [
        (0, "email", "no_endpoint"),
        (1, "chat", "no_endpoint"),
        (1, "sms", "chosen"),
    ]


@pytest.mark.parametrize("first", [DeliveryState.FAILED, DeliveryState.DELIVERED])
def test_the_clock_is_that_of_what_was_handed_over_last_in_its_step(first: DeliveryState) -> None:
    """The first address of the step bounced, or was thought to; a second one took its place."""
    two = (Reachable(1, EMAIL), Reachable(9, EMAIL), Reachable(2, SMS))
    tried = (
        past(0, EMAIL, first, ago=40 * MINUTE),
        past(0, EMAIL, DeliveryState.SENT, endpoint=9, ago=10 * MINUTE),
    )
    decision = decide(situation(endpoints=two, past=tried), NOW)
    assert decision.verdict == Wait(NOW + 20 * MINUTE, "not_yet_unseen")
    assert taken(decide(situation(endpoints=two, past=tried), NOW + 20 * MINUTE))[:2] == (1, SMS)


def test_a_channel_that_nobody_serves_is_told_from_one_whose_accounts_rest() -> None:
    decision = decide(situation(channels=frozenset({SMS})), NOW)
    assert taken(decision) == (1, SMS, 2)
    assert why(decision)[0] == (0, "email", "no_account")


def test_the_channel_left_in_favour_of_another_is_told() -> None:
    decision = decide(situation(past=(past(0, EMAIL, DeliveryState.SENT, ago=31 * MINUTE),)), NOW)
    assert taken(decision) == (1, CHAT, 3)
    assert why(decision) == [(1, "chat", "chosen"), (1, "sms", "lower_score")]


def test_nobody_reachable_is_said_at_once_even_for_later() -> None:
    decision = decide(situation(endpoints=(), send_after=NOW + MINUTE), NOW)
    assert decision.verdict == Stop(IntentState.EXHAUSTED, "unreachable")
    assert {one.why for one in decision.considered} == {Reason.NO_ENDPOINT}


@pytest.mark.parametrize("state", ["planned", "queued", "sending", "unknown"])
def test_nothing_is_said_twice_while_a_delivery_is_in_flight(state: str) -> None:
    decision = decide(situation(past=(past(0, EMAIL, DeliveryState(state)),)), NOW)
    assert isinstance(decision.verdict, Wait)


def test_the_clock_starts_at_hand_over() -> None:
    handed = past(0, EMAIL, DeliveryState.SENT, ago=29 * MINUTE)
    assert decide(situation(past=(handed,)), NOW).verdict == Wait(NOW + MINUTE, "not_yet_unseen")
    assert taken(decide(situation(past=(handed,)), NOW + MINUTE)) == (1, CHAT, 3)


def test_the_clock_stands_still_while_its_work_is_paused() -> None:
    handed = past(0, EMAIL, DeliveryState.SENT, ago=60 * MINUTE)
    pause = Pause(NOW - 50 * MINUTE, NOW - 10 * MINUTE, channel="email")
    waiting = decide(situation(past=(handed,), pauses=(pause,)), NOW)
    assert waiting.verdict == Wait(NOW + 10 * MINUTE, "not_yet_unseen")
    other = Pause(NOW - 50 * MINUTE, NOW - 10 * MINUTE, channel="sms")
    assert taken(decide(situation(past=(handed,), pauses=(other,)), NOW)) == (1, CHAT, 3)


def test_a_pause_in_force_keeps_the_clock_from_ringing() -> None:
    handed = past(0, EMAIL, DeliveryState.SENT, ago=300 * MINUTE)
    pause = Pause(NOW - 290 * MINUTE, sender_id=1)
    verdict = decide(situation(past=(handed,), pauses=(pause,)), NOW).verdict
    assert isinstance(verdict, Wait)
    assert verdict.until > NOW


def test_a_failure_takes_another_way_of_the_same_step_first() -> None:
    failed = (
        past(0, EMAIL, DeliveryState.SENT, ago=40 * MINUTE),
        past(1, CHAT, DeliveryState.FAILED),
    )
    decision = decide(situation(past=failed), NOW)
    assert taken(decision) == (1, SMS, 2)
    assert why(decision) == [(1, "chat", "over"), (1, "sms", "chosen")]


def test_a_failure_with_no_other_way_escalates_at_once() -> None:
    decision = decide(situation(past=(past(0, EMAIL, DeliveryState.FAILED),)), NOW)
    assert taken(decision) == (1, CHAT, 3)


def test_a_second_address_is_tried_before_the_next_step() -> None:
    endpoints = (Reachable(1, EMAIL), Reachable(7, EMAIL), Reachable(2, SMS))
    decision = decide(
        situation(endpoints=endpoints, past=(past(0, EMAIL, DeliveryState.FAILED),)), NOW
    )
    assert taken(decision) == (0, EMAIL, 7)


def test_after_the_last_step_the_intent_stays_open_until_it_expires() -> None:
    climbed = tuple(
        past(step, channel, DeliveryState.SENT, ago=400 * MINUTE)
        for step, channel in enumerate((EMAIL, CHAT, SMS))
    )
    open_still = situation(past=climbed)
    assert decide(open_still, NOW).verdict == Wait(open_still.expires_at, "last_step")
    ended = decide(open_still, open_still.expires_at).verdict
    assert ended == Stop(IntentState.EXHAUSTED, "unseen_after_the_last_step")


def test_an_unfinished_ladder_expires() -> None:
    early = situation(past=(past(0, EMAIL, DeliveryState.PLANNED),), expires_at=NOW)
    assert decide(early, NOW).verdict == Stop(IntentState.EXPIRED, "expires_at")


def test_when_nothing_can_still_come_the_intent_is_exhausted() -> None:
    failed = tuple(
        past(step, channel, DeliveryState.FAILED)
        for step, channel in ((0, EMAIL), (1, CHAT), (1, SMS), (2, SMS))
    )
    verdict = decide(situation(past=failed), NOW).verdict
    assert verdict == Stop(IntentState.EXHAUSTED, "nothing_can_still_come")


def test_a_paused_channel_is_left_for_another_of_the_step_and_else_held() -> None:
    chat_paused = (Pause(NOW - MINUTE, channel="chat"),)
    unseen = (past(0, EMAIL, DeliveryState.SENT, ago=31 * MINUTE),)
    decision = decide(situation(past=unseen, pauses=chat_paused), NOW)
    assert taken(decision) == (1, SMS, 2)
    assert why(decision) == [(1, "chat", "paused"), (1, "sms", "chosen")]
    email_paused = (Pause(NOW - MINUTE, channel="email"),)
    held = decide(situation(pauses=email_paused), NOW)
    assert taken(held) == (0, EMAIL, 1)


channels = st.sampled_from(list(Channel))
steps = st.lists(
    st.builds(
        Step,
        st.lists(channels, min_size=1, max_size=3, unique=True).map(tuple),
        st.floats(1, 10_000),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    policy = Policy("any", tuple(draw(steps)), 3600)
    endpoints = [
        Reachable(number, channel)
        for number, channel in enumerate(draw(st.lists(channels, max_size=6)), start=1)
    ]
    deliveries = []
    for step in range(draw(st.integers(0, len(policy.steps)))):
        fitting = [one for one in endpoints if one.channel in policy.steps[step].channels]
        for endpoint in draw(
            st.lists(st.sampled_from(fitting), unique=True) if fitting else st.just([])
        ):
            state = draw(st.sampled_from(list(DeliveryState)))
            handed = state in (DeliveryState.SENT, DeliveryState.DELIVERED)
            at = NOW - timedelta(seconds=draw(st.integers(0, 20_000))) if handed else None
            untried = state is DeliveryState.PLANNED and draw(st.booleans())
            deliveries.append(
                PastDelivery(step, endpoint.channel, endpoint.id, state, at, untried=untried)
            )
    return Situation(
        policy=policy,
        brand_id=1,
        sender_id=1,
        campaign="",
        endpoints=endpoints,
        channels=frozenset(draw(st.sets(channels))),
        expires_at=NOW + timedelta(seconds=draw(st.integers(-10, 10_000))),
        past=tuple(deliveries),
        resting=frozenset(draw(st.sets(channels, max_size=2))),
    )


@given(situations())
def test_a_decision_never_repeats_itself_and_never_goes_back(given_situation: Situation) -> None:
    decision = decide(given_situation, NOW)
    verdict = decision.verdict
    if isinstance(verdict, Send):
        assert given_situation.expires_at > NOW
        assert verdict.channel in given_situation.channels
        assert verdict.channel in given_situation.policy.steps[verdict.step].channels
        assert all(
            (one.step, one.endpoint_id) != (verdict.step, verdict.endpoint_id)
            for one in given_situation.past
        )
        assert verdict.step >= max((one.step for one in given_situation.past), default=0)
        ways = [one for one in decision.considered if one.endpoint_id is not None]
        able = [one for one in ways if one.why is Reason.CHOSEN]
        first = (able or [one for one in ways if one.why is Reason.UNHEALTHY])[0]
        assert (first.step, first.endpoint_id) == (verdict.step, verdict.endpoint_id)
        assert (verdict.channel in given_situation.resting) is not bool(able)
        assert len(able) <= 1
        out = [one for one in given_situation.past if one.state in IN_FLIGHT]
        assert not out or able, "what is on its way is replaced by what can go alone"
        assert all(one.untried and one.channel in given_situation.resting for one in out)
    elif isinstance(verdict, Wait):
        assert NOW < verdict.until <= given_situation.expires_at
    else:
        assert verdict.state is not IntentState.SEEN
