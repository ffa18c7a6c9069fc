"""Quiet hours of people whose zone nobody knows: strict, and never all day."""

from datetime import UTC, datetime, timedelta
from functools import cache

import phonenumbers
import pytest

from app.domain.consent import Consent, Scope, Subject
from app.domain.permission import Bar, Person, Rules, barred
from app.domain.vocabulary import Channel, Kind, Urgency
from app.domain.wishes import QuietHours
from app.usecases.deciding.zones import countries, zones_of

NIGHT = QuietHours.parse("21:00", "08:00")
LAW = Rules(marketing_quiet=NIGHT)
OFFER = Subject(Channel.SMS, 1, 1, 1, Kind.MARKETING)
DAYS = (datetime(2030, 1, 15, tzinfo=UTC), datetime(2030, 7, 15, tzinfo=UTC))
AGREED = Consent(Scope(kind=Kind.MARKETING), True, datetime(2020, 1, 1, tzinfo=UTC))


def person(phone: str | None, locale: str | None) -> Person:
    zones, *surer = zones_of(None, locale, [phone] if phone else [], "Europe/Vienna")
    return Person([AGREED], zones=zones, surer=surer)


def quiet_at(who: Person, now: datetime) -> bool:
    found = barred(who, LAW, OFFER, Urgency.NORMAL, now)
    return found is not None and found.bar is Bar.QUIET


@cache
def number(country: str) -> str | None:
    example = phonenumbers.example_number(country)
    if example is None:
        return None
    return phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)


@pytest.mark.parametrize("locale", [None, "en-US", "en-IN", "zh-CN", "ru-RU", "pt-BR", "de-DE"])
def test_whoever_it_may_be_some_of_the_day_is_free(locale: str | None) -> None:
    noons = [day + timedelta(hours=hour) for day in DAYS for hour in range(0, 24, 4)]
    for country in countries():
        who = person(number(country), locale)
        for now in noons:
            found = barred(who, LAW, OFFER, Urgency.NORMAL, now)
            if found is not None:
                assert found.until is not None
                assert found.until - now <= timedelta(hours=25), (country, locale)
                assert not quiet_at(who, found.until), (country, locale)


def test_an_american_phone_keeps_american_hours_though_its_language_is_from_india() -> None:
    both = person("+12025550101", "en-IN")
    american = person("+12025550101", None)
    for hour in range(24):
        now = DAYS[0] + timedelta(hours=hour)
        assert quiet_at(both, now) is quiet_at(american, now)


def test_the_zone_whose_night_ends_last_is_told() -> None:
    found = barred(
        person("+12025550101", None), LAW, OFFER, Urgency.NORMAL, DAYS[0] + timedelta(hours=12)
    )
    assert found is not None
    assert found.until == DAYS[0] + timedelta(hours=18)
    assert found.told in ("America/Adak", "Pacific/Honolulu")
