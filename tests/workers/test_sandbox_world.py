"""The sandbox as its users meet it: SMTP and HTTP in, people's fetches and signed receipts out."""

import base64
import hashlib
import hmac
import json
import os
import smtplib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
import requests

from app.sandbox.mail import read_mail
from app.sandbox.outside import Home
from app.sandbox.people import BROWSERS, PREFETCHERS, Deed, Habits, Nature, nature_of, plan

SECRET = "a secret of this test"
T = TypeVar("T")


def eventually(look: Callable[[], T], within_s: float = 20.0) -> T:
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.02)
    return found


# --- people: pure ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "nature"),
    [
        ("open@sandbox.example", Nature.OPENS),
        ("Open+7@Sandbox.Example", Nature.OPENS),
        ("@slow:sandbox.example", Nature.SLOW),
        ("bounce@sandbox.example", Nature.BOUNCES),
        ("ignore@sandbox.example", Nature.IGNORES),
        ("+12025550101", Nature.OPENS),
        ("+12025550103", Nature.BOUNCES),
        ("+12025550109", Nature.OWN_MIND),
        ("open@elsewhere.example", Nature.OWN_MIND),
        ("ada@sandbox.example", Nature.OWN_MIND),
        ("@sandbox.example", Nature.OWN_MIND),
    ],
)
def test_addresses_behave_as_they_are_named(address: str, nature: Nature) -> None:
    assert nature_of(address) is nature


@pytest.mark.parametrize(
    ("channel", "rate"), [("email", 0.40), ("sms", 0.90), ("chat", 0.75), ("social", 0.60)]
)
def test_people_read_at_the_rates_of_the_channels(channel: str, rate: float) -> None:
    plans = [plan(Habits(), channel, f"person-{i}@example.com", 1) for i in range(2_000)]
    deeds = Counter(act.deed for acts in plans for act in acts)
    assert deeds[Deed.READ] / len(plans) == pytest.approx(rate, abs=0.03)
    assert 0.25 < deeds[Deed.CLICKED] / deeds[Deed.READ] < 0.45
    if channel == "email":
        assert deeds[Deed.PREFETCHED] / len(plans) == pytest.approx(0.25, abs=0.03)
        assert not deeds[Deed.DELIVERED]
    else:
        assert deeds[Deed.DELIVERED] == len(plans)


def test_the_same_seed_makes_the_same_people_and_another_makes_others() -> None:
    def everybody(seed: int) -> list[object]:
        return [plan(Habits(seed=seed), "email", f"p{i}@example.com", 1) for i in range(50)]

    assert everybody(1) == everybody(1)
    assert everybody(1) != everybody(2)


def test_machines_come_at_once_and_people_after_their_patience() -> None:
    habits = Habits(speed=1_000, patience_s=5)
    for i in range(300):
        for channel in ("email", "sms"):
            acts = plan(habits, channel, f"p{i}@example.com", 1)
            assert [act.at_s for act in acts] == sorted(act.at_s for act in acts)
            for act in acts:
                early = act.deed in {Deed.DELIVERED, Deed.PREFETCHED}
                assert early == (act.at_s < 0.7)
                if act.deed is Deed.CLICKED or (act.deed is Deed.READ and channel == "email"):
                    assert act.at_s >= 5
                    assert act.user_agent in BROWSERS
                if act.deed is Deed.PREFETCHED:
                    assert act.user_agent in PREFETCHERS


def test_when_nobody_decides_nobody_acts() -> None:
    assert plan(Habits(acts=False), "email", "open@sandbox.example", 1) == ()


def test_slow_reads_later_than_anybody() -> None:
    slow = plan(Habits(), "sms", "slow@sandbox.example", 1)
    assert next(act.at_s for act in slow if act.deed is Deed.READ) > 25


def test_only_converge_is_ever_called() -> None:
    home = Home("https://brand.example/x", SECRET, "http://127.0.0.1:9/y/")
    assert home.reach("https://brand.example/x/o/abc") == "http://127.0.0.1:9/y/o/abc"
    for foreign in ("https://brand.example/xo/abc", "https://brand.example.net/x/", "http://a/"):
        assert home.reach(foreign) is None


@pytest.mark.parametrize(
    "mime",
    [
        b"",
        b"\xff\xfe\x00",
        b"Subject: =?utf-8?b?!!!?=\r\nContent-Type: text/html; charset=nonsense\r\n\r\n<p>x",
        b"Content-Type: multipart/alternative; boundary=none\r\n\r\nnothing",
    ],
)
def test_any_bytes_can_be_shown(mime: bytes) -> None:
    assert isinstance(read_mail(mime).text, str)


# --- the running sandbox --------------------------------------------------------------------


@dataclass
class Converge:
    """What the sandbox takes for Converge: it records who asks for what."""

    url: str = ""
    fetched: list[tuple[str, str]] = field(default_factory=list)
    receipts: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refuse_receipts: int = 0

    def on_get(self, path: str, user_agent: str) -> tuple[int, str]:
        self.fetched.append((path, user_agent))
        return (302, self.url + "/trap") if path.startswith("/c/") else (200, "")

    def on_post(self, path: str, signed: str, body: bytes) -> int:
        if self.refuse_receipts > 0:  # receipts come side by side
            self.refuse_receipts -= 1
            return 503
        parts = dict(part.split("=", 1) for part in signed.split(","))
        wanted = hmac.new(SECRET.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256)
        assert abs(time.time() - int(parts["t"])) < 60
        assert parts["v1"] == wanted.hexdigest()
        self.receipts.append((path, json.loads(body)))
        return 204


@pytest.fixture
def converge() -> Iterator[Converge]:
    converge = Converge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, location = converge.on_get(self.path, self.headers.get("User-Agent", ""))
            self.answer(status, location)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signed = self.headers.get("X-Converge-Signature", "")
            self.answer(converge.on_post(self.path, signed, body))

        def answer(self, status: int, location: str = "") -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    converge.url = f"http://127.0.0.1:{server.server_port}"
    yield converge
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Sandbox:
    """A running `python -m app.sandbox`."""

    smtp_port: int
    http_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def post(self, channel: str, secret: str = SECRET, **document: Any) -> requests.Response:
        whole = {
            "id": "1",
            "to": "",
            "from": "Demo Store",
            "service": "sms",
            "text": "",
            "html": None,
        }
        return requests.post(
            f"{self.url}/wire/{channel}",
            json={**whole, "mime": None, "hook": "sandbox-sms", **document},
            headers={"Authorization": f"Bearer {secret}"},
            timeout=10,
        )

    def state(self, to: str | None = None) -> dict[str, Any]:
        params = {"to": to} if to else {}
        state: dict[str, Any] = requests.get(f"{self.url}/state", params=params, timeout=10).json()
        return state

    def deeds(self, to: str) -> list[str]:
        messages = self.state(to)["messages"]
        return list(messages[-1]["deeds"]) if messages else []


@pytest.fixture
def start(converge: Converge) -> Iterator[Callable[..., Sandbox]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Sandbox:
        ports = ["--smtp-port", "0", "--http-port", "0", "--public-url", converge.url]
        pace = ["--speed", "20", "--patience", "0.8"]
        process = subprocess.Popen(
            [sys.executable, "-m", "app.sandbox", *ports, *pace, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CONVERGE_SANDBOX_SECRET": SECRET},
        )
        started.append(process)
        assert process.stdout is not None
        return Sandbox(**json.loads(process.stdout.readline()))

    yield start
    for process in started:
        process.terminate()
        _, _ = process.communicate(timeout=20)
        assert process.returncode == 0, "it stops cleanly"


def mail_to(address: str, url: str) -> bytes:
    mail = EmailMessage()
    mail["Subject"] = "Order 991 is on its way <b>"
    mail["From"] = "Demo Store <hello@store.example>"
    mail["To"] = address
    mail.set_content("Hello **Ada**, order 991 left.")
    mail.add_alternative(
        f'<p>Hello</p><a href="https://elsewhere.example/c/x">no</a>'
        f'<a href="{url}/c/click?a=1&amp;b=2">Track it</a><img src="{url}/o/pixel" alt="">',
        subtype="html",
    )
    return mail.as_bytes()


def by_people(converge: Converge, number: int) -> list[tuple[str, str]] | None:
    """What people have fetched, once it is so much."""
    people = [(path, agent) for path, agent in converge.fetched if agent in BROWSERS]
    return people if len(people) >= number else None


def test_a_mail_is_opened_and_its_link_followed(
    converge: Converge, start: Callable[..., Sandbox]
) -> None:
    sandbox = start()
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port) as smtp:
        to = ["open@sandbox.example", "ignore@sandbox.example"]
        for address in to:
            smtp.sendmail("hello@store.example", address, mail_to(address, converge.url))
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            smtp.sendmail("hello@store.example", "bounce+1@sandbox.example", b"Subject: x\r\n\r\n")
    assert refused.value.recipients["bounce+1@sandbox.example"][0] == 550
    eventually(lambda: "clicked" in sandbox.deeds("open@sandbox.example"))
    people = eventually(lambda: by_people(converge, 2))
    # They leave in order, each in a thread of its own: the second may be here first.
    assert sorted(path for path, _ in people) == ["/c/click?a=1&b=2", "/o/pixel"]
    assert len({agent for _, agent in people}) == 1
    assert "read" not in sandbox.deeds("ignore@sandbox.example")
    assert sandbox.state()["counts"]["email"]["bounced"] == 1
    assert sandbox.state()["counts"]["email"]["received"] == 2


def test_machines_fetch_before_people_can(
    converge: Converge, start: Callable[..., Sandbox]
) -> None:
    prefetched = next(
        f"ignore+{i}@sandbox.example"
        for i in range(100)
        if any(
            act.deed is Deed.PREFETCHED
            for act in plan(Habits(), "email", f"ignore+{i}@sandbox.example", 1)
        )
    )
    sandbox = start()
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port) as smtp:
        smtp.sendmail("hello@store.example", prefetched, mail_to(prefetched, converge.url))
    ((path, agent),) = eventually(lambda: list(converge.fetched))
    assert path == "/o/pixel"
    assert agent in PREFETCHERS


def test_a_text_is_confirmed_read_and_followed_by_signed_receipts(
    converge: Converge, start: Callable[..., Sandbox]
) -> None:
    sandbox = start()
    converge.refuse_receipts = 2
    text = f"Order 991 is on its way: {converge.url}/c/short."
    taken = sandbox.post("sms", to="+12025550101", text=text)
    ref = taken.json()["ref"]
    eventually(lambda: len(converge.receipts) == 2 and converge.fetched)
    assert {path for path, _ in converge.receipts} == {"/hooks/sandbox-sms"}
    by_event = {receipt["event"]: receipt for _, receipt in converge.receipts}
    assert set(by_event) == {"delivered", "read"}
    assert {receipt["ref"] for receipt in by_event.values()} == {ref}
    assert len({receipt["id"] for receipt in by_event.values()}) == 2
    assert [path for path, _ in converge.fetched] == ["/c/short"]


def test_a_repeated_id_is_the_same_message(start: Callable[..., Sandbox]) -> None:
    sandbox = start("--decide", "none")
    first = sandbox.post("chat", id="d-1", to="ada@chat.example", service="matrix", text="hi")
    again = sandbox.post("chat", id="d-1", to="ada@chat.example", service="matrix", text="hi")
    assert first.json() == again.json()
    state = sandbox.state("ada@chat.example")
    (message,) = state["messages"]
    assert message["text"] == "hi"
    assert message["deeds"] == []
    assert state["counts"] == {"chat": {"received": 1}}


def test_mail_over_the_wire_is_a_mail(start: Callable[..., Sandbox]) -> None:
    sandbox = start("--decide", "none")
    mime = base64.b64encode(mail_to("ada@example.com", "http://x")).decode()
    assert sandbox.post("email", to="ada@example.com", mime=mime).status_code == 200
    (message,) = sandbox.state("ada@example.com")["messages"]
    assert message["subject"] == "Order 991 is on its way <b>"
    page = requests.get(sandbox.url, timeout=10).text
    assert "Order 991 is on its way &lt;b&gt;" in page
    assert "on its way <b>" not in page


@pytest.mark.parametrize(
    ("channel", "document", "status", "error"),
    [
        ("sms", {"to": "+12025550103"}, 400, {"error": "unknown_recipient"}),
        ("chat", {"to": "bounce@sandbox.example"}, 400, {"error": "unknown_recipient"}),
        ("sms", {"to": ""}, 400, {"error": "malformed", "field": "to"}),
        ("sms", {"to": 5}, 400, {"error": "malformed", "field": "to"}),
        ("sms", {"to": "a", "id": None}, 400, {"error": "malformed", "field": "id"}),
        ("sms", {"to": "a", "hook": "../x"}, 400, {"error": "malformed", "field": "hook"}),
        ("email", {"to": "a", "mime": "%%"}, 400, {"error": "malformed", "field": "mime"}),
        ("pigeon", {"to": "a"}, 404, {"error": "unknown_channel"}),
        ("sms", {"to": "a", "secret": "wrong"}, 401, {"error": "unauthorized"}),
    ],
)
def test_the_wire_says_what_is_wrong(
    shared: Sandbox, channel: str, document: dict[str, Any], status: int, error: dict[str, str]
) -> None:
    answer = shared.post(channel, **document)
    assert (answer.status_code, answer.json()) == (status, error)


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.sandbox", "--smtp-port", "0", "--http-port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CONVERGE_SANDBOX_SECRET": SECRET},
    )
    assert process.stdout is not None
    yield Sandbox(**json.loads(process.stdout.readline()))
    process.terminate()
    process.communicate(timeout=20)
