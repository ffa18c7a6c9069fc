"""What Converge says by itself: the same in every language that it has."""

from datetime import timedelta
from string import Formatter

import pytest

from app.content.notices import NOTICES, lasting


def test_every_language_says_everything() -> None:
    filled = {
        language: {
            name: {field for _, field, _, _ in Formatter().parse(text) if field}
            for name, text in said.items()
        }
        for language, said in NOTICES.items()
    }
    assert filled["de"] == filled["en"]


@pytest.mark.parametrize(
    ("length", "locale", "told"),
    [
        (timedelta(hours=1), None, "1 hour"),
        (timedelta(hours=1), "de-AT", "1 Stunde"),
        (timedelta(weeks=2), "de_DE", "2 Wochen"),
        (timedelta(days=30), "en", "30 days"),
        (timedelta(minutes=90), "fr", "90 minutes"),
        (timedelta(hours=24), "de", "1 Tag"),
    ],
)
def test_how_long_a_mute_lasts_is_told(length: timedelta, locale: str | None, told: str) -> None:
    assert lasting(length, locale) == told
