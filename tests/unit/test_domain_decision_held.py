"""Decisions where something stands in the way: the customer's word, hours and caps, or accounts
that can take nothing for a while."""

from datetime import timedelta

import pytest

from app.domain.caps import Cap
from app.domain.consent import Consent, Scope
from app.domain.decision import Decision, PastDelivery, Reachable, Stop, Wait, WhenBlocked, decide
from app.domain.pause import Pause
from app.domain.permission import Person, Rules
from app.domain.policy import Policy, Step
from app.domain.vocabulary import Channel, DeliveryState, IntentState
from app.domain.wishes import QuietHours, Wishes
from tests.unit.test_domain_decision import (
    CHAT,
    EMAIL,
    LADDER,
    MINUTE,
    NOW,
    SMS,
    past,
    situation,
    taken,
    why,
)
from tests.unit.test_domain_wishes import BERLIN, NIGHT, local

HOUR = 60 * MINUTE
FAILED = DeliveryState.FAILED
SLEEPS = Person(wishes=Wishes(quiet=NIGHT), zones=[BERLIN])
IN_THE_NIGHT = local(BERLIN, "2026-03-27T23:00")
IN_THE_MORNING = local(BERLIN, "2026-03-28T10:00")
NEXT_MORNING = local(BERLIN, "2026-03-28T08:00")


def at_night(**changes: object) -> Decision:
    usual = {"person": SLEEPS, "expires_at": IN_THE_NIGHT + timedelta(days=3)}
    return decide(situation(**{**usual, **changes}), IN_THE_NIGHT)


@pytest.mark.parametrize("blocked", list(WhenBlocked))
def test_what_is_for_later_minds_what_stands_in_the_way_then(blocked: WhenBlocked) -> None:
    decision = at_night(send_after=IN_THE_MORNING, when_blocked=blocked)
    assert decision.verdict == Wait(IN_THE_MORNING, "send_after", own=True)


def test_what_is_for_an_hour_of_quiet_is_told_so_by_day() -> None:
    noon = IN_THE_NIGHT - 11 * HOUR
    held = situation(person=SLEEPS, send_after=IN_THE_NIGHT)
    assert decide(held, noon).verdict == Wait(NEXT_MORNING, "quiet_until", own=True)
    dropped = situation(person=SLEEPS, send_after=IN_THE_NIGHT, when_blocked=WhenBlocked.DROP)
    assert decide(dropped, noon).verdict == Stop(IntentState.CANCELLED, "dropped_quiet_until")


def test_a_cap_that_is_free_by_then_does_not_hold_what_is_for_later() -> None:
    cap = Cap("daily", 1, 86_400)
    full = Person(counts={"daily": {cap.slot(NOW): 1}})
    later = situation(
        person=full,
        rules=Rules(caps=[cap]),
        send_after=NOW + timedelta(days=2),
        when_blocked=WhenBlocked.DROP,
    )
    assert decide(later, NOW).verdict == Wait(NOW + timedelta(days=2), "send_after", own=True)


@pytest.mark.parametrize("state", [DeliveryState.SENT, DeliveryState.DELIVERED])
def test_a_blocked_step_that_is_dropped_does_not_end_what_may_still_be_seen(
    state: DeliveryState,
) -> None:
    handed = past(0, EMAIL, state, ago=31 * MINUTE)
    quiet = QuietHours.parse("00:00", "08:00")
    open_still = situation(
        past=(handed,),
        person=Person(wishes=Wishes(quiet=quiet), zones=[BERLIN]),
        when_blocked=WhenBlocked.DROP,
    )
    decision = decide(open_still, NOW)
    assert decision.verdict == Wait(open_still.expires_at, "last_step")
    assert why(decision)[-1][2] == "quiet_until"


def test_a_step_whose_accounts_all_rest_is_passed_on_to_one_that_can_go() -> None:
    decision = decide(situation(resting={EMAIL}), NOW)
    assert taken(decision)[:2] == (1, CHAT)
    assert why(decision)[0] == (0, "email", "unhealthy")
    without_chat = decide(situation(resting={EMAIL, CHAT}), NOW)
    assert taken(without_chat)[:2] == (1, SMS)


def test_where_all_rest_the_first_step_waits_for_its_accounts() -> None:
    decision = decide(situation(resting={EMAIL, CHAT, SMS}), NOW)
    assert taken(decision)[:2] == (0, EMAIL)
    assert {each for _, _, each in why(decision)} == {"unhealthy"}


def test_a_paused_step_is_no_way_out_of_one_whose_accounts_rest() -> None:
    pauses = (Pause(NOW - MINUTE, channel="chat"), Pause(NOW - MINUTE, channel="sms"))
    assert taken(decide(situation(resting={EMAIL}, pauses=pauses), NOW))[:2] == (0, EMAIL)


@pytest.mark.parametrize("blocked", [WhenBlocked.HOLD, WhenBlocked.DROP])
def test_a_blocked_step_is_not_climbed_over_to_leave_accounts_that_rest(
    blocked: WhenBlocked,
) -> None:
    muted = [
        Consent(Scope(channel=channel), False, NOW - HOUR, NOW + HOUR) for channel in (CHAT, SMS)
    ]
    held = situation(resting={EMAIL}, person=Person(muted), when_blocked=blocked)
    decision = decide(held, NOW)
    assert taken(decision)[:2] == (0, EMAIL)
    assert len(decision.considered) == 3


def test_what_accounts_that_rest_leave_is_passed_on_over_a_no_that_does_not_end() -> None:
    no_texts = [Consent(Scope(channel=CHAT), False, NOW - HOUR)]
    assert taken(decide(situation(resting={EMAIL}, person=Person(no_texts)), NOW))[:2] == (1, SMS)


def waiting(state: DeliveryState = DeliveryState.PLANNED, untried: bool = True) -> PastDelivery:
    return past(0, EMAIL, state)._replace(untried=untried)


def test_what_has_not_set_out_is_replaced_while_its_accounts_rest() -> None:
    assert taken(decide(situation(past=(waiting(),), resting={EMAIL}), NOW)) == (1, CHAT, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"past": (waiting(),)},
        {"past": (waiting(),), "resting": {EMAIL, CHAT, SMS}},
        {"past": (waiting(untried=False),), "resting": {EMAIL}},
        {"past": (waiting(DeliveryState.QUEUED, False),), "resting": {EMAIL}},
        {"past": (waiting(), past(0, EMAIL, DeliveryState.SENDING, 9)), "resting": {EMAIL}},
        {
            "past": (waiting(), past(1, CHAT, DeliveryState.SENT, ago=MINUTE)),
            "resting": {EMAIL},
        },
    ],
    ids=["its accounts work", "all rest", "tried", "told", "another is out", "a later step is out"],
)
def test_else_what_is_on_its_way_is_waited_for(changes: dict[str, object]) -> None:
    open_still = situation(**changes)
    assert decide(open_still, NOW).verdict == Wait(open_still.expires_at, "in_flight")


def test_a_policy_may_go_on_by_the_same_step_or_a_later_one() -> None:
    assert LADDER.may_go_on(EMAIL, {SMS})
    assert LADDER.may_go_on(CHAT, {SMS})
    assert not LADDER.may_go_on(CHAT, {EMAIL})
    assert not LADDER.may_go_on(Channel.SOCIAL, {EMAIL})


SLACK, MATRIX = Reachable(4, CHAT, "slack"), Reachable(5, CHAT, "matrix")
CHAT_ONLY = Policy("chat", (Step((CHAT,)),), expires_after=3600)


def test_an_address_at_a_service_that_no_account_serves_is_passed_over() -> None:
    two = situation(policy=CHAT_ONLY, endpoints=(SLACK, MATRIX), services={CHAT: {"matrix"}})
    assert taken(decide(two, NOW)) == (0, CHAT, 5)
    assert taken(decide(two._replace(services={}), NOW)) == (0, CHAT, 4)


def test_who_has_but_such_an_address_cannot_be_reached() -> None:
    only = situation(policy=CHAT_ONLY, endpoints=(SLACK,), services={CHAT: {"matrix"}})
    decision = decide(only, NOW)
    assert decision.verdict == Stop(IntentState.EXHAUSTED, "unreachable")
    assert why(decision) == [(0, "chat", "service_not_served")]
    tried = only._replace(endpoints=(MATRIX, SLACK), past=(past(0, CHAT, FAILED, 5),))
    assert decide(tried, NOW).verdict == Stop(IntentState.EXHAUSTED, "nothing_can_still_come")
