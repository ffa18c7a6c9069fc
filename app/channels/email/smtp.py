"""SMTP: the fast path for mail. One `send` drives several pipelined connections from its thread.

What a relay can take is found out by EHLO: PIPELINING, CHUNKING, 8BITMIME, SIZE and SMTPUTF8 are
used when offered. A batch is spread over up to `max_connections`, each given the next message as
soon as it can take one, so a slow connection takes fewer and a slow server does not hold up a
batch message by message.
"""

import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import ClassVar, Final

from pydantic import BaseModel

from app.channels.contract import (
    Blame,
    EmailBody,
    Message,
    Outcome,
    Rejected,
    Retryable,
    Traits,
)
from app.channels.email.mail_hook import MailHook
from app.channels.email.smtp_pool import DialFailed, SmtpPool, SmtpSettings
from app.channels.email.smtp_session import Job, Session
from app.domain.vocabulary import Channel

_ATOM: Final = r'[^\x00-\x20\x7f-\x9f\ud800-\udfff<>()\[\]\\,;:"@]'
_TRACE: Final = re.compile(rb"\r\nX-Converge-Delivery: ([\w-]{36})\r\n")
_HEAD_BYTES: Final = 4_000  # Subject and all: what follows it need not be searched
_ADDRESS = re.compile(rf"({_ATOM}{{1,64}})@({_ATOM}{{1,253}})")


class SmtpProvider:
    """Mail through one SMTP relay."""

    traits: ClassVar[Traits] = Traits(channels=frozenset({Channel.EMAIL}), max_bytes=25_000_000)
    Settings: ClassVar[type[BaseModel]] = SmtpSettings

    def __init__(self, account: str, _channel: Channel, settings: SmtpSettings) -> None:
        self.account = account
        self._settings = settings
        self._pool = SmtpPool(settings)
        secret = settings.hook_secret
        self.reader: MailHook | None = None
        if secret:
            traced = settings.return_path is not None
            self.reader = MailHook(secret.get_secret_value(), tokens_alone=traced)

    def send(self, batch: Sequence[Message], deadline: float) -> list[Outcome]:
        """Try each message once; one outcome per message, in order."""
        outcomes: list[Outcome | None] = [None] * len(batch)
        jobs: deque[Job] = deque()
        for index, message in enumerate(batch):
            job = _job(index, message, self._settings.return_path)
            if isinstance(job, Job):
                jobs.append(job)
            else:
                outcomes[index] = job
        drive = _Drive(self._pool, self._settings, jobs, outcomes, deadline)
        drive.run()
        left = drive.ended or Retryable("smtp_deadline")  # ended is None: there was no time at all
        return [outcome or left for outcome in outcomes]

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()


def _job(index: int, message: Message, return_path: str | None) -> Job | Outcome:
    body = message.body
    if not isinstance(body, EmailBody):
        return Rejected("body_not_email", Blame.CONTENT)
    sender, sender_utf8 = _address(message.sender)
    if sender is None:
        return Rejected("sender_address_invalid", Blame.CONTENT)
    recipient, recipient_utf8 = _address(message.recipient)
    if recipient is None:
        return Rejected("recipient_address_invalid", Blame.RECIPIENT)
    if return_path is not None:
        sender, sender_utf8 = _returning(return_path, body.mime), False
    needs_utf8 = sender_utf8 or recipient_utf8
    return Job(index, sender, recipient, body.mime, body.eight_bit, needs_utf8)


def _returning(return_path: str, mime: bytes) -> bytes:
    """The return path of one message, which names it even where a bounce quotes nothing of it."""
    local, _, domain = return_path.encode().partition(b"@")
    found = _TRACE.search(mime, 0, _HEAD_BYTES)
    return b"%b+%b@%b" % (local, found[1], domain) if found else return_path.encode()


def _address(text: str) -> tuple[bytes | None, bool]:
    """Return the address for the wire, and whether it needs SMTPUTF8; None if it is none.

    A domain goes out in its ASCII form (RFC 5890); a local part has no such form (RFC 6531).
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None, False
    if text.isascii():
        return text.encode(), False
    local, domain = found[1], found[2]
    try:
        return local.encode() + b"@" + domain.encode("idna"), not local.isascii()
    except UnicodeError:
        return None, False


class _Drive:
    """One batch on its way: sessions, dials, and the jobs that no session has taken yet."""

    def __init__(
        self,
        pool: SmtpPool,
        settings: SmtpSettings,
        jobs: deque[Job],
        outcomes: list[Outcome | None],
        deadline: float,
    ) -> None:
        self.ended: Outcome | None = None  # why the jobs that got no turn got none
        self._pool = pool
        self._settings = settings
        self._jobs = jobs
        self._outcomes = outcomes
        self._deadline = deadline
        self._wanted = min(settings.max_connections, len(jobs))
        self._sessions: list[Session] = []
        self._dials: list[Future[Session]] = []
        self._selector = selectors.DefaultSelector()
        self._waker: tuple[socket.socket, socket.socket] | None = None

    def run(self) -> None:
        """Go on until every job is settled, nothing can take the rest, or time is up."""
        try:
            if self._wanted and time.monotonic() < self._deadline:
                for session in self._pool.take(self._wanted):
                    self._join(session)
                while self._step():
                    pass
        finally:
            self._leave()

    def _step(self) -> bool:
        self._welcome_dialled()
        if self._jobs and self.ended is None:
            for _ in range(self._wanted - len(self._sessions) - len(self._dials)):
                self._dial()
        self._hand_out()
        busy = [session for session in self._sessions if not session.idle]
        if not busy and (not self._jobs or not self._dials):
            return bool(self._jobs) and (bool(self._sessions) or self.ended is None)
        now = time.monotonic()
        if now >= self._deadline:
            self.ended = Retryable("smtp_deadline")
            return False
        self._wait(busy, now)
        return True

    # -- sessions --------------------------------------------------------------------------------

    def _join(self, session: Session) -> None:
        self._sessions.append(session)
        self._selector.register(session.sock, selectors.EVENT_READ, session)
        session.flush()

    def _hand_out(self) -> None:
        """Give jobs in turns, so that a short batch is spread over the connections."""
        takers = self._sessions
        while self._jobs and (takers := [session for session in takers if session.wants()]):
            for session in takers[: len(self._jobs)]:
                session.give(self._jobs.popleft())
        for session in self._sessions[:]:
            session.flush()
            self._look_after(session)

    def _look_after(self, session: Session) -> None:
        for job, outcome in session.verdicts:
            self._outcomes[job.index] = outcome
        session.verdicts.clear()
        spent = session.messages_left <= 0 and session.idle
        if session.alive and not spent:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.blocked else 0)
            if self._selector.get_key(session.sock).events != events:
                self._selector.modify(session.sock, events, session)
            return
        # One that died under its probe, or has had its share, is replaced; after any other end
        # we do not dial again for this batch, for that would be a retry.
        if not session.alive and not session.probing:
            self.ended = session.ended
        self._selector.unregister(session.sock)
        self._sessions.remove(session)
        session.close()

    def _wait(self, busy: list[Session], now: float) -> None:
        patience = min(
            [self._deadline, *(session.progress_at + self._patience(session) for session in busy)]
        )
        for key, mask in self._selector.select(max(0.0, patience - now)):
            session: Session | None = key.data
            if session is None:
                self._waker[0].recv(4096) if self._waker else None
            elif mask & selectors.EVENT_READ:
                session.receive()
        now = time.monotonic()
        for session in busy:
            overdue = now >= session.progress_at + self._patience(session)
            if overdue and session.alive and not session.idle:
                session.lose("smtp_read_timeout")

    def _patience(self, session: Session) -> float:
        settings = self._settings
        return settings.connect_timeout if session.probing else settings.read_timeout

    # -- dials -----------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._waker is None:
            self._waker = socket.socketpair()
            self._selector.register(self._waker[0], selectors.EVENT_READ, None)
        dial = self._pool.dial()
        self._dials.append(dial)
        dial.add_done_callback(self._wake)

    def _wake(self, _dial: Future[Session]) -> None:
        try:
            if self._waker:
                self._waker[1].send(b"\0")
        except OSError:
            pass  # the batch is over and gone

    def _welcome_dialled(self) -> None:
        for dial in [dial for dial in self._dials if dial.done()]:
            self._dials.remove(dial)
            try:
                self._join(dial.result())
            except DialFailed as failed:
                self.ended = failed.outcome

    def _leave(self) -> None:
        for dial in self._dials:
            self._pool.abandon(dial)
        for session in self._sessions:
            if not session.idle:
                session.lose("smtp_deadline")
            for job, outcome in session.verdicts:
                self._outcomes[job.index] = outcome
            session.verdicts.clear()
            self._pool.keep(session)
        self._selector.close()
        for end in self._waker or ():
            end.close()
