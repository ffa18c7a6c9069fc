"""Quiet hours: on ordinary days, on days when clocks change in both hemispheres, and where nobody
knows the zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.wishes import QuietHours, Wishes, quiet_until
from app.usecases.deciding.zones import zones_of

NIGHT = QuietHours.parse("21:00", "08:00")
BERLIN, SYDNEY, LORD_HOWE = (
    ZoneInfo("Europe/Berlin"),
    ZoneInfo("Australia/Sydney"),
    ZoneInfo("Australia/Lord_Howe"),
)
NEW_YORK, HONOLULU = ZoneInfo("America/New_York"), ZoneInfo("Pacific/Honolulu")


def local(zone: ZoneInfo, text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


CASES = [
    ("at noon", BERLIN, "2030-06-01T12:00", None),
    ("in the evening", BERLIN, "2030-06-01T21:00", "2030-06-02T08:00"),
    ("just before", BERLIN, "2030-06-01T20:59:59", None),
    ("after midnight", BERLIN, "2030-06-02T00:30", "2030-06-02T08:00"),
    ("just over", BERLIN, "2030-06-02T08:00", None),
    ("the night of 23 hours, north", BERLIN, "2030-03-30T22:00", "2030-03-31T08:00"),
    ("the night of 25 hours, north", BERLIN, "2030-10-26T22:00", "2030-10-27T08:00"),
    ("the night of 23 hours, south", SYDNEY, "2030-10-05T22:00", "2030-10-06T08:00"),
    ("the night of 25 hours, south", SYDNEY, "2030-04-06T22:00", "2030-04-07T08:00"),
    ("half an hour of change", LORD_HOWE, "2030-10-05T22:00", "2030-10-06T08:00"),
]


@pytest.mark.parametrize(("what", "zone", "at", "ends"), CASES, ids=[case[0] for case in CASES])
def test_nights(what: str, zone: ZoneInfo, at: str, ends: str | None) -> None:
    expected = None if ends is None else local(zone, ends)
    assert quiet_until(local(zone, at), NIGHT, [zone]) == expected, what


def test_nights_are_shorter_and_longer_when_clocks_change() -> None:
    spring = local(BERLIN, "2030-03-30T22:00")
    autumn = local(BERLIN, "2030-10-26T22:00")
    assert quiet_until(spring, NIGHT, [BERLIN]) == spring + timedelta(hours=9)
    assert quiet_until(autumn, NIGHT, [BERLIN]) == autumn + timedelta(hours=11)


def test_an_hour_that_does_not_exist_ends_when_it_would_have() -> None:
    early = QuietHours.parse("00:00", "02:30")  # 02:30 is skipped on 31 March 2030 in Berlin
    ends = quiet_until(local(BERLIN, "2030-03-31T01:00"), early, [BERLIN])
    assert ends is not None
    assert ends >= local(BERLIN, "2030-03-31T01:59:59")
    assert not early.include(ends.astimezone(BERLIN).time())


def test_an_hour_that_comes_twice_is_quiet_both_times() -> None:
    early = QuietHours.parse("00:00", "02:30")  # 02:00 to 03:00 comes twice on 27 October 2030
    again = local(BERLIN, "2030-10-27T02:15", fold=1)
    ends = quiet_until(again, early, [BERLIN])
    assert ends == local(BERLIN, "2030-10-27T02:30", fold=1)


def test_the_strictest_of_several_zones_binds() -> None:
    zones = [NEW_YORK, HONOLULU]
    noon_in_new_york = local(NEW_YORK, "2030-06-01T12:00")  # 06:00 in Honolulu
    assert quiet_until(noon_in_new_york, NIGHT, zones) == local(HONOLULU, "2030-06-01T08:00")
    in_both_by_day = local(NEW_YORK, "2030-06-01T15:00")
    assert quiet_until(in_both_by_day, NIGHT, zones) is None
    evening = local(NEW_YORK, "2030-06-01T21:30")  # 15:30 in Honolulu: then its night follows
    assert quiet_until(evening, NIGHT, zones) == local(HONOLULU, "2030-06-02T08:00")


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        ("9 pm", "08:00", "quiet_hours.from"),
        ("21:00", "25:00", "quiet_hours.to"),
        ("21:00", "21:00", "quiet_hours"),
    ],
)
def test_what_cannot_be_hours_is_refused(start: str, end: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        QuietHours.parse(start, end)


def test_wishes_are_kept_as_they_are() -> None:
    document = {"channels": ["sms", "email"], "quiet": {"from": "21:30", "to": "07:15"}}
    assert Wishes.from_document(document).document() == document
    assert Wishes.from_document({}) == Wishes()


def test_zones_come_from_the_customer_then_the_country_then_the_brand() -> None:
    def names(*given: object) -> set[str]:
        return {zone.key for zone in zones_of(*given, fallback="Europe/Vienna")[0]}  # type: ignore[arg-type]

    assert names("Asia/Tokyo", "de-DE", ["+12025550100"]) == {"Asia/Tokyo"}
    american = names(None, None, ["+12025550100"])
    assert {"America/New_York", "Pacific/Honolulu", "America/Adak"} <= american
    assert names(None, "de-DE", []) == {"Europe/Berlin", "Europe/Busingen"}
    assert names(None, "de", []) == {"Europe/Vienna"}
    assert names("Nowhere/Land", None, ["not a number"]) == {"Europe/Vienna"}
    assert names(None, None, ["+447700900123"]) >= {"Europe/London", "Europe/Jersey"}, "fictional"
    assert names(None, None, ["+15550100100"]) >= american, "of no country's plan"
    assert names(None, None, ["+80012345678"]) == {"Europe/Vienna"}, "of no country"


def test_the_surer_guesses_follow_the_widest() -> None:
    def keys(phones: list[str], locale: str | None) -> list[set[str]]:
        groups = zones_of(None, locale, phones, "Europe/Vienna")
        return [{zone.key for zone in group} for group in groups]

    indian = {"Asia/Kolkata"}
    berlin, vienna = {"Europe/Berlin", "Europe/Busingen"}, {"Europe/Vienna"}
    assert keys(["+911123456789"], "de-DE") == [indian | berlin, indian, vienna]
    assert keys(["+911123456789"], None) == [indian, vienna]
    assert keys([], "de-DE") == [berlin, vienna]
    assert keys([], None) == [vienna]
    assert zones_of("Asia/Tokyo", "de-DE", ["+911123456789"], "Europe/Vienna") == (
        (ZoneInfo("Asia/Tokyo"),),
    )


moments = st.integers(0, 10 * 365 * 86_400).map(
    lambda seconds: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
zones = st.sampled_from([BERLIN, SYDNEY, LORD_HOWE, NEW_YORK, HONOLULU, ZoneInfo("Asia/Kolkata")])
hours = st.tuples(st.times(), st.times()).filter(
    lambda pair: f"{pair[0]:%H:%M}" != f"{pair[1]:%H:%M}"
)


@given(moments, st.lists(zones, min_size=1, max_size=1), hours)
def test_when_it_ends_it_is_over(now: datetime, where: list[ZoneInfo], pair: tuple) -> None:  # type: ignore[type-arg]
    quiet = QuietHours.parse(f"{pair[0]:%H:%M}", f"{pair[1]:%H:%M}")
    ends = quiet_until(now, quiet, where)
    here = now.astimezone(where[0]).time()
    assert (ends is None) is (not quiet.include(here))
    if ends is not None:
        assert now < ends <= now + timedelta(hours=49)
        assert not quiet.include(ends.astimezone(where[0]).time())
