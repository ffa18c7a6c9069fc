"""The template language: what it does, and what it will not be talked into."""

from typing import Any

import pytest

from app.content.bounds import MAX_TEXT
from app.content.language import Texts
from app.content.marks import fill_values, in_text
from app.content.problem import ContentRefused


def said(text: str, data: dict[str, Any]) -> str:
    expansion = Texts({"content.text": text}).expand(data)
    return fill_values(in_text(expansion.marked[0]), expansion.values)


@pytest.mark.parametrize(
    ("text", "data", "wanted"),
    [
        ("plain", {}, "plain"),
        ("{{ a }} and {{ b }} and {{ a }}", {"a": 1, "b": "x"}, "1 and x and 1"),
        ("{{ a.b }}{{ a['c'] }}{{ l[0] }}", {"a": {"b": "x", "c": "y"}, "l": ["z"]}, "xyz"),
        ("{{ a|upper }} {{ b|default('none') }}", {"a": "x"}, "X none"),
        ("{% if a is defined and a > 1 %}many{% else %}one{% endif %}", {"a": 2}, "many"),
        ("{% for i in a %}{{ loop.index }}.{{ i }} {% endfor %}", {"a": ["x", "y"]}, "1.x 2.y "),
        ("{{ a|join(', ') }} {{ 'aa'|replace('a', 'b') }}", {"a": [1, 2]}, "1, 2 bb"),
        ("{{ a }}|{{ n }}", {"a": None, "n": 0}, "|0"),
        ("{{ 'a' ~ 1 }} {{ 2 * 3 }} {{ 7 % 2 }}", {}, "a1 6 1"),
        ("{# a note #}x{% raw %}{{ y }}{% endraw %}", {}, "x{{ y }}"),
        ("a \ufdd00\ufdd1 b {{ v }}", {"v": "\ufdd00\ufdd1"}, "a 0 b 0"),
        ("{{ v }}", {"v": "a\0b\ud800c\r\nd"}, "abc\nd"),
    ],
)
def test_what_it_says(text: str, data: dict[str, Any], wanted: str) -> None:
    assert said(text, data) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ a['__class__'] }}",
        "{{ a|attr('__class__') }}",
        "{{ [a]|map(attribute='__class__')|join }}",
        "{{ [a]|map('attr', '__class__')|list }}",
        "{{ a.upper() }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ '%s' % a }}",
        "{{ range(10) }}",
        "{{ self }}",
        "{{ cycler }}",
        "{% set x = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% for a in b recursive %}{% endfor %}",
        "{{ a ** a }}",
        "{{ a|safe }}",
        "{{ a|tojson }}",
        "{% if %}",
        "{{ a",
        "{{ }}",
        "{% for x in l %}",
        "(" * 10 + "{{ " + "(" * 5000 + " }}",
    ],
)
def test_what_it_refuses(text: str) -> None:
    with pytest.raises(ContentRefused) as refused:
        said(text, {"a": "value", "b": [1], "l": []})
    assert "value" not in refused.value.problem.reason


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in l %}{% for b in l %}" + "x" * 999 + "{% endfor %}{% endfor %}",
        "{% for a in l %}{{ big }}{% endfor %}",
        "{{ big|replace('x', big) }}",
        "{{ l|join(big) }}",
        "{{ big|center(100000000) }}",
        "{{ big }}" * 600,
        "x" * (MAX_TEXT + 1),
        "{{ [1]|batch(1000000000, 'x')|list|length }}",
        "{{ 1.5|round(1000000000, 'ceil') }}",
        "{{ 5|round(-1000000000) }}",
        "{{ (" + "~".join(["big"] * 1000) + ")|length }}",
        "{{ (" + "+".join(["big"] * 50) + ")|length }}",
        "{{ [" + ",".join(["big"] * 1000) + "] }}",
        "{{ [" + ",".join(["big"] * 1000) + "]|string|length }}",
        "{{ [" + ",".join(["big"] * 1000) + "]|sort|length }}",
        "{{ [" + ",".join(["big[1:]"] * 500) + "]|length }}",
        "{{ big|list|map('replace', 'x', big)|list|length }}",
        "{% for a in l %}{{ big|sort|length }}{% endfor %}",
        "{% for a in l %}{% if big == big2 or big in big2 %}x{% endif %}{% endfor %}",
        "{% for a in l %}" + "{% if a %}{% endif %}" * 500 + "{% endfor %}",
        "{{ l|map(attribute='" + "a." * 20_000 + "a')|list }}",
        "{{ " + "*".join(["9007199254740993"] * 500) + " }}",
        "{% if a %}x{% endif %}" * 2_000,
        "{% for a in l %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "-" * 500 + "a }}",
        "{{ " + "[" * 150 + "]" * 150 + " }}",
    ],
)
def test_it_cannot_be_made_to_eat_the_worker(text: str) -> None:
    big = "x" * 50_000
    with pytest.raises(ContentRefused):
        said(text, {"l": list(range(1500)), "big": big, "big2": big[:-1] + "y", "a": 1})


def test_whatever_a_filter_raises_concerns_this_message_alone() -> None:
    with pytest.raises(ContentRefused, match=r"content\.text: .*expected length >= 3, got 1"):
        said("{{ a|truncate(1) }}", {"a": "a secret"})


def test_data_have_no_methods() -> None:
    order = {"items": [{"keys": "shoes"}, {"keys": "socks"}]}
    assert said("{{ order['items']|length }}{{ order.items|length }}", {"order": order}) == "22"
    assert (
        said("{% for one in order.items %}{{ one.keys }} {% endfor %}", {"order": order})
        == "shoes socks "
    )
    for text in ("{{ a.upper }}", "{{ order.values }}", "{{ [a]|map(attribute='upper')|join }}"):
        with pytest.raises(ContentRefused):
            said(text, {"a": "x", "order": order})


def test_an_invoice_of_many_lines_is_well_within_bounds() -> None:
    text = (
        "{% for one in lines|sort(attribute='name') %}{{ loop.index }}. {{ one.name|upper }} "
        "{{ '%s x ' ~ one.price|round(2) }}{% if one.price > 10 and not loop.last %}!{% endif %}\n"
        "{% endfor %}{{ lines|sum(attribute='price') }} "
        "{{ lines|map(attribute='name')|join(', ') }}"
    )
    lines = [{"name": f"article {number}", "price": number / 8} for number in range(160)]
    assert said(text, {"lines": lines}).endswith("article 159")


def test_a_missing_variable_is_named() -> None:
    for text in ("{{ name }}", "{{ name.first }}", "{% if name %}x{% endif %}", "{{ name|upper }}"):
        with pytest.raises(ContentRefused) as refused:
            said(text, {})
        assert refused.value.problem.field == "data.name"
        assert "{{ name }}" in refused.value.problem.reason


def test_a_mistake_names_its_line() -> None:
    with pytest.raises(ContentRefused, match=r"content\.text: line 3"):
        said("a\nb\n{{ a + }}", {})


def test_an_error_does_not_repeat_what_data_say() -> None:
    with pytest.raises(ContentRefused) as refused:
        said("{{ a + 1 }}{{ b['k'].x.y }}", {"a": "secret", "b": {"k": "secret"}})
    assert "secret" not in refused.value.problem.reason
