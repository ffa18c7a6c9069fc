"""Text messages: how many parts they take, and what is left when they must be shortened."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.content.marks import as_text
from app.content.message import Content, Personal
from app.content.problem import ContentRefused
from app.content.segments import BASIC, EXTENSION, is_gsm, segment_count, to_gsm
from app.content.text import compile_text, text_form
from app.domain.body import TextBody
from app.domain.tokens import Links, Signer
from app.domain.vocabulary import Channel

LINKS = Links(
    "https://m.example", Signer([b"a-secret-for-these-tests"]), datetime(2025, 4, 1, tzinfo=UTC)
)
GSM = st.text(st.sampled_from(sorted(BASIC | EXTENSION)), max_size=700)
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=400)


def split(text: str) -> list[str]:
    """A text in parts, done the plain way: fill a part until the next character is too much."""
    if is_gsm(text):
        one, part = 160, 153
        units = [2 if character in EXTENSION else 1 for character in text]
    else:
        one, part = 70, 67
        units = [len(character.encode("utf-16-le")) // 2 for character in text]
    if sum(units) <= one:
        return [text]
    parts, room = [""], part
    for character, size in zip(text, units, strict=True):
        if size > room:
            parts.append("")
            room = part
        parts[-1] += character
        room -= size
    return parts


@given(GSM | ANY)
def test_parts_are_counted_as_they_are_split(text: str) -> None:
    assert segment_count(text) == len(split(text))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("€" * 152, 2),
        ("€" * 153, 3),  # 306 septets, but a pair may not be split: 76 fit into a part
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),  # 134 units, but 33 pairs fit into a part
    ],
)
def test_known_lengths(text: str, parts: int) -> None:
    assert segment_count(text) == parts


def test_the_alphabet_is_the_standards() -> None:
    assert len(BASIC) == 127  # 128 less the escape
    assert len(EXTENSION) == 10


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\u201cIt\u2019s here\u201d \u2013 now\u2026", '"It\'s here" - now...'),
        ("Gr\u00fc\u00dfe\u00a0an alle", "Gr\u00fc\u00dfe an alle"),
        ("\u201e\u042f\u201c stays", "\u201e\u042f\u201c stays"),
        ("caf\u00ea \u2019", "caf\u00ea \u2019"),
    ],
)
def test_typography_gives_way_only_where_it_helps(text: str, plain: str) -> None:
    assert to_gsm(text) == plain


@given(ANY)
def test_becoming_gsm_never_makes_it_dearer(text: str) -> None:
    assert to_gsm(text) == text or is_gsm(to_gsm(text))


def rendered(document: dict[str, Any], data: dict[str, Any], **options: Any) -> TextBody:
    options = {"tracking": "clicks", **options}
    return compile_text(document, **options).render(Personal(7, data, LINKS))


def test_the_first_action_is_a_short_link() -> None:
    document = {
        "text": "Hello **{{ name }}**, it\u2019s here.",
        "actions": [
            {"label": "Track it", "url": "https://shop.example/t"},
            {"label": "Other", "url": "https://shop.example/o"},
        ],
    }
    said = f"Hello Ada, it's here.\nTrack it: {LINKS.click(7, 0)}"
    assert rendered(document, {"name": "Ada"}) == TextBody(said, 1)
    direct = rendered(document, {"name": "Ada"}, tracking="off").text
    assert direct.endswith("\nTrack it: https://shop.example/t")


def test_the_override_speaks_instead() -> None:
    document = {"text": "long", "overrides": {"sms": "short {{ n }}", "chat": "other"}}
    assert rendered(document, {"n": 1}) == TextBody("short 1", 1)


def test_too_long_a_text_ends_at_a_word_and_leads_on() -> None:
    document = {"text": "{{ v }}", "actions": [{"label": "Go", "url": "https://shop.example/"}]}
    body = rendered(document, {"v": "parcel " * 100}, segments=2)
    start, _, link = body.text.rpartition("... ")
    assert link == LINKS.message(7)
    assert set(start.split(" ")) == {"parcel"}
    assert body.segments == segment_count(body.text) == 2
    assert segment_count(f"{start} parcel... {link}") == 3


@given(ANY | GSM, st.integers(1, 4))
def test_the_budget_holds(text: str, segments: int) -> None:
    body = rendered({"text": "{{ v }}"}, {"v": text}, segments=segments)
    assert body.segments == segment_count(body.text) <= segments


def test_the_ellipsis_is_a_real_one_where_it_costs_nothing() -> None:
    assert "… https" in rendered({"text": "{{ v }}"}, {"v": "щит " * 99}).text


def test_a_fact_that_shortening_would_lose_refuses_the_message() -> None:
    document = {"text": "{{ v }} order {{ o }}", "must_keep": ["{{ o }}"]}
    assert "order 991" in rendered(document, {"v": "x", "o": "991"}).text
    with pytest.raises(ContentRefused) as refused:
        rendered(document, {"v": "word " * 200, "o": "991"})
    assert refused.value.problem.field == "content.must_keep[0]"
    assert "991" not in refused.value.problem.reason
    document["text"] = "order {{ o }} {{ v }}"
    assert "order 991" in rendered(document, {"v": "word " * 200, "o": "991"}).text


@given(
    st.lists(st.text("a{€é`…漢 \n", max_size=40), min_size=2, max_size=2),
    st.sampled_from(["{{ a }} and {{ b }}", "{{ a }} at [x](https://x.example/{{ b }}), {{ a }}"]),
    st.sampled_from(["all", "off"]),
)
def test_what_is_surely_whole_is_whole(values: list[str], text: str, tracking: Any) -> None:
    """The quick bound of the check at accept never lets a text pass that would be shortened."""
    content = Content({"text": text}, Channel.SMS)
    assert content.plain is not None
    form = text_form(content, content.plain, tracking, 2)
    told = [as_text(value) for value in values]
    if form.surely_whole(told, form.room(LINKS)):
        body = form(told, Personal(0, {}, LINKS))
        assert body.segments <= 2
        assert "..." not in body.text.replace("…", "")
        assert not body.text.endswith(LINKS.message(0))


def test_short_values_are_surely_whole() -> None:
    content = Content({"text": "Hello {{ a }}"}, Channel.SMS)
    assert content.plain is not None
    form = text_form(content, content.plain, "all", 3)
    assert form.surely_whole(["Ada"], form.room(LINKS))
    assert not form.surely_whole(["Ada" * 200], form.room(LINKS))
    assert not form.surely_whole(["漢"], form.room(LINKS))
