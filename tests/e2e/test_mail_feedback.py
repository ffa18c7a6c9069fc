"""Bounces and complaints, from a mail server's pipe to what goes out no more."""

import hashlib
import hmac
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api import create
from app.channels.registry import build_accounts
from tests.contract.test_mail_reports import arf, dsn, prose, returned
from tests.e2e.api import Site, intent, serving
from tests.store.test_opting import consents

SECRET = "a secret of the mail server"
DOCS = Path("docs/mail-feedback.md")


@contextmanager
def relaying(site: Site, **settings: str) -> Iterator[Site]:
    """A site whose relay takes what comes back, and has sent Ada a mail."""
    house = site.house
    table = {
        "channel": "email",
        "provider": "smtp",
        "host": "127.0.0.1",
        "port": house.sink.port,
        "tls": "none",
        "hook_secret": SECRET,
        **settings,
    }
    made = build_accounts({"relay": table}, {})
    house.runtime = replace(house.runtime, accounts={**house.runtime.accounts, **made})
    with serving(create(house.runtime)) as url:
        posting = replace(site, url=url)
        mailed(posting)
        yield posting
    made["relay"].provider.close()


@pytest.fixture
def posting(site: Site) -> Iterator[Site]:
    """Bounces come to a return path, with a token each."""
    with relaying(site, return_path="bounces@mail.shop.example") as posting:
        yield posting


@pytest.fixture
def tokenless(site: Site) -> Iterator[Site]:
    """Bounces come to the sender's address."""
    with relaying(site) as posting:
        yield posting


def mailed(site: Site, **more: Any) -> str:
    """Send a mail; return the token that it has."""
    document = intent(**{"policy": "notify", "kind": "conversational", **more})
    assert site.post("/v1/intents", document).status_code == 201
    site.house.run()
    return token(site)


def token(site: Site) -> str:
    return site.house.sink.messages[-1].header("X-Converge-Delivery") or ""


def forged(site: Site) -> str:
    """A token that looks like one of ours."""
    trace = token(site)
    return trace[:-1] + ("A" if trace[-1] != "A" else "B")


def came(site: Site, mail: bytes, *, secret: str = SECRET) -> Any:
    stamp = str(int(time.time()))
    v1 = hmac.new(secret.encode(), stamp.encode() + b"." + mail, hashlib.sha256).hexdigest()
    headers = {"X-Converge-Signature": f"t={stamp},v1={v1}", "Content-Type": "message/rfc822"}
    return site.call("POST", "/hooks/relay", key="", data=mail, headers=headers)


def read(site: Site, mail: bytes) -> dict[str, int]:
    assert came(site, mail).status_code == 204
    return site.read_feedback()


def endpoint(site: Site) -> tuple[str, str | None]:
    [row] = site.house.rows("SELECT state, reason FROM endpoints WHERE channel = 'email'")
    return row.state, row.reason


def problems(site: Site) -> list[str]:
    return [row.problem for row in site.house.rows("SELECT problem FROM inbox WHERE problem <> ''")]


def test_each_message_has_a_return_path_of_its_own(posting: Site) -> None:
    envelope = posting.house.sink.messages[-1]
    assert envelope.sender == f"bounces+{token(posting)}@mail.shop.example"
    verp = f"Delivered-To: {envelope.sender}\n"
    assert read(posting, dsn(original="", headers=verp)) == {"bounced": 1}


def test_a_bounce_marks_the_address_and_the_next_channel_comes(posting: Site) -> None:
    mail = dsn(original=returned(token(posting)))
    assert read(posting, mail) == {"bounced": 1}
    assert read(posting, mail) == {}
    assert endpoint(posting) == ("invalid", "dsn_5.1.1")
    posting.house.work()
    rows = posting.house.rows("SELECT channel, state, reason FROM deliveries ORDER BY step")
    assert [tuple(row) for row in rows] == [
        ("email", "failed", "dsn_5.1.1"),
        ("sms", "planned", None),
    ]


@pytest.mark.parametrize(
    ("mail", "state"),
    [
        (lambda trace: dsn("4.2.2", "failed", "smtp; full", original=returned(trace)), "failed"),
        (lambda trace: prose("failure notice", "552 5.2.2 full", trace=trace), "failed"),
        (lambda trace: dsn("4.2.2", "delayed", "", original=returned(trace)), "sent"),
    ],
)
def test_what_says_nothing_of_the_address_leaves_it(posting: Site, mail: Any, state: str) -> None:
    read(posting, mail(token(posting)))
    assert endpoint(posting) == ("active", None)
    assert posting.house.states() == {state: 1}


def test_a_bounce_without_a_trace_is_believed_of_what_was_sent_lately(tokenless: Site) -> None:
    assert read(tokenless, dsn(original="")) == {"bounced": 1}
    assert endpoint(tokenless) == ("invalid", "dsn_5.1.1")


def test_where_mails_carry_tokens_a_bounce_without_one_is_not_believed(posting: Site) -> None:
    assert read(posting, dsn(original="")) == {"unread": 1}
    assert problems(posting) == ["a report without the token that mails of this account carry"]
    assert endpoint(posting) == ("active", None)


def test_a_token_that_does_not_hold_is_not_made_good_by_an_address(tokenless: Site) -> None:
    assert read(tokenless, dsn(original=returned(forged(tokenless)))) == {"unread": 1}
    [problem] = problems(tokenless)
    assert problem.endswith("never sent from here or with a token that is not ours")
    assert endpoint(tokenless) == ("active", None)


def test_a_bounce_of_what_was_never_sent_is_kept_with_the_reason(tokenless: Site) -> None:
    posting = tokenless
    posting.house.execute("UPDATE deliveries SET handed_over_at = now() - interval '8 days'")
    assert read(posting, dsn(original="")) == {"unread": 1}
    assert problems(posting) == ["about a message that was never sent from here"]
    assert endpoint(posting) == ("active", None)
    [kept] = posting.house.rows("SELECT length(body) > 100 AS whole, due_at FROM inbox")
    assert tuple(kept) == (True, None)


def test_a_complaint_ends_marketing_everywhere_and_talk_on_that_address(posting: Site) -> None:
    posting.house.execute("UPDATE deliveries SET handed_over_at = now() - interval '1 minute'")
    mail = arf(original=returned(token(posting)))
    assert read(posting, mail) == {"complained": 1, "seen": 1}
    assert consents(posting.house) == [
        ("ada", None, None, "marketing", False, "complaint"),
        ("ada", "email", None, "conversational", False, "complaint"),
    ]
    assert read(posting, mail) == {}
    mails = len(posting.house.sink.messages)
    again = intent(policy="email-only", kind="conversational", key="2")
    assert posting.post("/v1/intents", again).status_code == 201
    posting.house.run()
    assert len(posting.house.sink.messages) == mails
    mailed(posting, policy="email-only", kind="transactional", key="3")
    assert len(posting.house.sink.messages) == mails + 1


def test_a_bounce_of_ten_megabytes_is_read_wherever_it_says_why(posting: Site) -> None:
    people = b"It did not arrive.\n"  # before the part that counts
    mail = dsn(original=returned(token(posting))).replace(people, people * 600_000)
    assert len(mail) > 10 * 2**20
    assert read(posting, mail) == {"bounced": 1}
    assert endpoint(posting) == ("invalid", "dsn_5.1.1")


def test_one_that_is_longer_still_is_refused_clearly_and_its_beginning_is_enough(
    posting: Site,
) -> None:
    huge = dsn(original=returned(token(posting)) + "\n" + "x" * 15_000_000)
    problem = posting.problem(came(posting, huge), 413, "body")
    assert "its report and the head of ours are enough" in problem["detail"]
    assert pipe(posting, huge).returncode == 0
    assert posting.read_feedback() == {"bounced": 1}


def pipe(site: Site, mail: bytes, secret: str = SECRET) -> subprocess.CompletedProcess[bytes]:
    """Hand a mail over by the program that the manual has."""
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert found is not None
    return subprocess.run(
        [sys.executable, "-c", found[1], f"{site.url}/hooks/relay"],
        input=mail,
        env={**os.environ, "CONVERGE_HOOK_SECRET": secret},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_pipe_of_the_manual_loses_nothing(posting: Site) -> None:
    mail = dsn(original=returned(token(posting)))
    assert pipe(posting, mail, "another secret of somebody").returncode == 75
    assert pipe(replace(posting, url="http://127.0.0.1:9"), mail).returncode == 75
    assert posting.read_feedback() == {}
    assert pipe(posting, mail).returncode == 0
    assert posting.read_feedback() == {"bounced": 1}


def test_what_is_no_report_is_kept_or_passed_over(posting: Site) -> None:
    person = b"From: ada@example.com\nSubject: Re: Order\n\nWhere is it?\n"
    away = person.replace(b"\n\n", b"\nAuto-Submitted: auto-replied\n\n")
    assert read(posting, away) == {}
    assert read(posting, person) == {"unread": 1}
    assert read(posting, b"\x00\xff" * 1000) == {"unread": 1}
    assert problems(posting) == ["neither a bounce nor a complaint", "not a mail"]
    assert posting.house.rows("SELECT FROM events") == []


def test_what_nobody_signed_is_not_kept(posting: Site) -> None:
    posting.problem(came(posting, dsn(), secret="guess"), 403, None)
    assert posting.house.rows("SELECT FROM inbox") == []
