"""Consent: a table of what people say and what follows, and rules that hold for all of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.consent import (
    Choice,
    Consent,
    Ground,
    Scope,
    Subject,
    choice,
    noes_in_force,
    standing,
)
from app.domain.suppression import lasting_noes
from app.domain.vocabulary import Channel, Kind

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
EMAIL, SMS = Channel.EMAIL, Channel.SMS
STORE, BILLING, NEWS, ORDERS = 1, 2, 1, 2
MARKETING, TRANSACTIONAL = Kind.MARKETING, Kind.TRANSACTIONAL
OFFER = Subject(EMAIL, 11, STORE, NEWS, MARKETING)
RECEIPT = Subject(EMAIL, 11, STORE, ORDERS, TRANSACTIONAL)
TEXT = Subject(SMS, 12, STORE, ORDERS, TRANSACTIONAL)
EVERYTHING = Scope()


def said(
    allow: bool, scope: Scope, hours_ago: float = 1, *, own: bool = True, hours: float | None = None
) -> Consent:
    at = NOW - timedelta(hours=hours_ago)
    until = None if hours is None else at + timedelta(hours=hours)
    return Consent(scope, allow, at, until, own=own)


def yes(scope: Scope, hours_ago: float = 1, **more: object) -> Consent:
    return said(True, scope, hours_ago, **more)  # type: ignore[arg-type]


def no(scope: Scope, hours_ago: float = 1, **more: object) -> Consent:
    return said(False, scope, hours_ago, **more)  # type: ignore[arg-type]


TABLE = [
    ("nobody said anything: orders may be spoken of", [], RECEIPT, True),
    ("nobody said anything: marketing may not", [], OFFER, False),
    ("a yes to marketing", [yes(Scope(kind=MARKETING))], OFFER, True),
    ("a yes to the topic", [yes(Scope(topic_id=NEWS))], OFFER, True),
    ("a yes to another topic", [yes(Scope(topic_id=ORDERS))], OFFER, False),
    ("a yes to everything does not name marketing", [yes(EVERYTHING)], OFFER, False),
    ("a yes to marketing by text only", [yes(Scope(channel=SMS, kind=MARKETING))], OFFER, False),
    ("a yes that has ended", [yes(Scope(kind=MARKETING), 5, hours=2)], OFFER, False),
    ("a no to everything stops orders, too", [no(EVERYTHING)], RECEIPT, False),
    (
        "a no to everything after a narrow yes",
        [yes(Scope(topic_id=NEWS), 3), no(EVERYTHING)],
        OFFER,
        False,
    ),
    (
        "a narrow yes after a no to everything",
        [no(EVERYTHING, 3), yes(Scope(topic_id=NEWS))],
        OFFER,
        True,
    ),
    (
        "a wide yes after a narrow no",
        [no(Scope(topic_id=NEWS), 3), yes(Scope(kind=MARKETING))],
        OFFER,
        False,
    ),
    ("a sender muted for an hour", [no(Scope(sender_id=STORE), 0.5, hours=1)], RECEIPT, False),
    ("a mute that is over", [no(Scope(sender_id=STORE), 2, hours=1)], RECEIPT, True),
    (
        "muted for good, then for an hour that is over",
        [no(Scope(sender_id=STORE), 5), no(Scope(sender_id=STORE), 2, hours=1)],
        RECEIPT,
        True,
    ),
    (
        "muted for an hour, then for good",
        [no(Scope(sender_id=STORE), 5, hours=1), no(Scope(sender_id=STORE), 3)],
        RECEIPT,
        False,
    ),
    (
        "muted for good and for an hour at the same instant",
        [no(Scope(sender_id=STORE), 3), no(Scope(sender_id=STORE), 3, hours=1)],
        RECEIPT,
        False,
    ),
    (
        "a brand does not shorten a person's mute",
        [no(Scope(sender_id=STORE), 5), no(Scope(sender_id=STORE), 2, hours=1, own=False)],
        RECEIPT,
        False,
    ),
    (
        "a narrower mute does not shorten a wider one",
        [no(EVERYTHING, 5), no(Scope(sender_id=STORE), 2, hours=1)],
        RECEIPT,
        False,
    ),
    ("another sender muted", [no(Scope(sender_id=BILLING))], RECEIPT, True),
    ("STOP on a number stops that number", [no(Scope(endpoint_id=12))], TEXT, False),
    ("STOP on a number leaves mail alone", [no(Scope(endpoint_id=12))], RECEIPT, True),
    ("START after STOP", [no(Scope(endpoint_id=12), 3), yes(Scope(endpoint_id=12))], TEXT, True),
    ("START is no yes to marketing", [yes(Scope(endpoint_id=11))], OFFER, False),
    (
        "a brand's yes does not lift a person's no",
        [no(Scope(endpoint_id=12), 3), yes(Scope(endpoint_id=12), own=False)],
        TEXT,
        False,
    ),
    (
        "a brand's yes lifts a brand's no",
        [no(Scope(endpoint_id=12), 3, own=False), yes(Scope(endpoint_id=12), own=False)],
        TEXT,
        True,
    ),
    (
        "neither is narrower",
        [yes(Scope(topic_id=NEWS), 1), no(Scope(sender_id=STORE), 3)],
        OFFER,
        False,
    ),
    (
        "both at the same instant",
        [no(Scope(kind=MARKETING)), yes(Scope(kind=MARKETING))],
        OFFER,
        False,
    ),
    (
        "one-click, then yes to that topic",
        [no(Scope(kind=MARKETING), 3), yes(Scope(topic_id=NEWS))],
        OFFER,
        False,
    ),
    (
        "one-click, then yes to that topic's marketing",
        [no(Scope(kind=MARKETING), 3), yes(Scope(topic_id=NEWS, kind=MARKETING))],
        OFFER,
        True,
    ),
    ("said in the future", [no(EVERYTHING, -1)], RECEIPT, True),
]


@pytest.mark.parametrize(
    ("what", "consents", "subject", "allowed"), TABLE, ids=[t[0] for t in TABLE]
)
def test_what_follows(what: str, consents: list[Consent], subject: Subject, allowed: bool) -> None:
    for order in (consents, consents[::-1]):
        assert standing(order, subject, NOW).allowed is allowed, what


def test_a_no_says_when_it_ends_and_who_said_it() -> None:
    short = replace(no(Scope(sender_id=STORE), 1, hours=3), source="preferences")
    stands = standing([short], RECEIPT, NOW)
    assert (stands.ground, stands.until) == (Ground.NO, NOW + timedelta(hours=2))
    assert stands.by == short
    longer = no(EVERYTHING, 1, hours=9)
    assert standing([short, longer], RECEIPT, NOW).until == NOW + timedelta(hours=8)
    assert standing([short, no(EVERYTHING)], RECEIPT, NOW).until is None


def test_a_mute_said_anew_ends_when_it_was_last_said_to() -> None:
    sender = Scope(sender_id=STORE)
    mutes = [no(sender, 3), no(sender, 2, hours=9), no(sender, 1, hours=2)]
    in_an_hour = NOW + timedelta(hours=1)
    assert standing(mutes, RECEIPT, NOW).until == in_an_hour
    assert choice(mutes, sender, NOW) == Choice(False, in_an_hour)
    assert noes_in_force(mutes, NOW) == mutes[-1:]
    assert choice(mutes, sender, in_an_hour) == Choice()
    assert noes_in_force(mutes, in_an_hour) == []
    assert lasting_noes(mutes, EMAIL, 11, NOW) == {sender: mutes[-1]}
    assert lasting_noes(mutes, EMAIL, 11, in_an_hour) == {}


def test_of_the_noes_of_an_address_the_longest_lasts_as_the_persons_own() -> None:
    week, brands = no(Scope(), 3, hours=9), no(Scope(endpoint_id=11), 2, own=False)
    for both in ([week, brands], [brands, week]):
        assert lasting_noes(both, EMAIL, 11, NOW) == {EVERYTHING: replace(brands, own=True)}
    longer = no(Scope(channel=EMAIL), 1, hours=48)
    assert lasting_noes([week, longer], EMAIL, 11, NOW) == {EVERYTHING: longer}


scopes = st.builds(
    Scope,
    channel=st.none() | st.sampled_from([EMAIL, SMS]),
    endpoint_id=st.none() | st.sampled_from([11, 12]),
    sender_id=st.none() | st.sampled_from([STORE, BILLING]),
    topic_id=st.none() | st.sampled_from([NEWS, ORDERS]),
    kind=st.none() | st.sampled_from(list(Kind)),
)
consents_ = st.builds(
    said,
    st.booleans(),
    scopes,
    st.integers(-2, 50).map(float),
    own=st.booleans(),
    hours=st.none() | st.integers(1, 60).map(float),
)
histories = st.lists(consents_, max_size=8)
subjects = st.builds(
    Subject,
    st.sampled_from([EMAIL, SMS]),
    st.sampled_from([11, 12]),
    st.sampled_from([STORE, BILLING]),
    st.sampled_from([NEWS, ORDERS]),
    st.sampled_from(list(Kind)),
)


@given(histories, subjects, st.randoms())
def test_the_order_of_the_records_does_not_matter(
    history: list[Consent], subject: Subject, chance: object
) -> None:
    before = standing(history, subject, NOW)
    shuffled = history[:]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    after = standing(shuffled, subject, NOW)
    assert (after.allowed, after.ground, after.until) == (
        before.allowed,
        before.ground,
        before.until,
    )


@given(histories, subjects)
def test_a_new_no_in_person_stops_whatever_was_said_before(
    history: list[Consent], subject: Subject
) -> None:
    past = [one for one in history if one.at < NOW]
    stop = Consent(Scope(subject.channel), False, NOW)
    assert not standing([*past, stop], subject, NOW).allowed


@given(histories, subjects)
def test_a_persons_no_stands_against_anything_that_a_brand_says(
    history: list[Consent], subject: Subject
) -> None:
    brands = [replace(one, own=False) for one in history]
    assert not standing([*brands, no(EVERYTHING, 60)], subject, NOW).allowed


@given(histories, subjects)
def test_marketing_never_goes_without_a_yes_that_names_it(
    history: list[Consent], subject: Subject
) -> None:
    subject = subject._replace(kind=MARKETING)
    if standing(history, subject, NOW).allowed:
        assert any(
            one.allow
            and one.scope.fits(subject)
            and one.holds(NOW)
            and (one.scope.kind is MARKETING or one.scope.topic_id)
            for one in history
        )


@given(histories, subjects)
def test_what_speaks_of_something_else_changes_nothing(
    history: list[Consent], subject: Subject
) -> None:
    fitting = [one for one in history if one.scope.fits(subject)]
    assert standing(history, subject, NOW).allowed == standing(fitting, subject, NOW).allowed


@given(scopes, scopes, subjects)
def test_a_narrower_scope_fits_nothing_that_the_wider_does_not(
    one: Scope, other: Scope, subject: Subject
) -> None:
    if one.within(other) and one.fits(subject):
        assert other.fits(subject)
