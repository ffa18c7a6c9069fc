"""In which time zones a customer may be, where nobody has said it.

An area code is weak evidence of a place, its country is better; so is the country of the customer's
language. Every zone of those countries is plausible, and whoever asks minds the strictest; where
that leaves no time of the day, the phone is the surer sign.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache, lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

import phonenumbers

from app.domain.zones import find_zone

_UTC = ZoneInfo("UTC")

Zones = tuple[ZoneInfo, ...]


def zones_of(
    timezone: str | None, locale: str | None, phones: Iterable[str], fallback: str
) -> tuple[Zones, ...]:
    """The customer's own zone; else all zones of the countries of their phones and their language,
    then those of their phones alone, and last the brand's (`fallback`).

    Each is surer, or narrower, than the one before.
    """
    if timezone and (own := find_zone(timezone)):
        return ((own,),)
    called = frozenset(country for phone in phones for country in _countries(phone))
    written = frozenset(_territory(locale))
    groups = (_zones_in(called | written), _zones_in(called), (find_zone(fallback) or _UTC,))
    return tuple(dict.fromkeys(group for group in groups if group))


def _countries(phone: str) -> Collection[str]:
    """The country of a number, or all that share its country code where it is in nobody's plan:
    numbers that are new, or given to nobody."""
    try:
        number = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return ()
    country = phonenumbers.region_code_for_number(number)
    if country is not None:
        return (country,)
    found: Collection[str] = phonenumbers.region_codes_for_country_code(number.country_code or 0)
    return found


def _territory(locale: str | None) -> Collection[str]:
    """`DE` of `de-DE`."""
    language, _, territory = (locale or "").replace("_", "-").rpartition("-")
    return (territory.upper(),) if language and len(territory) == 2 else ()


@lru_cache(maxsize=4096)
def _zones_in(countries: frozenset[str]) -> Zones:
    names = [name for country in sorted(countries) for name in _zones_by_country().get(country, ())]
    return tuple(zone for name in names if (zone := find_zone(name)))


@cache
def _zones_by_country() -> Mapping[str, list[str]]:
    """Zones by country, as the tz database has them (its file zone.tab)."""
    found: dict[str, list[str]] = defaultdict(list)
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8")
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, _, name = line.split("\t")[:3]
            found[country].append(name)
    return found


def countries() -> list[str]:
    """The countries that have a zone."""
    return sorted(_zones_by_country())


def zone_names() -> list[str]:
    """The zones that people choose from, without older names of the same."""
    return sorted({name for names in _zones_by_country().values() for name in names})
