"""What our pages say, in every language that we claim to speak."""

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from app.content.speech import LANGUAGES, accepted, speech

APP = Path(__file__).parents[2] / "app"


def texts() -> set[str]:
    """Every text of the templates."""
    found = extract_from_dir(
        APP / "api/templates", [("**.html", "jinja2")], {"**.html": {"newstyle_gettext": "true"}}
    )
    return {str(message) for _, _, message, _, _ in found}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_catalog_has_every_text_and_no_other(language: str) -> None:
    with (APP / f"content/locales/{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language, abort_invalid=True)
    translated = {str(one.id): one for one in catalog if one.id}
    assert translated.keys() == texts()
    for text, one in translated.items():
        assert one.string, text
        assert not one.fuzzy, text
        assert not list(one.check(catalog)), text
        spoken = speech(language).words.gettext(text)
        assert spoken == one.string


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,en;q=0.5,de;q=0.7", "de"),
        ("EN-gb", "en"),
        ("de;q=0", "en"),
        ("de; q=0.5", "de"),
        ("en; q=0.5, de ;\tq=0.7", "de"),
        ("de;Q=0.9", "de"),
        ("de;q=0.000,en", "en"),
        ("de;q=0 ,en;q=0.1", "en"),
        ("de;q=inf", "en"),
        ("de;q=0_5", "en"),
        ("de;q=x, *", "en"),
        ("", "en"),
        (",;q=,;" * 1000, "en"),
    ],
)
def test_the_language_is_the_one_that_is_wished_most(header: str, language: str) -> None:
    assert speech(*accepted(header)).language == language


def test_the_customers_own_language_comes_first() -> None:
    assert speech("de_CH", *accepted("en")).language == "de"
    assert speech(None, "", "xx", "de").language == "de"


def test_times_are_told_as_people_say_them() -> None:
    at = datetime(2030, 1, 31, 17, 30, tzinfo=UTC)
    zone = ZoneInfo("Europe/Berlin")
    assert speech("de").moment(at, zone, named=False) == "31. Januar 2030, 18:30"
    assert speech("de").moment(at, zone, named=True) == "31. Januar 2030, 18:30 (MEZ)"
    english = speech("en").moment(at, zone, named=False)
    assert english.replace("\u202f", " ") == "January 31, 2030, 6:30 PM"
    assert speech("en-GB").moment(at, zone, named=False) == "31 January 2030, 18:30"
    assert speech("en-XX").locale.language == "en"
