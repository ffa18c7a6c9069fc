"""Our own words on pages for customers, in their language: gettext catalogs, read at first use.

English is written in the templates themselves; `locales/LANGUAGE.po` has every other language.
Catalogs are compiled in memory, so that there is no compiled file to be forgotten.
"""

import gettext
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, get_timezone_name
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LANGUAGES: Final = ("en", "de")
"""Those that are complete; the first is spoken where none of them is wished."""
_MOST_WISHES: Final = 20
_WEIGHT: Final = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
"""RFC 9110, 12.4.2."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One language: its tag and its catalog. `locale` says how times are told."""

    language: str
    locale: Locale
    words: gettext.NullTranslations

    def moment(self, at: datetime, zone: ZoneInfo, *, named: bool) -> str:
        """A time as people say it; `named` adds the name of the time zone."""
        here = at.astimezone(zone)
        told = (
            f"{format_date(here, 'long', locale=self.locale)}, "
            f"{format_time(here, 'short', locale=self.locale)}"
        )
        if not named:
            return told
        return f"{told} ({get_timezone_name(here, 'short', locale=self.locale)})"


def speech(*wished: str | None) -> Speech:
    """The language that fits a wish best; wishes are language tags, the first wins."""
    for one in wished:
        tag = (one or "").replace("_", "-")
        language = tag.partition("-")[0].lower()
        if language in LANGUAGES:
            return Speech(language, _locale(tag, language), _words(language))
    return Speech(LANGUAGES[0], Locale(LANGUAGES[0]), _words(LANGUAGES[0]))


def accepted(header: str) -> list[str]:
    """The language tags of an Accept-Language header (RFC 9110, 12.5.4), the best first."""
    wishes = []
    for place, part in enumerate(header.split(",")[:_MOST_WISHES]):
        tag, weighed, weight = part.partition(";")
        found = _WEIGHT.fullmatch(weight)
        quality = float(found[1]) if found else 0.0 if weighed else 1.0
        if quality > 0:
            wishes.append((-quality, place, tag.strip()))
    return [tag for _, _, tag in sorted(wishes)]


def _locale(tag: str, language: str) -> Locale:
    """How the language is spoken in that country, if that is known."""
    try:
        return Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        return Locale(language)


@cache
def _words(language: str) -> gettext.NullTranslations:
    if language == LANGUAGES[0]:
        return gettext.NullTranslations()
    source = resources.files("app.content").joinpath("locales", f"{language}.po").read_bytes()
    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(source), locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
