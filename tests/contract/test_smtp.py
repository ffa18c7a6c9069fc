"""SMTP beyond the common contract, against the mail sink."""

import asyncio
import email
import email.policy
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.channels.contract import (
    Accepted,
    Ambiguous,
    Blame,
    EmailBody,
    Message,
    Outcome,
    Rejected,
    Retryable,
)
from app.channels.email.smtp import SmtpProvider
from app.channels.email.smtp_pool import SmtpSettings
from app.domain.vocabulary import Channel
from app.sandbox.mailsink import Faults, Features, MailSink

HERE = Path(__file__).parent
CA_FILE = HERE / "loopback-ca.pem"
MIME = b"Subject: hello\r\nMessage-ID: <%d@example.com>\r\n\r\nHello.\r\n"

WAYS = {
    "one by one": Features(pipelining=False),
    "pipelined": Features(),
    "chunked": Features(chunking=True),
}
every_way = pytest.mark.parametrize("way", WAYS)


def _features(way: str, **more: object) -> Features:
    known = WAYS[way]
    return Features(pipelining=known.pipelining, chunking=known.chunking, **more)  # type: ignore[arg-type]


@contextmanager
def _relay(
    features: Features | None = None, faults: Faults | None = None, **own: object
) -> Iterator[tuple[MailSink, SmtpProvider]]:
    with MailSink(features, faults).running() as sink:
        base = {"host": "127.0.0.1", "port": sink.port, "tls": "none", "helo": "client.example"}
        provider = SmtpProvider(
            "relay", Channel.EMAIL, SmtpSettings.model_validate({**base, **own})
        )
        try:
            yield sink, provider
        finally:
            provider.close()


def _message(number: int, recipient: str = "", mime: bytes | None = None, **body: bool) -> Message:
    return Message(
        delivery_id=number,
        idempotency_key=f"key-{number}",
        recipient=recipient or f"c{number}@example.com",
        sender=f"store+{number}@example.com",
        body=EmailBody(mime if mime is not None else MIME % number, **body),
    )


def _send(provider: SmtpProvider, messages: list[Message], seconds: float = 30) -> list[Outcome]:
    return provider.send(messages, time.monotonic() + seconds)


def _tls_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "loopback.pem")
    return context


# -- what arrives is what was sent ---------------------------------------------------------------


@every_way
def test_every_message_arrives_whole_once_and_in_its_own_envelope(way: str) -> None:
    with _relay(_features(way)) as (sink, provider):
        outcomes = _send(provider, [_message(n) for n in range(300)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert len({outcome.ref for outcome in outcomes}) == 300  # type: ignore[union-attr]
    got = sorted((e.recipients, e.sender, e.mime) for e in sink.messages)
    want = ((f"c{n}@example.com",) for n in range(300))
    assert got == sorted((to, f"store+{n}@example.com", MIME % n) for n, to in enumerate(want))


_LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b".x", b"x.", b"QUIT", b"\xc3\xa9", b"x" * 998]), max_size=12
)


@pytest.fixture(scope="module", params=WAYS)
def lasting_relay(request: pytest.FixtureRequest) -> Iterator[tuple[MailSink, SmtpProvider]]:
    with _relay(_features(request.param)) as both:
        yield both


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bodies=st.lists(_LINES, min_size=1, max_size=5))
def test_dots_survive(
    lasting_relay: tuple[MailSink, SmtpProvider], bodies: list[list[bytes]]
) -> None:
    sink, provider = lasting_relay
    sink.messages.clear()
    mimes = [b"".join(line + b"\r\n" for line in lines) or b"\r\n" for lines in bodies]
    messages = [_message(n, mime=mime, eight_bit=True) for n, mime in enumerate(mimes)]
    outcomes = _send(provider, messages)
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    assert sorted(envelope.mime for envelope in sink.messages) == sorted(mimes)


@every_way
@pytest.mark.parametrize("end", [b"\n.\nMAIL FROM:<x@example.com>\n", b"\r.\r", b"\n.\r\n", b""])
def test_bare_line_ends_cannot_smuggle_a_second_message(way: str, end: bytes) -> None:
    with _relay(_features(way)) as (sink, provider):
        outcomes = _send(provider, [_message(1, mime=b"Subject: x\r\n\r\nHello" + end)])
    assert isinstance(outcomes[0], Accepted)
    [envelope] = sink.messages
    assert envelope.mime.endswith(b"\r\n")
    assert envelope.mime.count(b"\n") == envelope.mime.count(b"\r\n") == envelope.mime.count(b"\r")


@every_way
def test_a_big_message_passes_beside_small_ones(way: str) -> None:
    big = b"Subject: big\r\n\r\n" + (b"y" * 70 + b"\r\n") * 60_000
    with _relay(_features(way), max_connections=1) as (sink, provider):
        outcomes = _send(provider, [_message(1), _message(2, mime=big), _message(3)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
    assert sorted(len(e.mime) for e in sink.messages)[-1] == len(big)


def test_the_commands_go_in_one_write_and_chunks_need_no_data() -> None:
    with _relay(Features(chunking=True), max_connections=1) as (sink, provider):
        sink.state.commands = []
        _send(provider, [_message(1), _message(2)])
        assert "DATA" not in sink.state.commands
        assert sink.state.commands.count("BDAT") == 2


# -- what a server offers ------------------------------------------------------------------------


def test_a_server_without_8bitmime_gets_the_same_text_in_seven_bits() -> None:
    body = (
        "From: a@shop.example\r\nTo: b@example.com\r\nSubject: Order\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "Grüße, 5 €\r\n"
    ).encode()
    with _relay(Features(eight_bit=False)) as (sink, provider):
        outcomes = _send(provider, [_message(1, mime=body, eight_bit=True), _message(2)])
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted]
    [arrived] = [one.mime for one in sink.messages if b"Order" in one.mime]
    assert arrived.isascii()
    parsed = email.message_from_bytes(arrived, policy=email.policy.SMTP)
    assert parsed.get_content().splitlines() == ["Grüße, 5 €"]
    assert parsed["Subject"] == "Order"


def test_what_exceeds_size_is_not_even_tried() -> None:
    with _relay(Features(size=1000)) as (sink, provider):
        outcomes = _send(provider, [_message(1, mime=b"x" * 2000), _message(2)])
        assert outcomes[0] == Rejected("smtp_too_big", Blame.CONTENT)
        assert isinstance(outcomes[1], Accepted)
        assert sink.state.taken == 1


@pytest.mark.parametrize(
    ("recipient", "utf8", "arrives_as"),
    [
        ("ada@bücher.example", False, "ada@xn--bcher-kva.example"),
        ("änne@bücher.example", True, "änne@xn--bcher-kva.example"),
        ("änne@example.com", False, None),
    ],
)
def test_addresses_beyond_ascii(recipient: str, utf8: bool, arrives_as: str | None) -> None:
    with _relay(Features(utf8=utf8)) as (sink, provider):
        [outcome] = _send(provider, [_message(1, recipient)])
    if arrives_as:
        assert isinstance(outcome, Accepted)
        assert sink.messages[0].recipients == (arrives_as,)
    else:
        assert outcome == Rejected("smtp_smtputf8_not_offered", Blame.RECIPIENT)


# -- TLS and AUTH --------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True])
@every_way
def test_tls_with_login(way: str, implicit: bool) -> None:
    features = _features(
        way, tls=_tls_server(), implicit_tls=implicit, credentials=("user", "right")
    )
    own = {
        "host": "localhost",
        "tls": "implicit" if implicit else "starttls",
        "ca_file": CA_FILE,
        "username": "user",
        "password": "right",
    }
    with _relay(features, **own) as (sink, provider):
        big = b"Subject: big\r\n\r\n" + (b"z" * 70 + b"\r\n") * 20_000
        messages = [_message(n) for n in range(100)] + [_message(100, mime=big)]
        outcomes = _send(provider, messages)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
        assert len(sink.messages) == 101
        outcomes = _send(provider, messages)  # over the kept connections
        assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    with _relay(Features(tls=_tls_server()), tls="starttls") as (sink, provider):
        outcomes = _send(provider, [_message(1)])
    assert outcomes == [Rejected("smtp_tls_certificate", Blame.ACCOUNT)]
    assert sink.messages == []


def test_a_certificate_is_not_checked_on_request() -> None:
    with _relay(Features(tls=_tls_server()), tls="starttls", tls_verify=False) as (_, provider):
        assert isinstance(_send(provider, [_message(1)])[0], Accepted)


def test_without_starttls_on_offer_nothing_goes_in_clear() -> None:
    with _relay(Features(), tls="starttls") as (sink, provider):
        outcomes = _send(provider, [_message(1), _message(2)])
    assert outcomes == [Rejected("smtp_tls_or_auth_not_offered", Blame.ACCOUNT)] * 2
    assert sink.messages == []


def test_a_password_in_clear_over_the_network_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="starttls"):
        SmtpSettings(host="relay.example.com", tls="none", username="u", password="p")  # type: ignore[arg-type]


def test_a_password_is_not_shown() -> None:
    shown = repr(SmtpSettings(host="relay.example.com", username="u", password="hush"))  # type: ignore[arg-type]
    assert "hush" not in shown


# -- connections ---------------------------------------------------------------------------------


def test_connections_are_kept() -> None:
    with _relay(max_connections=2) as (sink, provider):
        for _ in range(5):
            _send(provider, [_message(n) for n in range(20)])
        assert sink.state.connections <= 2


def test_a_batch_is_spread_over_connections_and_a_slow_server_does_not_serialise_it() -> None:
    with _relay(faults=Faults(ack_latency=0.05), max_connections=8) as (sink, provider):
        _send(provider, [_message(n) for n in range(16)])
        assert sink.state.connections == 8


@every_way
def test_a_connection_that_died_in_idleness_is_replaced(way: str) -> None:
    with _relay(_features(way), max_connections=2) as (sink, provider):
        _send(provider, [_message(n) for n in range(10)])
        asyncio.run_coroutine_threadsafe(sink.drop_connections(), sink.loop).result(10)
        outcomes = _send(provider, [_message(n) for n in range(10)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes


@every_way
def test_a_connection_that_hangs_after_idleness_is_found_out_before_it_gets_a_message(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _relay(_features(way), max_connections=1, connect_timeout=2) as (sink, provider):
        _send(provider, [_message(1)])
        _grow_old(provider)
        for connection in sink.state.open:
            connection.waiting = True  # says nothing any more, as behind a firewall that forgot it
        outcomes = _send(provider, [_message(2)])
        assert isinstance(outcomes[0], Accepted)
        assert sink.state.connections == 2


def _grow_old(provider: SmtpProvider) -> None:
    pool = provider._pool
    pool._idle = [(session, since - 3600) for session, since in pool._idle]


def test_a_connection_has_its_share_and_no_more() -> None:
    with _relay(max_connections=1, messages_per_connection=3) as (sink, provider):
        outcomes = _send(provider, [_message(n) for n in range(10)])
        assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes
        assert sink.state.connections == 4


def test_a_server_that_allows_fewer_connections_gets_the_batch_over_those() -> None:
    with _relay(max_connections=4, faults=Faults()) as (sink, provider):
        _send(provider, [_message(1)])
        sink.faults.greeting = "421 4.7.0 Too many connections"
        outcomes = _send(provider, [_message(n) for n in range(40)])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes), outcomes


# -- refusals ------------------------------------------------------------------------------------


@every_way
def test_354_after_a_refused_recipient_sends_no_body(way: str) -> None:
    faults = Faults(refuse={"bad@example.com": "550 5.1.1 No"}, careless_data=True)
    messages = [_message(n, "bad@example.com" if n % 3 == 0 else "") for n in range(12)]
    with _relay(_features(way), faults) as (sink, provider):
        outcomes = _send(provider, messages)
        assert sink.state.stray_bytes == 0
    for number, outcome in enumerate(outcomes):
        if number % 3 == 0:
            assert outcome == Rejected("smtp_550_5.1.1", Blame.RECIPIENT)
        else:
            assert isinstance(outcome, Accepted)
    assert {e.sender for e in sink.messages} == {
        f"store+{n}@example.com" for n in range(12) if n % 3
    }


@every_way
def test_after_a_refused_recipient_the_next_has_its_own_envelope(way: str) -> None:
    faults = Faults(refuse={"bad@example.com": "450 4.2.1 Later"})
    messages = [_message(n, "bad@example.com" if n % 2 else "") for n in range(40)]
    with _relay(_features(way), faults, max_connections=1) as (sink, provider):
        outcomes = _send(provider, messages)
    assert outcomes[1::2] == [Retryable("smtp_450_4.2.1", Blame.RECIPIENT)] * 20
    assert sorted((e.sender, e.recipients[0], e.mime) for e in sink.messages) == sorted(
        (f"store+{n}@example.com", f"c{n}@example.com", MIME % n) for n in range(0, 40, 2)
    )


def test_greylisting_is_for_later_and_no_fault_of_the_account() -> None:
    with _relay(faults=Faults(greylist=True)) as (_, provider):
        assert _send(provider, [_message(1)]) == [Retryable("smtp_450_4.2.0", Blame.RECIPIENT)]
        assert isinstance(_send(provider, [_message(1)])[0], Accepted)


@every_way
def test_421_closes_the_connection_and_the_rest_is_retryable(way: str) -> None:
    with _relay(_features(way), Faults(busy_after=5), max_connections=1) as (sink, provider):
        outcomes = _send(provider, [_message(n) for n in range(20)])
        assert [type(outcome) for outcome in outcomes] == [Accepted] * 5 + [Retryable] * 15
        assert outcomes[5] == Retryable("smtp_421_4.7.0")
        sink.faults.busy_after = 0
        again = _send(provider, [_message(n) for n in range(20)])
    assert all(isinstance(outcome, Accepted) for outcome in again)


@contextmanager
def _breaking_server(last_words: bytes) -> Iterator[int]:
    """Greets, takes envelopes, and breaks the connection early in the body."""

    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client, client.makefile("rb") as stream:
            client.sendall(b"220 breaking.example\r\n")
            while line := stream.readline():
                if line.startswith(b"EHLO"):
                    client.sendall(b"250-breaking.example\r\n250 PIPELINING\r\n")
                elif line.startswith(b"DATA"):
                    client.sendall(b"354 Go on\r\n")
                    stream.read(10)
                    client.sendall(last_words)
                    return
                else:
                    client.sendall(b"250 Ok\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize("last_words", [b"", b"421 4.3.2 Shutting down\r\n"])
def test_a_body_cut_short_is_retryable(last_words: bytes) -> None:
    big = b"Subject: big\r\n\r\n" + (b"y" * 70 + b"\r\n") * 200_000
    with _breaking_server(last_words) as port:
        provider = SmtpProvider(
            "relay", Channel.EMAIL, SmtpSettings(host="127.0.0.1", port=port, tls="none")
        )
        [outcome] = _send(provider, [_message(1, mime=big)])
        provider.close()
    assert isinstance(outcome, Retryable), outcome
    if last_words:
        assert outcome == Retryable("smtp_421_4.3.2")


def test_a_server_that_never_greets_costs_no_more_than_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SmtpSettings(
            host="127.0.0.1", port=silent.getsockname()[1], tls="none", connect_timeout=20
        )
        provider = SmtpProvider("relay", Channel.EMAIL, settings)
        began = time.monotonic()
        outcomes = _send(provider, [_message(1), _message(2)], seconds=0.3)
        assert time.monotonic() - began < 15
    provider.close()
    assert outcomes == [Retryable("smtp_deadline")] * 2


# -- the truth about what was sent ---------------------------------------------------------------


@every_way
@pytest.mark.parametrize("fault", ["drop_before_ack_every", "drop_body_every", "drop_after"])
@pytest.mark.parametrize("every", [1, 2, 7])
def test_an_outcome_is_never_a_lie(way: str, fault: str, every: int) -> None:
    """Accepted is recorded, Retryable is not; only Ambiguous may be either."""
    numbers = iter(range(10_000))
    with _relay(_features(way), Faults(**{fault: every})) as (sink, provider):  # type: ignore[arg-type]
        said: dict[str, Outcome] = {}
        for _ in range(5):
            messages = [_message(next(numbers)) for _ in range(30)]
            for message, outcome in zip(messages, _send(provider, messages), strict=True):
                said[message.recipient] = outcome
        recorded = [envelope.recipients[0] for envelope in sink.messages]
    assert len(recorded) == len(set(recorded))
    for recipient, outcome in said.items():
        if isinstance(outcome, Accepted):
            assert recipient in recorded
        elif isinstance(outcome, Retryable):
            assert recipient not in recorded
        else:
            assert isinstance(outcome, Ambiguous)
    ambiguous = sum(isinstance(outcome, Ambiguous) for outcome in said.values())
    if fault != "drop_after":
        assert ambiguous
    if way == "one by one":  # nothing is in the air but the one
        assert ambiguous <= sink.state.connections


def test_at_the_deadline_what_has_its_body_is_ambiguous_and_the_rest_retryable() -> None:
    with _relay(faults=Faults(ack="none"), max_connections=3) as (sink, provider):
        outcomes = _send(provider, [_message(n) for n in range(10)], seconds=0.5)
    ambiguous = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Ambiguous)]
    assert {f"c{n}@example.com" for n in ambiguous} == {e.recipients[0] for e in sink.messages}
    assert all(isinstance(outcome, Ambiguous | Retryable) for outcome in outcomes)
