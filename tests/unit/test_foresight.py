"""Foresight: what would become of an intent that nobody sees."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from app.domain.caps import Cap
from app.domain.consent import Consent, Scope
from app.domain.decision import (
    Preferred,
    Reachable,
    Reason,
    Send,
    Situation,
    Stop,
    Wait,
    WhenBlocked,
)
from app.domain.foresight import MOST, foresee
from app.domain.pause import Pause
from app.domain.permission import Person, Rules
from app.domain.policy import Policy, Step
from app.domain.vocabulary import Channel, IntentState
from app.domain.wishes import QuietHours, Wishes

NOW = datetime(2026, 3, 28, 19, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
EMAIL, SMS, CHAT = Channel.EMAIL, Channel.SMS, Channel.CHAT
LADDER = Policy(
    "notify",
    (Step((EMAIL,), 1800), Step((CHAT, SMS), 7200), Step((SMS,))),
    expires_after=3 * 86_400,
)


def situation(**changes: object) -> Situation:
    usual: dict[str, object] = {
        "policy": LADDER,
        "brand_id": 1,
        "sender_id": 1,
        "campaign": "",
        "endpoints": (Reachable(1, EMAIL), Reachable(2, SMS), Reachable(3, CHAT)),
        "channels": frozenset(Channel),
        "expires_at": NOW + timedelta(days=3),
    }
    return Situation(**{**usual, **changes})  # type: ignore[arg-type]


def sends(of: Situation) -> list[tuple[Channel, datetime]]:
    found = foresee(of, NOW)
    return [
        (one.decision.verdict.channel, one.at)
        for one in found
        if isinstance(one.decision.verdict, Send)
    ]


def test_an_unseen_intent_climbs_its_whole_ladder() -> None:
    assert sends(situation()) == [
        (EMAIL, NOW),
        (CHAT, NOW + 30 * MINUTE),
        (SMS, NOW + 150 * MINUTE),
    ]
    last = foresee(situation(), NOW)[-1]
    assert last.decision.verdict == Stop(IntentState.EXHAUSTED, "unseen_after_the_last_step")
    assert last.at == NOW + timedelta(days=3)


def test_quiet_hours_are_minded_over_the_change_of_clocks() -> None:
    """From 22:00 to 07:00 in Berlin, in the night to summer time: 07:00 is 05:00 UTC."""
    person = Person(
        wishes=Wishes(quiet=QuietHours(time(22), time(7))), zones=[ZoneInfo("Europe/Berlin")]
    )
    quiet_ends = datetime(2026, 3, 29, 5, 0, tzinfo=UTC)
    assert sends(situation(person=person)) == [
        (EMAIL, NOW),
        (CHAT, NOW + 30 * MINUTE),
        (SMS, quiet_ends),
    ]


def test_what_is_sent_counts_under_its_caps() -> None:
    rules = Rules(caps=[Cap("two a day", 2, 86_400)])
    found = foresee(situation(rules=rules), NOW)
    capped = [one for one in found if isinstance(one.decision.verdict, Wait)]
    [over] = [one.decision.considered[0] for one in capped if one.decision.considered]
    assert (over.why, over.told) == (Reason.CAPPED, "two a day")
    assert over.until is not None
    assert [at for _, at in sends(situation(rules=rules))][-1] == over.until
    assert over.until >= NOW + timedelta(days=1)


def test_a_mute_holds_until_it_ends_and_a_no_for_good_to_the_end() -> None:
    mute = Consent(Scope(sender_id=1), False, NOW - HOUR, until=NOW + HOUR)
    assert sends(situation(person=Person([mute])))[0] == (EMAIL, NOW + HOUR)
    no = Consent(Scope(), False, NOW - HOUR)
    held = foresee(situation(person=Person([no])), NOW)
    assert [type(one.decision.verdict) for one in held] == [Wait, Stop]
    dropped = foresee(situation(person=Person([no]), when_blocked=WhenBlocked.DROP), NOW)
    assert dropped[-1].at == NOW


def test_a_pause_ends_where_it_would_hold_something() -> None:
    paused = situation(pauses=[Pause(NOW - HOUR, channel="email")])
    assert len(sends(paused)) == 3
    assert foresee(paused, NOW)[0].decision.considered[0].why is Reason.PAUSED


def test_where_the_customer_is_and_what_they_wish_is_told() -> None:
    wishes = Person(wishes=Wishes(channels=(SMS,)))
    by_wish = foresee(situation(person=wishes), NOW)[2].decision
    assert [(one.channel, one.told) for one in by_wish.considered] == [
        (SMS, Preferred.WISHED),
        (CHAT, ""),
    ]
    active = {CHAT: NOW + 20 * MINUTE}
    by_place = foresee(situation(person=wishes, activity=active), NOW)[2].decision
    assert [(one.channel, one.told) for one in by_place.considered] == [
        (CHAT, Preferred.ACTIVE),
        (SMS, ""),
    ]


moments = st.integers(0, 365 * 24 * 60).map(lambda minutes: NOW + minutes * MINUTE)
hours = st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda pair: pair[0] != pair[1])


@given(
    moments,
    hours,
    st.sampled_from(WhenBlocked),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(Channel), st.integers(-5, 90)), max_size=4),
)
def test_it_always_ends_and_never_sends_where_something_stands_in_the_way(
    now: datetime,
    quiet: tuple[int, int],
    blocked: WhenBlocked,
    most: int,
    noes: list[tuple[Channel, int]],
) -> None:
    person = Person(
        [Consent(Scope(channel=one), False, now - HOUR, now + days * HOUR) for one, days in noes],
        wishes=Wishes(quiet=QuietHours(time(quiet[0]), time(quiet[1]))),
        zones=[ZoneInfo("Australia/Sydney")],
    )
    of = situation(
        expires_at=now + timedelta(days=3),
        person=person,
        rules=Rules(caps=[Cap("daily", most, 86_400)]),
        when_blocked=blocked,
    )
    found = foresee(of, now)
    assert 0 < len(found) < MOST
    assert isinstance(found[-1].decision.verdict, Stop)
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert found[-1].at <= of.expires_at
    for one in found:
        verdict = one.decision.verdict
        if isinstance(verdict, Send):
            assert of.barred(Reachable(verdict.endpoint_id, verdict.channel), one.at) is None
