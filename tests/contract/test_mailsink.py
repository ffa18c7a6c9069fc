"""The mail sink as a program: demo, fault tests and benchmarks start it so."""

import gc
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from app.channels.contract import Accepted, Ambiguous, EmailBody, Message, Retryable
from app.channels.email.smtp import SmtpProvider
from app.channels.email.smtp_pool import SmtpSettings
from app.domain.outcome import Blame
from app.domain.vocabulary import Channel
from app.sandbox.mailsink import MailSink

MIME = (
    b"Subject: hello\r\nMessage-ID: <%d@example.com>\r\nx-converge-delivery: %d\r\n\r\n"
    b"Message-ID: not this\r\n"
)


@contextmanager
def _sink(*arguments: str) -> Iterator[int]:
    command = [sys.executable, "-m", "app.sandbox.mailsink", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _send(port: int, count: int) -> list[object]:
    provider = SmtpProvider(
        "relay", Channel.EMAIL, SmtpSettings(host="127.0.0.1", port=port, tls="none")
    )
    messages = [
        Message(n, f"key-{n}", f"c{n}@example.com", "store@example.com", EmailBody(MIME % (n, n)))
        for n in range(count)
    ]
    outcomes = provider.send(messages, time.monotonic() + 30)
    provider.close()
    return list(outcomes)


def test_everything_acknowledged_is_in_the_record(tmp_path: Path) -> None:
    record = tmp_path / "record"
    began = time.time()
    with _sink("--record", str(record), "--chunking") as port:
        assert all(isinstance(outcome, Accepted) for outcome in _send(port, 250))
        lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == 250
    seventh = next(line for line in lines if line["recipients"] == ["c7@example.com"])
    assert seventh["message_id"] == "<7@example.com>"
    assert seventh["mark"] == "7"
    assert seventh["sender"] == "store@example.com"
    assert seventh["bytes"] == len(MIME % (7, 7))
    assert began <= seventh["at"] <= time.time()


def test_faults_are_given_on_the_command_line() -> None:
    with _sink("--refuse", "c3@example.com=451 4.2.1 Away", "--drop-before-ack-every", "4") as port:
        outcomes = _send(port, 8)
    assert outcomes[3] == Retryable("smtp_451_4.2.1", Blame.RECIPIENT)
    assert any(isinstance(outcome, Ambiguous) for outcome in outcomes)


def test_it_ends_well_while_clients_come() -> None:
    """Who was being accepted is closed, too: what stays open is found by the collector."""
    for _ in range(20):
        with ExitStack() as clients:
            with MailSink().running() as sink:
                for _ in range(20):
                    client = clients.enter_context(closing(socket.socket()))
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", sink.port))
            gc.collect()
