"""The check at accept, templates, chat and the hosted page."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.content.chat import compile_chat
from app.content.check import Checker
from app.content.hosted import PAGE_CSP, hosted_page
from app.content.message import Personal
from app.content.problem import ContentRefused
from app.content.templates import BadTemplate, Templates
from app.domain.body import ChatBody
from app.domain.tokens import Links, Signer
from app.domain.vocabulary import Channel

LINKS = Links(
    "https://m.example", Signer([b"a-secret-for-these-tests"]), datetime(2025, 4, 1, tzinfo=UTC)
)
EMAIL = frozenset({Channel.EMAIL})
BOTH = frozenset({Channel.EMAIL, Channel.SMS})
SHIPPED = Path(__file__).parents[2] / "config" / "templates"


def problems(
    document: dict[str, Any], data: dict[str, Any], channels: frozenset[Channel] = BOTH
) -> list[str]:
    checker = Checker(LINKS)
    once = checker.check(b"hash", document, data, channels)
    assert once == checker.check(b"hash", document, data, channels)
    return [problem.field for problem in once]


@pytest.mark.parametrize(
    ("document", "data", "fields"),
    [
        ({"text": "Hello"}, {}, []),
        ({"text": "{{ a }} {{ b }}"}, {"a": 1}, ["data.b"]),
        ({"text": "{{ a }} {{ b }}"}, {}, ["data.a", "data.b"]),
        ({"text": "{{ a|upper }}"}, {}, ["data.a"]),
        ({"text": "{{ a"}, {}, ["content.text"]),
        ({"text": "x", "subject": "{% endif %}"}, {}, ["content.subject"]),
        ({"text": "x", "overrides": {"sms": "{{ b }}"}}, {}, ["data.b"]),
        ({"text": "x", "overrides": {"sms": "{{"}}, {}, ["content.overrides.sms"]),
        ({"text": "x", "overrides": {"chat": "{{"}}, {}, []),
        ({"text": "x", "subject": "{{ a }}"}, {"a": "x\r\nBcc: y"}, ["data.a"]),
        ({"text": "x", "subject": "{{ a|trim }}"}, {"a": "x\ny"}, ["content.subject"]),
        ({"text": "[x](javascript:alert)"}, {}, ["content.text"]),
        ({"text": "![x](data:image/png)"}, {}, ["content.text"]),
        ({"text": "[x](https://[::1]:8000/a) [y](https://a.example:80?b=[1])"}, {}, []),
        (
            {"text": "x", "actions": [{"label": "a", "url": "{{ u }}"}]},
            {"u": "http://[a/"},
            ["data"],
        ),
        (
            {"text": "x", "actions": [{"label": "a", "url": "javascript:a"}]},
            {},
            ["content.actions[0].url"],
        ),
        (
            {"text": "x", "actions": [{"label": "a", "url": "{{ u }}"}]},
            {"u": "javascript:a"},
            ["data"],
        ),
        (
            {"text": "x", "actions": [{"label": "a", "url": "{{ u }}"}]},
            {"u": "https://a.example"},
            [],
        ),
        ({"text": "{{ a }}"}, {"a": "x" * 200_000}, ["data"]),
        ({"text": "[x]({{ u }})"}, {"u": "x"}, ["data"]),
    ],
)
def test_what_is_wrong_is_said(
    document: dict[str, Any], data: dict[str, Any], fields: list[str]
) -> None:
    assert problems(document, data) == fields


LONG = "word " * 150


@pytest.mark.parametrize(
    ("text", "facts", "data", "lost"),
    [
        ("Order 991", ["991"], {}, False),
        ("Order **99**1", ["991"], {}, False),
        ("Order {{ o }}", ["991"], {"o": "991"}, False),
        ("Order {{ o }}", ["991"], {"o": "992"}, True),
        ("Order {{ o }}", ["{{ o }}"], {"o": "991"}, False),
        ("Order", ["{{ o }}"], {"o": "991"}, True),
        ("Order [x](https://a.example/991)", ["991"], {}, True),
        ("It\u2019s\nhere", ["It's here"], {}, False),
        ("{% if o == '991' %}Order {{ o }}{% endif %}", ["991"], {"o": "991"}, False),
        ("{% if o == '992' %}Order {{ o }}{% endif %}", ["991"], {"o": "991"}, True),
        (f"Order 991 {LONG}", ["991"], {}, False),
        (f"{LONG} Order 991", ["991"], {}, True),
        ("{{ long }} Order 991", ["991"], {"long": LONG}, True),
        ("{{ long }} Order 991", ["991"], {"long": "short"}, False),
    ],
)
def test_facts_must_survive_on_every_channel(
    text: str, facts: list[str], data: dict[str, Any], lost: bool
) -> None:
    wanted = {"content.must_keep[0]"} if lost else set()
    assert set(problems({"text": text, "must_keep": facts}, data)) == wanted


def test_facts_must_survive_in_overrides_of_channels_that_are_used() -> None:
    document = {"text": "Order 991", "must_keep": ["991"], "overrides": {"sms": "Your order"}}
    assert problems(document, {}, EMAIL) == []
    assert problems(document, {}, BOTH) == ["content.must_keep[0]"]


def test_one_persons_problem_is_not_the_next_ones() -> None:
    checker = Checker(LINKS, kept=1)
    document = {"text": "{{ a }}"}
    assert checker.check(1, document, {}, BOTH)
    assert not checker.check(1, document, {"a": 1}, BOTH)
    assert checker.check(2, {"text": "{{ b }}"}, {"a": 1}, BOTH)
    assert not checker.check(1, document, {"a": 1}, BOTH)


def test_chat_says_it_in_text_and_small_html() -> None:
    document = {
        "text": "# Hi\n\n**{{ name }}**, see ![cat](https://a.example/c.png)\n\n- [a](https://a.example/?x=1&y=2)",
        "actions": [{"label": "Go & see", "url": "https://a.example/{{ name }}"}],
    }
    body = compile_chat(document, tracking="off").render(Personal(7, {"name": "<A> B"}, LINKS))
    assert body == ChatBody(
        "Hi\n\n<A> B, see cat\n\n- a: https://a.example/?x=1&y=2\n"
        "Go & see: https://a.example/%3CA%3E%20B",
        "<h1>Hi</h1>\n<p><strong>&lt;A&gt; B</strong>, see cat</p>\n<ul>\n"
        '<li><a href="https://a.example/?x=1&amp;y=2">a</a></li>\n</ul>\n'
        '<p><a href="https://a.example/%3CA%3E%20B">Go &amp; see</a></p>',
    )
    tracked = compile_chat(document, tracking="clicks").render(Personal(7, {"name": "A"}, LINKS))
    assert LINKS.click(7, 0) in tracked.html
    assert LINKS.click(7, 256) in tracked.text


def test_social_has_its_own_override() -> None:
    document = {"text": "a", "overrides": {"social": "b", "chat": "c"}}
    for channel, said in ((Channel.SOCIAL, "b"), (Channel.CHAT, "c")):
        skeleton = compile_chat(document, tracking="off", channel=channel)
        assert skeleton.render(Personal(7, {}, LINKS)).text == said


def test_the_hosted_page_is_escaped_and_runs_nothing() -> None:
    document = {
        "subject": "For {{ name }} & co",
        "text": "Hello **{{ name }}** <script>x</script>",
        "actions": [{"label": "Go", "url": "https://a.example/?a=1&b={{ name }}"}],
        "overrides": {"sms": "short"},
    }
    page = hosted_page(
        document, {"name": "<b>"}, sender_name="A & B", preferences="https://x/p/1", locale="de"
    )
    assert '<a href="https://x/p/1">Einstellungen</a>' in page
    assert "<h1>For &lt;b&gt; &amp; co</h1>" in page
    assert "<strong>&lt;b&gt;</strong> &lt;script&gt;" in page
    assert 'href="https://a.example/?a=1&amp;b=%3Cb%3E"' in page
    assert "A &amp; B" in page
    assert '<html lang="de"' in page
    assert "<script" not in page
    assert "style=" not in page
    assert "unsafe" not in PAGE_CSP


def test_templates_come_in_the_nearest_language() -> None:
    templates = Templates(SHIPPED)
    english = templates.resolve("order-shipped", "en", "en")
    german = templates.resolve("order-shipped", "de", "en")
    assert english != german
    assert templates.resolve("order-shipped", "de-AT", "en") is german
    assert templates.resolve("order-shipped", "DE_at", "en") is german
    assert templates.resolve("order-shipped", "fr", "de") is german
    assert templates.resolve("order-shipped", None, "de-CH") is german
    assert templates.resolve("order-shipped", "fr", "pt") is english


def test_an_unknown_template_is_told_from_known_ones() -> None:
    with pytest.raises(ContentRefused, match="did you mean 'order-shipped'") as refused:
        Templates(SHIPPED).resolve("order-shiped", "en", "en")
    assert refused.value.problem.field == "content.template"
    assert "password-reset" in refused.value.problem.reason


def test_the_templates_that_are_shipped_can_be_said_everywhere() -> None:
    data = {
        "name": "Ada", "order": "991", "day": "Monday", "time": "9:30", "code": "123456",
        "appointment": "7",
    }  # fmt: skip
    templates = Templates(SHIPPED)
    names = list(templates)
    assert len(names) >= 4
    for name, locale in names:
        document = templates.resolve(name, locale, "en")
        for items in ({}, {"items": ["tea", "a pot"], "place": "room 2"}):
            assert problems(document, {**data, **items}, frozenset(Channel)) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hello", r"\+\+\+"),
        ("+++\nsubject = \n+++\nHello", "Invalid value"),
        ("+++\nsubjekt = 'x'\n+++\nHello", "did you mean"),
        ("+++\nsubject = 'x'\n+++\n{{ a", "content.text"),
        ("+++\n[overrides]\nsms = '{{ a.b() }}'\n+++\nx", "content.overrides.sms"),
        ("+++\n+++\n[x](javascript:y)", "content.text"),
        ("+++\n[[actions]]\nlabel = 'x'\nurl = 'javascript:y'\n+++\nx", r"actions\[0\].url"),
        ("+++\n+++\n", "content.text"),
    ],
)
def test_a_bad_template_is_told_at_start(tmp_path: Path, text: str, reason: str) -> None:
    folder = tmp_path / "welcome"
    folder.mkdir()
    (folder / "en.md").write_text(text)
    with pytest.raises(BadTemplate, match=reason) as bad:
        Templates(tmp_path)
    assert str(bad.value).startswith("welcome/en.md: ")


def test_no_templates_are_no_error(tmp_path: Path) -> None:
    with pytest.raises(ContentRefused, match="known: none"):
        Templates(tmp_path / "nothing").resolve("x", None, "en")
