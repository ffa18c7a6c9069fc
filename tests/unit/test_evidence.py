"""Grades of evidence, and who fetched the pixel."""

from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.evidence import (
    Evidence,
    Networks,
    Suspicion,
    Verdict,
    classify_click,
    classify_open,
    evidence_of,
    is_burst,
    satisfies,
)
from app.domain.vocabulary import EventType

LATER = 600.0
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148"
)
OUTLOOK = "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Microsoft Outlook 16.0.5266)"
THUNDERBIRD = "Mozilla/5.0 (Windows NT 10.0; rv:115.0) Gecko/20100101 Thunderbird/115.3.1"
CUBOT = "Mozilla/5.0 (Linux; Android 9; CUBOT_X19) AppleWebKit/537.36 Chrome/120.0 Mobile"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
YAHOO = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
APPLE = "Mozilla/5.0"

PEOPLE = [FIREFOX, IPHONE, OUTLOOK, THUNDERBIRD, CUBOT]
MACHINES = [
    (APPLE, "apple_prefetch"),
    (" Mozilla/5.0 ", "apple_prefetch"),
    (GMAIL_PREFETCH, "gmail_prefetch"),
    ("", "no_user_agent"),
    (None, "no_user_agent"),
    (
        "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/534 Chrome/7.0 Safari/534 BingPreview/1.0b",
        "scanner",
    ),
    ("BarracudaLinkProtect/1.0", "scanner"),
    ("Proofpoint URL Defense", "scanner"),
    ("Mimecast/1.0", "scanner"),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.example.com/bot.html)", "robot"),
    ("Slackbot-LinkExpanding 1.0 (+https://api.slack.example/robots)", "robot"),
    ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0 Safari", "robot"),
    ("python-requests/2.32.3", "robot"),
    ("curl/8.5.0", "robot"),
    ("Go-http-client/1.1", "robot"),
    ("facebookexternalhit/1.1", "robot"),
    ("WhatsApp/2.23.20.0", "robot"),
]


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_people_open_and_click(user_agent: str) -> None:
    person = (user_agent, "192.0.2.7", "GET", LATER)
    assert classify_open(*person) == Verdict(EventType.OPENED, "person")
    assert classify_click(*person) == Verdict(EventType.CLICKED, "person")


@pytest.mark.parametrize(("user_agent", "reason"), MACHINES)
def test_machines_neither_open_nor_click(user_agent: str | None, reason: str) -> None:
    machine = Verdict(EventType.OPENED_BY_MACHINE, reason)
    assert classify_open(user_agent, "192.0.2.7", "GET", LATER) == machine
    assert classify_click(user_agent, "192.0.2.7", "GET", LATER) == machine


@pytest.mark.parametrize("user_agent", [GMAIL, YAHOO])
def test_a_mail_proxy_stands_for_a_person_but_not_at_delivery_nor_behind_a_link(
    user_agent: str,
) -> None:
    assert classify_open(user_agent, None, "GET", LATER) == Verdict(EventType.OPENED, "mail_proxy")
    at_delivery = classify_open(user_agent, None, "GET", 1.0)
    assert at_delivery == Verdict(EventType.OPENED_BY_MACHINE, "too_early")
    assert classify_click(user_agent, None, "GET", LATER).event is EventType.OPENED_BY_MACHINE


@pytest.mark.parametrize("classify", [classify_open, classify_click])
def test_seconds_after_hand_over_nobody_can_have_looked(classify: object) -> None:
    assert callable(classify)
    early = Verdict(EventType.OPENED_BY_MACHINE, "too_early")
    assert classify(FIREFOX, None, "GET", 2.99) == early
    assert classify(FIREFOX, None, "GET", None) == early, "not even settled"
    assert classify(FIREFOX, None, "GET", -0.5) == early, "clocks differ"
    assert classify(FIREFOX, None, "GET", 3.0).reason == "person"
    assert classify(FIREFOX, None, "GET", 0.6, Suspicion(grace_s=0.5)).reason == "person"


def test_head_asks_and_does_not_look() -> None:
    assert classify_open(FIREFOX, None, "HEAD", LATER).reason == "method"
    assert classify_click(FIREFOX, None, "head", LATER).event is EventType.OPENED_BY_MACHINE


def test_networks_of_gateways_are_the_operators_to_name() -> None:
    known = Suspicion(
        networks=Networks([ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")])
    )
    for ip in ("198.51.100.9", "2001:db8::1"):
        assert classify_click(FIREFOX, ip, "GET", LATER, known).reason == "scanner_network"
    for other in ("192.0.2.1", "not an address", "", None):
        assert classify_click(FIREFOX, other, "GET", LATER, known).reason == "person"


def test_networks_that_prefetch_open_without_being_seen_but_their_people_click() -> None:
    relay = Suspicion(prefetching=Networks([ip_network("203.0.113.0/24")]))
    told = classify_open(FIREFOX, "203.0.113.7", "GET", LATER, relay)
    assert told == Verdict(EventType.OPENED_BY_MACHINE, "prefetch_network")
    assert classify_click(FIREFOX, "203.0.113.7", "GET", LATER, relay).reason == "person"
    assert classify_open(FIREFOX, "203.0.114.7", "GET", LATER, relay).reason == "person"


@pytest.mark.parametrize(
    ("ip", "within"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("192.0.1.255", False),
        ("198.51.100.7", True),
        ("198.51.100.8", False),
        ("::ffff:192.0.2.9", True),
        ("2001:db8::ffff", True),
        ("2001:db9::", False),
        ("0.0.0.0", False),
        ("nothing", False),
        ("", False),
    ],
)
def test_an_address_is_found_in_many_networks(ip: str, within: bool) -> None:
    named = ("192.0.2.0/25", "192.0.2.128/25", "198.51.100.7/32", "2001:db8::/32", "192.0.2.8/30")
    networks = Networks(ip_network(one) for one in named)
    assert (ip in networks) is within
    assert ip not in Networks()


@pytest.mark.parametrize(
    ("followed", "links", "burst"),
    [
        ([], 5, False),
        ([0], 5, False),
        ([0, 0, 0, 0], 5, False),
        ([0], 1, False),
        ([0, 1], 5, False),
        ([0, 1], 2, True),
        ([0, -1], 1, True),
        ([0, 1, 2], 3, True),
        ([0, 1], 3, False),
        ([3, 7, 9], 20, True),
        ([3, 7, 7], 20, False),
    ],
)
def test_many_links_or_all_of_them_at_once_are_a_burst(
    followed: list[int], links: int, burst: bool
) -> None:
    assert is_burst(followed, links) is burst


@given(st.text(), st.text(), st.text(), st.none() | st.floats(allow_nan=False))
def test_whatever_arrives_gets_a_verdict(
    user_agent: str, ip: str, method: str, seconds: float | None
) -> None:
    assert classify_open(user_agent, ip, method, seconds).event in {
        EventType.OPENED,
        EventType.OPENED_BY_MACHINE,
    }


def test_grades_are_ordered_and_surer_as_they_rise() -> None:
    words = ["sent", "delivered", "opened_by_machine", "opened", "clicked", "replied"]
    grades = [Evidence.parse(word) for word in words]
    assert [grade.word for grade in sorted(Evidence)] == words
    assert all(a < b and a.probability < b.probability for a, b in pairwise(grades))
    assert Evidence.SENT.probability > 0
    assert Evidence.REPLIED.probability == 1


@pytest.mark.parametrize(
    ("event", "seen_at", "enough"),
    [
        (EventType.DELIVERED, "opened", False),
        (EventType.DELIVERED, "delivered", True),
        (EventType.OPENED_BY_MACHINE, "opened", False),
        (EventType.OPENED_BY_MACHINE, "delivered", True),
        (EventType.OPENED, "opened", True),
        (EventType.READ, "opened", True),
        (EventType.READ, "clicked", False),
        (EventType.OPENED, "read", True),
        (EventType.CLICKED, "opened", True),
        (EventType.REPLIED, "replied", True),
        (EventType.UNSUBSCRIBED, "opened", True),
        (EventType.COMPLAINED, "opened", True),
        (EventType.BOUNCED, "sent", False),
    ],
)
def test_what_is_enough_for_a_policy(event: EventType, seen_at: str, enough: bool) -> None:
    assert satisfies(evidence_of(event), seen_at) is enough
    assert satisfies(evidence_of(event), Evidence.parse(seen_at)) is enough


def test_an_unknown_grade_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'looked'.*opened_by_machine"):
        satisfies(Evidence.OPENED, "looked")
