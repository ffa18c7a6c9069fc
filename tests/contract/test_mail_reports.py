"""Bounces and complaints as mail servers write them; and what only looks like them."""

import base64
import hashlib
import hmac
import quopri
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.contract import BadSignature, HookRequest, Receipt, UnreadableHook
from app.channels.email.mail_reports import FIRST_BYTES, read_report
from app.channels.registry import build_accounts
from app.domain.tokens import Links, Purpose, Signer
from app.domain.vocabulary import EventType

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRACE = Links("https://converge.example", Signer([b"a secret of the tests alone"]), NOW).trace(4711)
BOUNCED, FAILED = EventType.BOUNCED, EventType.FAILED


RECIPIENTS = "Original-Recipient: rfc822;ada@Example.COM\nFinal-Recipient: rfc822; a@b.example\n"


def returned(trace: str = TRACE) -> str:
    """The headers of the mail that came back."""
    return (
        "From: Demo Store <store@shop.example>\nTo: ada@example.com\nSubject: Order 991\n"
        f"Message-ID: <{trace}@shop.example>\nX-Converge-Delivery: {trace}\n"
    )


def dsn(
    status: str = "5.1.1",
    action: str = "failed",
    diagnostic: str = "smtp; 550 5.1.1 <ada@example.com>: no such person here",
    headers: str = "",
    original: str | None = None,
    recipients: str = RECIPIENTS,
) -> bytes:
    original = returned() if original is None else original
    return (
        "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.net (Mail Delivery System)\n"
        "To: store@shop.example\nSubject: Undelivered Mail\nMessage-ID: <x@mx.example.net>\n"
        f"{headers}Auto-Submitted: auto-replied\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status;\n boundary="b1"\n\n'
        "This is MIME.\n--b1\nContent-Type: text/plain; charset=us-ascii\n\nIt did not arrive.\n"
        "--b1\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example.net\nArrival-Date: Sun, 1 Mar 2026 11:00:00 +0000\n\n"
        f"{recipients}Action: {action}\nStatus: {status}\n"
        f"Remote-MTA: dns; mail.example.com\nDiagnostic-Code: {diagnostic}\n\n"
        f"--b1\nContent-Type: text/rfc822-headers\n\n{original}\n--b1--\n"
    ).encode()


def told(raw: bytes) -> tuple[EventType, str] | None:
    """The event and the reason of a mail's only fact."""
    found = read_report(raw, NOW)
    assert len(found) <= 1
    return (found[0].event, found[0].detail["reason"]) if found else None


def test_a_bounce_names_its_message_and_its_address() -> None:
    reason = "dsn_5.1.1"
    assert read_report(dsn(), NOW) == [
        Receipt(
            f"{TRACE}:ada@example.com:bounced:{reason}",
            "",
            BOUNCED,
            NOW,
            {"reason": reason},
            trace=TRACE,
            recipient="ada@example.com",
        )
    ]
    # The same said again in another envelope is the same fact.
    [again] = read_report(dsn(headers="Received: from elsewhere\n"), NOW)
    assert again.external_id == f"{TRACE}:ada@example.com:bounced:{reason}"


@pytest.mark.parametrize(
    ("status", "action", "diagnostic", "expected"),
    [
        ("5.1.1", "failed", "smtp; 550 5.1.1 user unknown", (BOUNCED, "dsn_5.1.1")),
        ("5.1.10", "failed", "smtp; 550 5.1.10 recipient not found", (BOUNCED, "dsn_5.1.10")),
        ("5.2.1", "failed", "smtp; 550 5.2.1 mailbox disabled", (BOUNCED, "dsn_5.2.1")),
        ("5.4.4", "failed", "X-Postfix; Host not found", (BOUNCED, "dsn_5.4.4")),
        ("5.0.0", "failed", "smtp; 550 5.1.1 user unknown", (BOUNCED, "dsn_5.1.1")),
        ("5.0.0", "failed", "smtp; 554 rejected", (BOUNCED, "dsn_5.0.0")),
        ("5.7.1", "failed", "smtp; 550 5.7.1 No such user here", (BOUNCED, "dsn_5.7.1")),
        ("5.7.17", "failed", "smtp; mailbox owner has changed", (BOUNCED, "dsn_5.7.17")),
        # About the message, the way, or the moment: the address stays.
        ("5.2.2", "failed", "smtp; 552 5.2.2 mailbox full", (FAILED, "dsn_5.2.2")),
        ("5.1.1", "failed", "smtp; 550 5.1.1 over quota", (FAILED, "dsn_5.1.1")),
        ("4.2.2", "failed", "smtp; 452 4.2.2 mailbox full", (FAILED, "dsn_4.2.2")),
        ("4.4.7", "failed", "smtp; delivery time expired", (FAILED, "dsn_4.4.7")),
        ("5.4.7", "failed", "smtp; delivery time expired", (FAILED, "dsn_5.4.7")),
        ("4.1.1", "failed", "smtp; 450 4.1.1 user unknown", (FAILED, "dsn_4.1.1")),
        ("5.7.1", "failed", "smtp; 550 5.7.1 looks like spam", (FAILED, "dsn_5.7.1")),
        ("5.7.26", "failed", "smtp; 550 5.7.26 no DMARC", (FAILED, "dsn_5.7.26")),
        ("5.3.4", "failed", "smtp; 552 5.3.4 too big", (FAILED, "dsn_5.3.4")),
        ("5.6.3", "failed", "smtp; cannot convert", (FAILED, "dsn_5.6.3")),
        ("5.0.0", "failed", "smtp; 554 blocked by policy", (FAILED, "dsn_5.0.0")),
        ("", "failed", "smtp; gone wrong", (FAILED, "dsn_failed")),
        ("5.1.1", "Failed", "", (BOUNCED, "dsn_5.1.1")),
        ("5.1.1", "failed (no such mailbox)", "", (BOUNCED, "dsn_5.1.1")),
        ("5.1.1", "(comment) failed", "", (BOUNCED, "dsn_5.1.1")),
        ("4.4.1", "delayed (will be retried)", "", None),
        # Not the end of it.
        ("4.2.2", "delayed", "smtp; 452 4.2.2 mailbox full", None),
        ("5.1.1", "delayed", "smtp; 550 5.1.1 user unknown", None),
        ("4.4.1", "delayed", "", None),
        ("2.0.0", "relayed", "", None),
        ("2.0.0", "expanded", "", None),
        ("2.0.0", "delivered", "", (EventType.DELIVERED, "dsn_delivered")),
    ],
)
def test_what_a_delivery_status_means(
    status: str, action: str, diagnostic: str, expected: tuple[EventType, str] | None
) -> None:
    assert told(dsn(status, action, diagnostic)) == expected


def global_dsn(encoding: str, recipients: str, original: str) -> bytes:
    """An internationalised bounce (RFC 6533), as Postfix writes it (8bit) or a stricter server."""
    status = (
        "Reporting-MTA: dns; mx.example.net\n\n"
        f"{recipients}Action: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <j\u00f6rg@example.com>: niemand hier\n\n"
    )

    def encoded(text: str) -> str:
        raw = text.encode()
        if encoding == "base64":
            return base64.encodebytes(raw).decode()
        return quopri.encodestring(raw).decode() if encoding == "quoted-printable" else text

    return (
        "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.net\nTo: store@shop.example\n"
        "Subject: Undelivered\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\n\n'
        "--b1\nContent-Type: text/plain; charset=utf-8\n\nEs kam nicht an.\n"
        f"--b1\nContent-Type: message/global-delivery-status\n"
        f"Content-Transfer-Encoding: {encoding}\n\n{encoded(status)}\n"
        f"--b1\nContent-Type: message/global-headers\n"
        f"Content-Transfer-Encoding: {encoding}\n\n{encoded(original)}\n--b1--\n"
    ).encode()


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    "recipients",
    [
        "Original-Recipient: utf-8;j\\x{F6}rg@Example.COM\nFinal-Recipient: utf-8; a@b.example\n",
        "Final-Recipient: utf-8; j\u00f6rg@example.com\n",
    ],
)
def test_an_internationalised_bounce_is_read_as_well(encoding: str, recipients: str) -> None:
    [receipt] = read_report(global_dsn(encoding, recipients, returned()), NOW)
    assert (receipt.event, receipt.detail) == (BOUNCED, {"reason": "dsn_5.1.1"})
    assert (receipt.trace, receipt.recipient) == (TRACE, "j\u00f6rg@example.com")


@pytest.mark.parametrize(
    ("raw", "trace"),
    [
        (dsn(), TRACE),
        (dsn(original=f"> Message-ID: <{TRACE}@shop.example>\n"), TRACE),
        (dsn(original="", headers=f"Delivered-To: bounces+{TRACE}@shop.example\n"), TRACE),
        (dsn(original="", headers=f"X-Original-Message-ID: <{TRACE}@shop.example>\n"), TRACE),
        (
            dsn(
                original=f"Message-ID: <{TRACE.lower()}@shop.example>\n",
                headers=f"Delivered-To: bounces+{TRACE}@shop.example\n",
            ),
            TRACE,
        ),
        (dsn(original="", headers=f"In-Reply-To: <{TRACE}@shop.example>\n"), TRACE),
        (dsn(original="Message-ID: <123e4567-e89b-12d3-a456-426614174000@x.example>\n"), ""),
        (dsn(original=""), ""),
    ],
)
def test_what_a_bounce_is_about_is_found_wherever_it_stands(raw: bytes, trace: str) -> None:
    [receipt] = read_report(raw, NOW)
    assert (receipt.trace, receipt.recipient) == (trace, "ada@example.com")


def test_a_trace_is_one_that_we_make() -> None:
    signer = Signer([b"a secret of the tests alone"])
    for number in (1, 2**40, 2**59):
        trace = signer.sign(Purpose.TRACE, number)
        [receipt] = read_report(dsn(original=returned(trace)), NOW)
        assert receipt.trace == trace


def test_a_bounce_of_several_recipients_tells_of_each() -> None:
    two = (
        "Final-Recipient: rfc822; bob@example.com\nAction: delayed\nStatus: 4.4.1\n\n"
        "Final-Recipient: rfc822; cyd@example.com\n"
    )
    [receipt] = read_report(dsn(recipients=two), NOW)
    assert receipt.recipient == "cyd@example.com"


def prose(subject: str, text: str, headers: str = "", trace: str = TRACE) -> bytes:
    return (
        f"Return-Path: <>\nFrom: Mail Delivery System <Mailer-Daemon@mx.example.net>\n"
        f"Subject: {subject}\nTo: store@shop.example\n{headers}Auto-Submitted: auto-replied\n\n"
        f"{text}\n\n--- Below this line is a copy of the message.\n\n{returned(trace)}\n\nHello\n"
    ).encode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            prose(
                "failure notice",
                "Hi. I could not deliver your message.\n\n<ada@example.com>:\n"
                "192.0.2.1 does not like recipient.\nRemote host said: 550 No such user",
            ),
            (BOUNCED, "dsn_5.0.0"),
        ),
        (
            prose(
                "Mail delivery failed: returning message to sender",
                "A message that you sent could not be delivered:\n  ada@example.com\n"
                "    SMTP error from remote mail server after RCPT TO: 550 5.1.1 Unknown user",
                "X-Failed-Recipients: ada@example.com\n",
            ),
            (BOUNCED, "dsn_5.1.1"),
        ),
        (prose("failure notice", "552 5.2.2 The mailbox is full"), (FAILED, "dsn_5.2.2")),
        (prose("failure notice", "451 4.3.0 gave up after five days"), (FAILED, "dsn_4.3.0")),
        (prose("Undeliverable", "The recipient's mailbox does not exist"), (BOUNCED, "dsn_5.1.1")),
        (prose("Warning: message delayed 4 hours", "450 4.2.0 Greylisted"), None),
        (prose("Mail", "451 4.4.1 No answer. We will keep trying for five days."), None),
    ],
)
def test_a_bounce_in_prose_is_read_by_its_words(
    raw: bytes, expected: tuple[EventType, str] | None
) -> None:
    assert told(raw) == expected


def arf(kind: str = "abuse", fields: str = "", original: str | None = None) -> bytes:
    return (
        "From: <fbl@isp.example>\nTo: abuse@shop.example\nSubject: complaint\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b2"\n\n'
        "--b2\nContent-Type: text/plain\n\nThis is an abuse report.\n"
        "--b2\nContent-Type: message/feedback-report\n\n"
        f"Feedback-Type: {kind}\nUser-Agent: Feedback/1.0\nVersion: 1\n{fields}\n"
        "--b2\nContent-Type: message/rfc822\n\n"
        f"{returned() if original is None else original}\nHello\n--b2--\n"
    ).encode()


def test_a_complaint_is_known_by_its_trace_though_it_names_nobody() -> None:
    [receipt] = read_report(arf(), NOW)
    assert (receipt.event, receipt.trace, receipt.recipient) == (EventType.COMPLAINED, TRACE, "")
    assert receipt.detail == {"reason": "arf_abuse"}
    [receipt] = read_report(
        arf(fields="Original-Rcpt-To: <ada@Example.com>\n", original="Subject: x\n"), NOW
    )
    assert (receipt.trace, receipt.recipient) == ("", "ada@example.com")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("abuse", "arf_abuse"),
        ("Fraud", "arf_fraud"),
        ("opt-out", "arf_opt-out"),
        ("other", "arf_other"),
        ("\x1b[2J", "arf_unknown"),
        ("not-spam", None),
        ("auth-failure", None),
    ],
)
def test_sorts_of_complaints(kind: str, reason: str | None) -> None:
    assert told(arf(kind)) == (reason and (EventType.COMPLAINED, reason))


MAIL = b"From: Ada <ada@example.com>\nTo: store@shop.example\nSubject: Re: Order\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Auto-Submitted: auto-replied\n",
        b"Auto-Submitted: auto-generated (vacation)\n",
        b"X-Autoreply: yes\n",
        b"Precedence: auto_reply\n",
        b"Return-Path: <>\nPrecedence: bulk\n",
    ],
)
def test_what_no_person_wrote_says_nothing(headers: bytes) -> None:
    assert read_report(MAIL + headers + b"\nI am away. 550 5.1.1 user unknown\n", NOW) == []


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "not a mail"),
        (b"\n\nHello", "not a mail"),
        (b"\x00\xff" * 1000, "not a mail"),
        (MAIL + b"Auto-Submitted: no\n\nWhere is it?", "neither a bounce nor a complaint"),
        (
            dsn(original="", recipients="Final-Recipient: rfc822; nobody\n"),
            "a report that names no message of ours and no address",
        ),
        (
            dsn().replace(b"Action", b"X-A").replace(b"Recipient:", b"R:"),
            "a delivery status without recipients",
        ),
        (
            arf().replace(b"message/feedback-report", b"text/plain"),
            "a feedback report without its fields",
        ),
        (prose("failure notice", "Something."), "a bounce that does not say why"),
    ],
)
def test_what_cannot_be_read_says_why(raw: bytes, problem: str) -> None:
    with pytest.raises(UnreadableHook, match=f"^{problem}$"):
        read_report(raw, NOW)


def test_of_a_huge_bounce_the_beginning_is_enough() -> None:
    huge = dsn(original=returned() + "\n" + "x" * 10_000_000)
    assert told(huge) == (BOUNCED, "dsn_5.1.1")
    assert told(huge[:FIRST_BYTES]) == (BOUNCED, "dsn_5.1.1")


def test_of_a_long_bounce_the_part_that_counts_is_found_wherever_it_stands() -> None:
    """Also where the sender is no daemon's, and the mail so far looks like an automatic reply."""
    for line in (b"It did not arrive.\n", b"552 5.2.2 mailbox full\n"):
        long = dsn().replace(b"It did not arrive.\n", line * 100_000)
        assert told(long) == (BOUNCED, "dsn_5.1.1")
        assert told(long.replace(b"MAILER-DAEMON@", b"notices@")) == (BOUNCED, "dsn_5.1.1")


def test_nested_without_end_is_unreadable_and_no_worse() -> None:
    nested = b"".join(
        b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(3000)
    )
    with pytest.raises((UnreadableHook, RecursionError)):
        read_report(MAIL + nested, NOW)


@given(st.data())
def test_a_broken_report_is_read_or_refused(data: st.DataObject) -> None:
    international = [
        global_dsn(one, RECIPIENTS, returned()) for one in ("8bit", "quoted-printable", "base64")
    ]
    whole = data.draw(
        st.sampled_from([dsn(), arf(), prose("failure notice", "550 no such user"), *international])
    )
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    noise = data.draw(st.binary(max_size=40))
    try:
        found = read_report(whole[:start] + noise + whole[end:], NOW)
    except UnreadableHook:
        return
    assert all(one.trace or one.recipient for one in found)


RELAY = {
    "channel": "email",
    "provider": "smtp",
    "host": "127.0.0.1",
    "hook_secret": "a secret of the mail server",
}


def test_the_hook_of_a_mail_account_is_signed() -> None:
    reader = build_accounts({"relay": RELAY}, {})["relay"].reader
    assert reader is not None
    stamp = str(int(NOW.timestamp()))
    key = b"a secret of the mail server"
    v1 = hmac.new(key, stamp.encode() + b"." + dsn(), hashlib.sha256).hexdigest()
    good = HookRequest(dsn(), {"x-converge-signature": f"t={stamp},v1={v1}"}, "", NOW)
    reader.verify(good)
    assert len(reader.read(good)) == 1
    for bad in (
        replace(good, body=dsn() + b" "),
        replace(good, headers={}),
        replace(good, headers={"x-converge-signature": f"t={int(stamp) - 400},v1={v1}"}),
    ):
        with pytest.raises(BadSignature):
            reader.verify(bad)


def test_a_mail_account_without_a_secret_hears_nothing() -> None:
    accounts = build_accounts({"relay": {k: v for k, v in RELAY.items() if k != "hook_secret"}}, {})
    assert accounts["relay"].reader is None
