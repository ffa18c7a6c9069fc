"""Mails, read back by Python's own mail parser."""

import email
import email.policy
import re
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.content.headers import mail_date
from app.content.mail import SenderIdentity, compile_email
from app.content.message import Personal, link_target
from app.content.problem import ContentRefused
from app.domain.body import EmailBody
from app.domain.tokens import Links, Purpose, Rights, Signer

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
SIGNER = Signer([b"a-secret-for-these-tests"])
LINKS = Links("https://mail.example.com", SIGNER, datetime(2025, 4, 1, tzinfo=UTC))
STORE = SenderIdentity("The Store", "store@shop.example", reply_to="help@shop.example")
ORDER = {
    "subject": "Order {{ order }} is on its way",
    "text": "Hello **{{ name }}**, see [our terms](https://shop.example/terms?a=1&b=2).",
    "actions": [{"label": "Track {{ order }}", "url": "https://shop.example/t/{{ order }}?x=1"}],
}
DATA = {"name": "Ada", "order": "991"}


def person(data: dict[str, Any], **changes: Any) -> Personal:
    fields = {
        "delivery_id": 7,
        "data": data,
        "links": LINKS,
        "to_address": "ada@example.com",
        "customer_name": "Ada",
        "date": mail_date(NOW),
    }
    return Personal(**{**fields, **changes})


def rendered(document: dict[str, Any], data: dict[str, Any] = DATA, **options: Any) -> EmailBody:
    options = {"tracking": "all", **options}
    return compile_email(document, STORE, **options).render(person(data))


def parsed(body: EmailBody) -> EmailMessage:
    message = email.message_from_bytes(body.mime, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    # What SMTP demands of every line.
    assert b"\n" not in body.mime.replace(b"\r\n", b"")
    assert b"\r" not in body.mime.replace(b"\r\n", b"")
    assert max(map(len, body.mime.split(b"\r\n"))) <= 998
    assert body.eight_bit is not body.mime.isascii()
    return message


def parts(body: EmailBody) -> tuple[str, str]:
    message = parsed(body)
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return text.get_content().replace("\r\n", "\n"), html.get_content().replace("\r\n", "\n")


def test_the_headers_say_who_to_whom_and_what() -> None:
    message = parsed(rendered(ORDER))
    assert message["From"] == "The Store <store@shop.example>"
    assert message["Reply-To"] == "help@shop.example"
    assert message["To"] == "Ada <ada@example.com>"
    assert message["Subject"] == "Order 991 is on its way"
    assert message["Date"].datetime == NOW
    assert message["Auto-Submitted"] == "auto-generated"
    trace = message["X-Converge-Delivery"]
    assert SIGNER.read(trace, Purpose.TRACE, NOW).id == 7
    assert message["Message-ID"] == f"<{trace}@shop.example>"
    assert message["List-Unsubscribe"] is None


def test_it_is_the_same_at_every_attempt() -> None:
    assert rendered(ORDER) == rendered(ORDER)


def test_one_click_unsubscribe() -> None:
    body = rendered(ORDER, unsubscribe=True, automatic=False)
    message = parsed(body)
    assert message["Auto-Submitted"] is None
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = message["List-Unsubscribe"].strip("<>")
    assert SIGNER.read(url.rpartition("/")[2], Purpose.UNSUBSCRIBE, NOW).id == 7
    assert all(url in part for part in parts(body))


def test_links_and_pixel_are_tracked() -> None:
    text, html = parts(rendered(ORDER))
    clicks = re.findall(r'href="https://mail\.example\.com/c/([^"]+)"', html)
    targets = [
        link_target(ORDER, DATA, SIGNER.read(token, Purpose.CLICK, NOW).index).url
        for token in clicks
    ]
    assert targets == ["https://shop.example/terms?a=1&b=2", "https://shop.example/t/991?x=1"]
    assert all(f"https://mail.example.com/c/{token}" in text for token in clicks)
    (seen,) = re.findall(r'<img src="https://mail\.example\.com/o/([^"]+)"', html)
    assert SIGNER.read(seen, Purpose.OPEN, NOW).id == 7
    assert "shop.example" not in html


def test_clicks_alone_leave_the_pixel_out() -> None:
    _, html = parts(rendered(ORDER, tracking="clicks"))
    assert "/c/" in html
    assert "<img" not in html


def test_without_tracking_links_are_direct() -> None:
    text, html = parts(rendered(ORDER, tracking="off"))
    assert 'href="https://shop.example/terms?a=1&amp;b=2"' in html
    assert "Track 991: https://shop.example/t/991?x=1" in text
    assert "/c/" not in html
    assert "/o/" not in html


def test_values_are_never_markup() -> None:
    name = '<script>alert("1")</script> **bold** [x](https://evil.example) & co'
    text, html = parts(rendered(ORDER, {"name": name, "order": "9&1"}))
    assert name in text
    assert "<script" not in html
    assert "evil.example)" in html
    assert 'href="https://evil' not in html
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; **bold**" in html
    assert "Track 9&amp;1" in html


def test_values_are_quoted_inside_urls() -> None:
    text, html = parts(rendered(ORDER, {**DATA, "order": "9/9?a=b&c#d é"}, tracking="off"))
    url = "https://shop.example/t/9%2F9%3Fa%3Db%26c%23d%20%C3%A9?x=1"
    assert url in text
    assert f'href="{url}"' in html


@pytest.mark.parametrize("value", ["javascript:alert(1)", "data:text/html,x", "//x", "", "http://"])
def test_a_whole_url_in_data_must_be_http(value: str) -> None:
    document = {"text": "x", "actions": [{"label": "Go", "url": "{{ url }}"}]}
    with pytest.raises(ContentRefused, match="http"):
        rendered(document, {"url": value}, tracking="off")
    with pytest.raises(ContentRefused, match="http"):
        link_target(document, {"url": value}, 0)


def test_a_whole_url_in_data_cannot_leave_its_attribute() -> None:
    document = {"text": "x", "actions": [{"label": "Go", "url": "{{ url }}"}]}
    _, html = parts(
        rendered(document, {"url": 'https://a.example/"><b>?a=1&copy=2'}, tracking="off")
    )
    assert 'href="https://a.example/%22%3E%3Cb%3E?a=1&amp;copy=2"' in html


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ftp://a.example", "ht{{ a }}://x.example"])
def test_other_schemes_are_refused(url: str) -> None:
    for document in (
        {"text": "x", "actions": [{"label": "Go", "url": url}]},
        {"text": f"[x]({url.replace(' ', '')})"},
    ):
        with pytest.raises(ContentRefused, match="http"):
            rendered(document, {"a": "tp"})


def test_there_is_no_open_redirect() -> None:
    for index in (1, 255, 257, 512, 600, 65535):
        with pytest.raises(ContentRefused, match="no such link"):
            link_target(ORDER, DATA, index)


def test_links_of_an_override_are_found_again() -> None:
    document = {**ORDER, "overrides": {"email": "See [this](https://shop.example/{{ order }})."}}
    _, html = parts(rendered(document))
    token = re.findall(r"/c/([^\"]+)", html)[0]
    index = SIGNER.read(token, Purpose.CLICK, NOW).index
    assert link_target(document, DATA, index).url == "https://shop.example/991"
    assert link_target(document, DATA, 256).url == "https://shop.example/terms?a=1&b=2"


@pytest.mark.parametrize(
    "subject",
    [
        "Grüße aus Köln 🎉",
        "🎉" * 60,
        "long " * 40 + "end",
        "x" * 500,
        "=?utf-8?q?fake?=",
        "two  spaces " + "and more words " * 10,
        '(comment) <a@b.example>, "quoted"',
    ],
)
def test_any_subject_survives(subject: str) -> None:
    body = rendered({"subject": "{{ s }}", "text": "x"}, {"s": subject})
    assert parsed(body)["Subject"] == subject
    assert max(map(len, body.mime.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 500


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=120))
def test_any_printable_subject_survives(subject: str) -> None:
    body = rendered({"subject": "{{ s }}", "text": "x"}, {"s": subject})
    head = body.mime.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert len(head.split(b"\r\nSubject:")) == 2
    if subject.strip() == subject:
        assert str(email.message_from_bytes(body.mime, policy=email.policy.default)["Subject"]) == (
            subject
        )


@pytest.mark.parametrize("evil", ["a\r\nBcc: x@evil.example", "a\nb", "a\rb"])
def test_a_line_break_in_a_header_is_refused(evil: str) -> None:
    skeleton = compile_email({"subject": "For {{ name }}", "text": "x"}, STORE, tracking="off")
    with pytest.raises(ContentRefused) as refused:
        skeleton.render(person({"name": evil}))
    assert refused.value.problem.field == "content.subject"
    with pytest.raises(ContentRefused):
        skeleton.render(person({"name": "Ada"}, customer_name=evil))
    with pytest.raises(ContentRefused) as refused:
        skeleton.render(person({"name": "Ada"}, to_address=f"a@example.com{evil}"))
    assert refused.value.problem.field == "to"
    assert skeleton.render(person({"name": "Ada"}))
    with pytest.raises(ContentRefused):
        SenderIdentity(evil, "store@shop.example")


@pytest.mark.parametrize("name", ['Ada "the" Count\\ess', "Löve, Ada", "A" * 90, "ü" * 90, ""])
def test_any_name_survives(name: str) -> None:
    skeleton = compile_email({"text": "x"}, STORE, tracking="off")
    body = skeleton.render(person({}, customer_name=name))
    # Python 3.11's address parser puts a blank between encoded words (RFC 2047, 6.2 says not to),
    # so the name is decoded apart.
    encoded, address = parseaddr(email.message_from_bytes(body.mime)["To"].replace("\r\n", ""))
    assert (str(make_header(decode_header(encoded))), address) == (name, "ada@example.com")


def test_no_value_can_end_a_part() -> None:
    text, _ = parts(rendered(ORDER))
    boundary = parsed(rendered(ORDER)).get_boundary()
    other = person({**DATA, "name": f"x\n--{boundary}--\nx"}, delivery_id=8)
    body = compile_email(ORDER, STORE, tracking="off").render(other)
    assert len(list(parsed(body).iter_parts())) == 2
    assert text


def test_long_lines_travel_as_base64_and_only_where_needed() -> None:
    line = "x" * 10_000
    body = rendered({"text": "Hello {{ v }}"}, {"v": line})
    text, html = parts(body)
    assert f"Hello {line}" in text
    assert line in html
    assert body.mime.count(b"Content-Transfer-Encoding: base64") == 2
    assert b"base64" not in rendered({"text": "Hello {{ v }}"}, {"v": "short"}).mime


@given(st.text(max_size=300))
def test_any_value_survives_in_the_text(value: str) -> None:
    text, html = parts(rendered({"text": "A{{ v }}Z"}, {"v": value}))
    wanted = re.sub(
        "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]",
        "",
        value.replace("\r\n", "\n").replace("\r", "\n"),
    )
    assert f"A{wanted}Z" in text.replace("\r\n", "\n")
    assert html.count("<p ") == 1


def test_dots_and_from_at_line_starts_stay() -> None:
    text, _ = parts(rendered({"text": "{{ v }}"}, {"v": ".\n..\nFrom here"}))
    assert text.startswith(".\n..\nFrom here")


def test_umlauts_travel_as_eight_bit() -> None:
    body = rendered(ORDER, {**DATA, "name": "Ümläut €"})
    assert body.eight_bit
    assert "Hello Ümläut €," in parts(body)[0]


def test_without_subject_the_text_begins_it() -> None:
    message = parsed(rendered({"text": "# Hello {{ name }}\n\nmore"}, {"name": "Ada\nLöve"}))
    assert message["Subject"] == "Hello Ada Löve"
    long = parsed(rendered({"text": "word " * 40}))["Subject"]
    assert long.endswith("word…")
    assert len(long) <= 71


def test_the_language_is_said() -> None:
    _, html = parts(rendered(ORDER, locale="de-AT"))
    assert '<html lang="de-AT" dir="ltr">' in html
    assert "Im Browser ansehen" in html
    assert 'dir="rtl"' in parts(rendered(ORDER, locale="ar"))[1]


def test_plain_text_keeps_the_shape() -> None:
    document = {
        "text": "# Title\n\nOne\ntwo  \nthree\n\n- a\n- b **c**\n  1. d\n  2. e\n\n> quoted\n> text"
        "\n\n"
        "<https://shop.example/x> and ![a cat](https://shop.example/cat.png) "
        "and <help@shop.example>\n\n    code\n"
    }
    text, html = parts(rendered(document, {}, tracking="off"))
    assert text.partition("\n\n-- ")[0] == (
        "Title\n\nOne two\nthree\n\n- a\n- b c\n  1. d\n  2. e\n\n> quoted text\n\n"
        "https://shop.example/x and a cat and help@shop.example\n\ncode"
    )
    assert '<img src="https://shop.example/cat.png" alt="a cat"' in html


def test_raw_html_is_shown_and_not_obeyed() -> None:
    text, html = parts(rendered({"text": "<b onclick='x()'>hi</b>"}, {}))
    assert "&lt;b onclick='x()'&gt;hi&lt;/b&gt;" in html
    assert "<b onclick='x()'>hi</b>" in text


def test_control_flow_says_the_same_as_plain_placeholders() -> None:
    simple = rendered(ORDER, {"name": "<Ada>\nB", "order": "9&1"})
    running = {**ORDER, "text": "{% if order %}" + ORDER["text"] + "{% endif %}"}
    assert rendered(running, {"name": "<Ada>\nB", "order": "9&1"}) == simple
    everywhere = {
        "subject": ORDER["subject"].replace("{{ order }}", "{{ order|string }}"),
        "text": ORDER["text"].replace("{{ name }}", "{{ name|trim }}"),
        "actions": [
            {"label": "Track {{ o.no }}", "url": "https://shop.example/t/{{ o['no'] }}?x=1"}
        ],
    }
    data = {"name": " <Ada>\nB ", "order": "9&1", "o": {"no": "9&1"}}
    assert rendered(everywhere, data) == simple


def test_loops_make_lists() -> None:
    document = {"text": "Items:\n\n{% for item in items %}\n- {{ item }}\n{% endfor %}\n\nBye"}
    text, html = parts(rendered(document, {"items": ["a", "*b*"]}))
    assert text.startswith("Items:\n\n- a\n- *b*\n\nBye")
    assert html.count("<li ") == 2
    assert '<li style="margin:0 0 6px">*b*</li>' in html


def test_the_link_to_preferences_names_the_customer_and_lasts_longer_than_the_message() -> None:
    links = Links("https://c.example", SIGNER, NOW, preferences_until=NOW + timedelta(days=60))
    for locale, words in (("en", "Preferences"), ("de-AT", "Einstellungen")):
        skeleton = compile_email(ORDER, STORE, tracking="all", locale=locale)
        message = parsed(skeleton.render(person(DATA, links=links, customer_id=42)))
        for kind in ("plain", "html"):
            part = message.get_body((kind,))
            assert part is not None
            found = re.search(r"https://c\.example/p/([\w-]{36})", part.get_content())
            assert found
            assert words in part.get_content()
            claims = SIGNER.read(found[1], Purpose.PREFERENCES, NOW + timedelta(days=59))
            assert (claims.id, claims.index) == (42, Rights.CHOOSE)
