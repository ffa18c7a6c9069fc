"""Dial SMTP servers through `smtplib` and keep what was dialled.

`smtplib` does the greeting, EHLO, STARTTLS and AUTH, blocking, in a thread of the pool's own; then
its socket becomes a `Session`.
"""

import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, model_validator

from app.channels.contract import Blame, Outcome, Rejected, Retryable
from app.channels.email.smtp_replies import reason_of
from app.channels.email.smtp_session import Session
from app.faults import fitting

_PORTS = {"none": 25, "starttls": 587, "implicit": 465}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Seconds = Annotated[float, Field(gt=0, le=600)]


class SmtpSettings(BaseModel):
    """How to reach one SMTP server. Times are in seconds.

    `max_connections` bounds one `send`; as many threads as send at once may each have so many.
    `depth` bounds the messages in flight on a connection with CHUNKING, and so how many may end
    ambiguous when it breaks. `return_path` is where bounces go, each message's with a token of its
    own behind a plus; left out, they go to the sender. `hook_secret` signs the mails that come back
    (docs/mail-feedback.md); without it the account takes none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    tls_verify: bool = True
    ca_file: FilePath | None = None
    username: str | None = None
    password: SecretStr | None = None
    helo: (
        Annotated[str, fitting(r"[A-Za-z0-9.:\[\]-]+", "the name of a host, or its address in [ ]")]
        | None
    ) = None
    max_connections: int = Field(default=4, ge=1, le=64)
    messages_per_connection: int = Field(default=1000, ge=1)
    depth: int = Field(default=8, ge=1, le=100)
    pipelining: bool = True
    chunking: bool = True
    connect_timeout: Seconds = 5
    read_timeout: Seconds = 30
    # With plus and token its local part has 64 characters at most (RFC 5321 4.5.3.1.1).
    return_path: (
        Annotated[
            str,
            Field(max_length=180),
            fitting(
                r"[A-Za-z0-9._-]{1,27}@[A-Za-z0-9.-]+",
                "an address of up to 27 of A-Z, a-z, 0-9, dot, _ and - before its @",
            ),
        ]
        | None
    ) = None
    hook_secret: SecretStr | None = Field(default=None, min_length=16)

    @model_validator(mode="after")
    def _credentials_are_safe(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: give both or neither")
        if self.username and self.tls == "none" and self.host not in _LOOPBACK:
            raise ValueError('the password would travel in clear: set tls to "starttls"')
        return self


class DialFailed(Exception):
    """No connection; `outcome` is what that means for the messages that wanted it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class SmtpPool:
    """The connections of one account in one process. Safe for threads."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._tls = None if settings.tls == "none" else _tls_context(settings)
        self._lock = threading.Lock()
        self._idle: list[tuple[Session, float]] = []
        self._diallers: ThreadPoolExecutor | None = None
        self._closed = False

    def take(self, wanted: int) -> list[Session]:
        """Take up to `wanted` kept connections; one that lay idle for over a second is probed."""
        with self._lock:
            split = max(0, len(self._idle) - wanted)
            kept, self._idle = self._idle[split:], self._idle[:split]
        sessions = []
        now = time.monotonic()
        for session, since in kept:
            if not session.usable():
                session.close()
                continue
            if now - since > 1:
                session.probe()
            sessions.append(session)
        return sessions

    def keep(self, session: Session) -> None:
        """Give a connection back; one that cannot be used again is closed."""
        with self._lock:
            if not self._closed and session.alive and session.idle and session.messages_left > 0:
                self._idle.append((session, time.monotonic()))
                return
        session.close()

    def dial(self) -> Future[Session]:
        """Open another connection; the future gives a `Session` or raises `DialFailed`."""
        with self._lock:
            if self._diallers is None:
                self._diallers = ThreadPoolExecutor(16, "smtp-dial")
            return self._diallers.submit(self._dial)

    def abandon(self, dial: Future[Session]) -> None:
        """Nobody waits for this dial any more: keep what comes of it for the next batch."""
        if not dial.cancel():
            dial.add_done_callback(self._keep_dialled)

    def close(self) -> None:
        """Close every connection, also those still being dialled."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            diallers = self._diallers
        for session, _ in idle:
            session.close()
        if diallers:
            diallers.shutdown(wait=False, cancel_futures=True)

    def _keep_dialled(self, dial: Future[Session]) -> None:
        if not dial.cancelled() and dial.exception() is None:
            self.keep(dial.result())

    def _dial(self) -> Session:
        settings = self._settings
        try:
            client = _greet(settings, self._tls)
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            raise DialFailed(_dial_outcome(error)) from error
        sock, client.sock = client.sock, None
        if client.file:
            client.file.close()
            client.file = None
        if not isinstance(sock, socket.socket):
            raise DialFailed(Retryable("smtp_connection_closed"))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        features = {name.lower(): value for name, value in client.esmtp_features.items()}
        if not settings.pipelining:
            features.pop("pipelining", None)
        return Session(
            sock,
            features,
            messages=settings.messages_per_connection,
            chunking=settings.chunking,
            depth=settings.depth,
        )


def _greet(settings: SmtpSettings, tls: ssl.SSLContext | None) -> smtplib.SMTP:
    kind: Callable[..., smtplib.SMTP] = smtplib.SMTP
    port = settings.port or _PORTS[settings.tls]
    helo = settings.helo or socket.gethostname()
    if settings.tls == "implicit":
        kind = partial(smtplib.SMTP_SSL, context=tls)
    client = kind(settings.host, port, helo, timeout=settings.connect_timeout)
    try:
        client.ehlo_or_helo_if_needed()
        if settings.tls == "starttls":
            client.starttls(context=tls)
            client.ehlo_or_helo_if_needed()
        if settings.username and settings.password:
            client.login(settings.username, settings.password.get_secret_value())
    except BaseException:
        client.close()
        raise
    return client


def _tls_context(settings: SmtpSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


# First match wins; smtplib's errors are OSErrors too, and so come first.
_DIAL_OUTCOMES: Final[tuple[tuple[type[Exception], Outcome], ...]] = (
    (ssl.SSLCertVerificationError, Rejected("smtp_tls_certificate", Blame.ACCOUNT)),
    (ssl.SSLError, Retryable("smtp_tls_failed")),
    (smtplib.SMTPNotSupportedError, Rejected("smtp_tls_or_auth_not_offered", Blame.ACCOUNT)),
    (smtplib.SMTPServerDisconnected, Retryable("smtp_connection_closed")),
    (smtplib.SMTPException, Rejected("smtp_no_usable_auth", Blame.ACCOUNT)),
    (UnicodeError, Rejected("smtp_credentials_not_ascii", Blame.ACCOUNT)),
    (TimeoutError, Retryable("smtp_connect_timeout")),
    (ConnectionRefusedError, Retryable("smtp_connect_refused")),
    (socket.gaierror, Retryable("smtp_host_unknown")),
)


def _dial_outcome(error: Exception) -> Outcome:
    """Nothing of any message was sent, so all is retryable, save what no retry will cure."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        reason = reason_of(error.smtp_code, text if isinstance(text, bytes) else text.encode())
        permanent = 500 <= error.smtp_code < 600
        return Rejected(reason, Blame.ACCOUNT) if permanent else Retryable(reason)
    return next(
        (outcome for kind, outcome in _DIAL_OUTCOMES if isinstance(error, kind)),
        Retryable("smtp_connect_failed"),
    )
