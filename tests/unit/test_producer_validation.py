"""What the wire format takes and refuses, field by field."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converge_producer import InvalidIntent, validate_intent
from converge_producer.wire import (
    CHANNELS,
    KINDS,
    MAX_ACTIONS,
    MAX_DEPTH,
    MAX_INTENT_BYTES,
    MAX_KEY,
    URGENCIES,
    pack_intent,
)

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
LEAST = {"to": "cust-42", "topic": "orders", "content": {"text": "Hello"}}
FULL: dict[str, Any] = {
    "key": "order-991-shipped",
    "sender": "store",
    "to": "cust-42",
    "topic": "orders",
    "kind": "transactional",
    "urgency": "normal",
    "campaign": None,
    "content": {
        "subject": "Order 991 is on its way",
        "text": "Hello **{{ name }}**",
        "actions": [{"label": "Track it", "url": "https://shop.example/t/991"}],
        "must_keep": ["991"],
        "overrides": {"sms": "On its way"},
    },
    "data": {"name": "Ada"},
    "policy": "notify",
    "send_after": None,
    "expires_at": None,
    "replaces": None,
}


def with_content(**content: Any) -> dict[str, Any]:
    return {**LEAST, "content": {"text": "Hello", **content}}


def with_url(url: Any) -> dict[str, Any]:
    return with_content(actions=[{"label": "Go", "url": url}])


def with_customer(**fields: Any) -> dict[str, Any]:
    return {**LEAST, "to": {"ref": "cust-42", **fields}}


def problem(document: Any, now: datetime | None = NOW) -> InvalidIntent:
    with pytest.raises(InvalidIntent) as caught:
        validate_intent(document, now)
    return caught.value


GOOD = {
    "the least": LEAST,
    "every field": FULL,
    "a template": {**LEAST, "content": {"template": "order-shipped", "text": None}},
    "times": {**LEAST, "send_after": "2030-01-02T00:00Z", "expires_at": "2030-01-03T00:00+02:00"},
    "https": with_url("https://shop.example/t/991?a=b#c"),
    "http with a port": with_url("http://shop.example:8080"),
    "upper case": with_url("HTTPS://SHOP.EXAMPLE/x"),
    "placeholder in path": with_url("https://shop.example/t/{{ order }}?for={{name}}"),
    "an address by number": with_url("http://[::1]:8000/x"),
    "a path beyond ASCII": with_url("https://shop.example/bücher"),
    "emoji in a subject": with_content(subject="It is here \U0001f469‍\U0001f4bb"),
    "several lines of text": with_content(text="one\r\ntwo\n\tthree"),
    "text that speaks of NUL": with_content(text="write \\u0000 in JSON"),
    "customer, everything": with_customer(
        name="Ada Example",
        email=["ada@example.com", "o'hara+x@sub.example.org"],
        phone="+1 (555) 0100-22",
        chat=["matrix:@ada:example.org", {"service": "slack", "address": "U123"}],
        social={"service": "whatsapp", "address": "+15550100"},
        locale="pt-BR",
        timezone="America/Argentina/Buenos_Aires",
        attributes={"tier": "gold", "visits": 3, "left": None},
        as_of="2029-12-31T00:00:00+00:00",
    ),
    "customer, removals": with_customer(email=None, phone=None, chat=None, attributes=None),
    "an international address": with_customer(email="user@bücher.example"),
}


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_a_good_intent_passes_unchanged(document: dict[str, Any]) -> None:
    assert json.loads(pack_intent(document, NOW)) == document


BAD = [
    # field, words of the reason, document
    ("", "an object", "text"),
    ("to", "required", {"topic": "orders", "content": {"text": "x"}}),
    ("topic", "required", {"to": "c", "content": {"text": "x"}}),
    ("content", "required", {"to": "c", "topic": "orders"}),
    ("content.text", "required", {**LEAST, "content": {"subject": "x"}}),
    ("topic", "empty", {**LEAST, "topic": "  "}),
    ("topic", "string, not a number", {**LEAST, "topic": 7}),
    ("to", "ref or a customer", {**LEAST, "to": ["cust-42"]}),
    ("to.ref", "required", {**LEAST, "to": {"email": "ada@example.com"}}),
    ("content", "object, not a string", {**LEAST, "content": "Hello"}),
    # unknown fields are named
    ("urgancy", "did you mean 'urgency'", {**LEAST, "urgancy": "bulk"}),
    ("text", "content.text", {**LEAST, "text": "Hello"}),
    ("bundle", "reserved", {**LEAST, "bundle": "weekly"}),
    ("content.attachments", "link to the file", with_content(attachments=[])),
    ("content.subjct", "did you mean 'subject'", with_content(subjct="x")),
    ("to.emails", "did you mean 'email'", with_customer(emails=["ada@example.com"])),
    (
        "content.actions[0].link",
        "unknown",
        with_content(actions=[{"label": "x", "link": "https://a.example"}]),
    ),
    ("content.overrides.emial", "did you mean 'email'", with_content(overrides={"emial": "x"})),
    # closed lists
    ("kind", "did you mean 'marketing'", {**LEAST, "kind": "marketting"}),
    ("urgency", "one of urgent, normal, bulk", {**LEAST, "urgency": "now"}),
    ("kind", "one of", {**LEAST, "kind": ["marketing"]}),
    # injections
    ("content.subject", "line breaks", with_content(subject="Hi\r\nBcc: x@example.com")),
    ("content.subject", "line breaks", with_content(subject="Hi\u2028there")),
    ("to.email", "line breaks", with_customer(email="ada@example.com\nBcc: b@example.com")),
    ("to.email[1]", "e-mail address", with_customer(email=["a@example.com", "b@exa mple.com"])),
    ("to.email", "e-mail address", with_customer(email="Ada <ada@example.com>")),
    ("to.email", "e-mail address", with_customer(email="a@b.example,c@d.example")),
    ("to.email", "e-mail address", with_customer(email="ada")),
    ("to.phone", "phone number", with_customer(phone="call me")),
    ("to.phone", "line breaks", with_customer(phone="+15550100\r\n")),
    ("to.chat", "service:address", with_customer(chat="@ada")),
    ("to.chat.address", "required", with_customer(chat={"service": "matrix"})),
    ("to.social[0].service", "service", with_customer(social=[{"service": "X!", "address": "a"}])),
    ("to.name", "line breaks", with_customer(name="Ada\r\nX: y")),
    ("key", "control", {**LEAST, "key": "a\x1fb"}),
    ("sender", "line breaks", {**LEAST, "sender": "store\n"}),
    # links
    *(
        ("content.actions[0].url", "http", with_url(url))
        for url in (
            "javascript:alert(1)",
            " javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "//shop.example/x",
            "shop.example/x",
            " https://shop.example",
            "https://",
            "https:///path",
            "https://[abc/",
            "https://a[b]c.example/",
            "https://{{ host }}/x",
            "{{ url }}",
            "https://shop.example@evil.example/",
            "https://shop.example\\@evil.example/",
            "https://shop.example/a b",
            "https://shop.example/{% raw %}",
            'https://shop.example/"onclick=',
        )
    ),
    ("content.actions[0].url", "line breaks", with_url("java\nscript:alert(1)")),
    ("content.actions[0].url", "line breaks", with_url("https://shop.example/\tx")),
    ("content.actions[0].label", "required", with_content(actions=[{"url": "https://a.example"}])),
    # sizes
    ("key", f"at most {MAX_KEY}", {**LEAST, "key": "k" * (MAX_KEY + 1)}),
    (
        "content.actions",
        f"at most {MAX_ACTIONS}",
        with_content(actions=[{"label": "x", "url": "https://a.example"}] * (MAX_ACTIONS + 1)),
    ),
    ("", str(MAX_INTENT_BYTES), with_content(text="é" * (MAX_INTENT_BYTES // 2))),
    ("", str(MAX_INTENT_BYTES), {**LEAST, "data": {"blob": "x" * 10_000_000}}),
    # template or text, not both
    (
        "content.text",
        "not both",
        {**LEAST, "content": {"template": "order-shipped", "text": "x"}},
    ),
    ("content.template", "template's name", {**LEAST, "content": {"template": "../secrets"}}),
    # times
    ("expires_at", "already passed", {**LEAST, "expires_at": "2030-01-01T11:59:59Z"}),
    ("expires_at", "UTC offset", {**LEAST, "expires_at": "2030-01-02T00:00:00"}),
    ("expires_at", "16 hours", {**LEAST, "expires_at": "2030-01-02T00:00:00+18:58"}),
    ("send_after", "16 hours", {**LEAST, "send_after": "2030-01-02T00:00:00-16:00"}),
    ("send_after", "ISO 8601", {**LEAST, "send_after": "tomorrow"}),
    ("send_after", "string, not a number", {**LEAST, "send_after": 1893456000}),
    ("send_after", "years", {**LEAST, "send_after": "0001-01-01T00:00:00+14:00"}),
    (
        "send_after",
        "before expires_at",
        {**LEAST, "send_after": "2030-02-01T00:00Z", "expires_at": "2030-02-01T01:00+01:00"},
    ),
    ("replaces", "another key", {**LEAST, "key": "r4", "replaces": "r4"}),
    ("to.as_of", "UTC offset", with_customer(as_of="2030-01-01T00:00:00")),
    ("to.timezone", "IANA", with_customer(timezone="Europe/Paris; x")),
    ("to.locale", "language tag", with_customer(locale="english please")),
    # data
    ("data", "templates cannot use", {**LEAST, "data": {"first name": "Ada"}}),
    ("data", "JSON", {**LEAST, "data": {"when": NOW}}),
    ("data", "JSON", {**LEAST, "data": {"n": float("nan")}}),
    ("data", "object", {**LEAST, "data": [1]}),
    ("content", "surrogate", with_content(text="half \ud83d")),
    ("content.must_keep[1]", "empty", with_content(must_keep=["991", ""])),
]


@pytest.mark.parametrize(("field", "words", "document"), BAD)
def test_a_bad_intent_names_the_field_and_the_reason(field: str, words: str, document: Any) -> None:
    found = problem(document)
    assert found.field == field
    assert words in found.reason
    assert str(found) == (f"{field}: {found.reason}" if field else found.reason)


def test_nul_is_refused_wherever_it_hides() -> None:
    assert problem(with_content(text="a\x00b")).field == "content"
    assert problem({**LEAST, "data": {"x": [{"y\x00": 1}]}}).field == "data"


def nested(levels: int) -> Any:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    return deep


@pytest.mark.parametrize("levels", [MAX_DEPTH, 900, 100_000])
def test_deep_nesting_is_refused_before_it_crashes_a_decoder(levels: int) -> None:
    found = problem({**LEAST, "data": {"deep": nested(levels)}})
    assert (found.field, found.reason) == ("data", "is nested too deeply")


def test_many_brackets_are_not_deep() -> None:
    validate_intent({**LEAST, "data": {"deep": nested(MAX_DEPTH - 2), "wide": [[]] * 100}})
    validate_intent(with_content(text="[[[[{{{{" * 20))


def test_without_a_clock_an_old_intent_is_no_matter_of_form() -> None:
    validate_intent({**LEAST, "expires_at": "2020-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    "document",
    [
        with_customer(email="secret.person@@example.com"),
        with_customer(phone="secret.person"),
        with_customer(chat="secret.person"),
        with_customer(**{"secret.person@example.com": 1}),
        {**LEAST, "data": {"secret.person": 1}},
        with_customer(attributes={"secret.person\n": 1}),
        {**LEAST, "kind": "secret.person"},
        {**LEAST, "expires_at": "secret.person"},
    ],
)
def test_a_refusal_never_repeats_what_it_refuses(document: dict[str, Any]) -> None:
    found = problem(document)
    assert "secret" not in str(found)
    assert "secret" not in repr(found)


def outcome(document: dict[str, Any]) -> tuple[InvalidIntent | None, str]:
    try:
        return None, pack_intent(document, NOW)
    except InvalidIntent as refusal:
        return refusal, ""


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner)
)


@given(document=st.dictionaries(st.sampled_from([*FULL, "other"]), _JSON))
def test_any_json_is_taken_or_refused_never_a_crash(document: dict[str, Any]) -> None:
    refusal, packed = outcome(document)
    if refusal is None:
        assert json.loads(packed) == document
    else:
        assert refusal.reason


@given(field=st.sampled_from([name for name in FULL if name != "content"]), value=_JSON)
def test_a_whole_intent_survives_any_one_field(field: str, value: Any) -> None:
    refusal, packed = outcome({**FULL, field: value})
    if refusal is None:
        packed.encode()
    else:
        assert refusal.field == "" or refusal.field.startswith(field)


@given(url=st.text(max_size=30) | st.text(max_size=20).map("https://".__add__))
def test_a_link_that_passes_is_plain_http_to_its_own_host(url: str) -> None:
    try:
        validate_intent(with_url(url))
    except InvalidIntent:
        return
    scheme, _, rest = url.partition("://")
    assert scheme.lower() in ("http", "https")
    host = rest.replace("?", "/").replace("#", "/").partition("/")[0]
    assert host
    assert not set(host) & set(" @\\{}\t\r\n")


@given(
    kind=st.sampled_from(KINDS),
    urgency=st.sampled_from(URGENCIES),
    channel=st.sampled_from(CHANNELS),
    lead=st.timedeltas(timedelta(seconds=1), timedelta(days=900)),
)
def test_every_word_of_the_lists_passes(
    kind: str, urgency: str, channel: str, lead: timedelta
) -> None:
    document = with_content(overrides={channel: "short"})
    document |= {"kind": kind, "urgency": urgency, "expires_at": (NOW + lead).isoformat()}
    validate_intent(document, NOW)
