"""One SMTP connection after its greeting: pipelined transactions over a non-blocking socket.

Several messages are in the air at once (RFC 2920). With CHUNKING (RFC 3030) whole messages are
pipelined; with DATA the next message's commands travel with the end of the one before. What was
written is counted, so that a connection that breaks says of each message whether the server can
have it: `Ambiguous` once its last byte left us without a reply, `Retryable` before that.
"""

import contextlib
import email
import email.policy
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from app.channels.contract import Accepted, Ambiguous, Blame, Outcome, Rejected, Retryable
from app.channels.email.smtp_replies import Step, queue_id, reason_of, refusal

_READ_BYTES: Final = 65536
_LONGEST_LINE: Final = 65536
_WINDOW_BYTES: Final = 262_144
_BARE_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Job:
    """One message ready for the wire; `index` is its place in the batch. Addresses are bare."""

    index: int
    sender: bytes
    recipient: bytes
    mime: bytes
    eight_bit: bool
    needs_utf8: bool


class _Transaction:
    __slots__ = ("commit_at", "job", "refused")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.refused: Outcome | None = None
        self.commit_at: int | None = None  # with so many bytes written the server may have it


class Session:
    """An open, greeted SMTP connection. Used by one thread at a time.

    `verdicts` collects `(job, outcome)` pairs for the owner to take.
    """

    def __init__(
        self,
        sock: socket.socket,
        features: Mapping[str, str],
        *,
        messages: int = 1_000_000,
        chunking: bool = True,
        depth: int = 8,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.verdicts: list[tuple[Job, Outcome]] = []
        self.alive = True
        self.messages_left = messages  # after which the connection has had its share
        self.progress_at = time.monotonic()
        self.blocked = False  # the kernel's buffer is full: wait until writable
        self.probing = False
        self.ended: Outcome | None = None  # why it ended, for those that never got their turn
        self._pipelining = "pipelining" in features
        self._chunking = chunking and self._pipelining and "chunking" in features
        self._depth = depth
        self._eight_bit = "8bitmime" in features
        self._utf8 = "smtputf8" in features
        self._size = features.get("size")
        self._open: deque[_Transaction] = deque()
        self._expected: deque[tuple[Step, _Transaction | None]] = deque()
        self._out: list[bytes] = []
        self._unsent = memoryview(b"")
        self._queued = self._written = 0
        self._tail = b""
        self._dirty = False  # the server may hold an open transaction

    # -- what goes out ---------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no reply is owed to us."""
        return not self._expected

    def wants(self) -> bool:
        """Whether another job may be given now."""
        if not self.alive or self.probing or self.messages_left <= 0 or self.blocked:
            return False
        if self._chunking:
            return len(self._open) < self._depth and self._queued - self._written < _WINDOW_BYTES
        # With DATA, one message may wait for its 354 behind one whose body is on its way.
        last = self._open[-1] if self._open else None
        return last is None or (self._pipelining and last.commit_at is not None)

    def probe(self) -> None:
        """Make sure that a connection that lay idle is alive before it is given a message."""
        self.probing = True
        self._queue(b"RSET\r\n", Step.RSET, None)

    def give(self, job: Job) -> None:
        """Start a transaction for a job; `flush` sends it."""
        unfit = self._unfit(job)
        if unfit:
            self.verdicts.append((job, Rejected(*unfit)))
            return
        if job.eight_bit and not self._eight_bit:
            job = replace(job, mime=seven_bit(job.mime), eight_bit=False)
        self.messages_left -= 1
        transaction = _Transaction(job)
        if self._dirty or (self._chunking and self._open):
            # The message before may fail and leave its transaction open (RFC 3030 2).
            self._queue(b"RSET\r\n", Step.RSET, None)
            self._dirty = False
        self._open.append(transaction)
        self._queue(self._mail(job), Step.MAIL, transaction)
        if self._pipelining:
            self._queue(b"RCPT TO:<%b>\r\n" % job.recipient, Step.RCPT, transaction)
            self._offer_body(transaction)

    def flush(self) -> None:
        """Write as much as the kernel takes."""
        if not self.alive:
            return
        if self._out:
            self._unsent = memoryview(b"".join([self._unsent, *self._out]))
            self._out.clear()
        try:
            while self._unsent:
                count = self.sock.send(self._unsent)
                self._written += count
                self._unsent = self._unsent[count:]
                self.progress_at = time.monotonic()
            self.blocked = False
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self.blocked = True
        except OSError:
            self._drain_after_break()

    def _mail(self, job: Job) -> bytes:
        size = b" SIZE=%d" % len(job.mime) if self._size is not None else b""
        body = b" BODY=8BITMIME" if job.eight_bit else b""
        utf8 = b" SMTPUTF8" if job.needs_utf8 else b""
        return b"MAIL FROM:<%b>%b%b%b\r\n" % (job.sender, size, body, utf8)

    def _offer_body(self, transaction: _Transaction) -> None:
        if not self._chunking:
            self._queue(b"DATA\r\n", Step.DATA, transaction)
            return
        mime = whole_lines(transaction.job.mime)
        self._queue(b"BDAT %d LAST\r\n" % len(mime), Step.BODY, transaction)
        self._queue(mime)
        transaction.commit_at = self._queued

    def _queue(
        self, data: bytes, step: Step | None = None, transaction: _Transaction | None = None
    ) -> None:
        self._out.append(data)
        self._queued += len(data)
        if step is not None:
            self._expected.append((step, transaction))

    def _unfit(self, job: Job) -> tuple[str, Blame] | None:
        if job.needs_utf8 and not self._utf8:
            return "smtp_smtputf8_not_offered", Blame.RECIPIENT
        if self._size and self._size.isdigit() and 0 < int(self._size) < len(job.mime):
            return "smtp_too_big", Blame.CONTENT  # RFC 1870 6.1: do not even try
        return None

    # -- what comes in ---------------------------------------------------------------------------

    def receive(self) -> None:
        """Read what has arrived and act upon it."""
        while self.alive:
            try:
                data = self.sock.recv(_READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self.lose("smtp_connection_reset")
                return
            if not data:
                self.lose("smtp_connection_closed")
                return
            self._feed(data)
            if not isinstance(self.sock, ssl.SSLSocket):
                return  # the selector tells of more; only TLS keeps decrypted bytes back

    def lose(self, reason: str) -> None:
        """The connection is no more, or has no more time: settle what is open, by what was sent."""
        self._end(Retryable(reason), Ambiguous(reason))

    def _end(self, unsent: Outcome, committed: Outcome) -> None:
        self.alive = False
        self.ended = unsent
        for transaction in self._open:
            sent = transaction.commit_at is not None and self._written >= transaction.commit_at
            outcome = transaction.refused or (committed if sent else unsent)
            self.verdicts.append((transaction.job, outcome))
        self._open.clear()
        self._expected.clear()

    def _drain_after_break(self) -> None:
        """Writing failed: a 421 or the replies to what did arrive may still lie in the kernel."""
        while self.alive:
            try:
                data = self.sock.recv(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                self.lose("smtp_connection_reset")
                return
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self.progress_at = time.monotonic()
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        for line in lines:
            if not line[:3].isdigit() or line[3:4] not in b"- \r":
                self.lose("smtp_unreadable_reply")
                return
            if line[3:4] != b"-":
                self._answer(int(line[:3]), line[4:])
                if not self.alive:
                    return
        if len(self._tail) > _LONGEST_LINE:
            self.lose("smtp_unreadable_reply")

    def _answer(self, code: int, text: bytes) -> None:
        if code == 421:
            # RFC 5321 3.8: it closes the channel and has processed nothing beyond this reply.
            closing = Retryable(reason_of(code, text))
            self._end(closing, closing)
            return
        if not self._expected or not 200 <= code < 600:
            self.lose("smtp_unreadable_reply")
            return
        step, transaction = self._expected.popleft()
        if transaction is None:
            self.probing = False
        elif step is Step.BODY:
            self._answer_body(transaction, code, text)
        elif step is Step.DATA:
            self._answer_data(transaction, code, text)
        else:
            self._answer_envelope(step, transaction, code, text)

    def _answer_envelope(
        self, step: Step, transaction: _Transaction, code: int, text: bytes
    ) -> None:
        if not 200 <= code < 300 and transaction.refused is None:
            transaction.refused = refusal(step, code, text)
        if self._pipelining:
            return
        if transaction.refused:
            self._dirty = True
            self._finish(transaction, transaction.refused)
        elif step is Step.MAIL:
            self._queue(b"RCPT TO:<%b>\r\n" % transaction.job.recipient, Step.RCPT, transaction)
        else:
            self._offer_body(transaction)

    def _answer_data(self, transaction: _Transaction, code: int, text: bytes) -> None:
        if code == 354:
            # RFC 2920 3.1: a server may say 354 though it refused the recipient; end it empty.
            if not transaction.refused:
                self._queue(stuffed(transaction.job.mime))
            self._queue(b".\r\n", Step.BODY, transaction)
            transaction.commit_at = self._queued
            return
        self._dirty = True
        self._finish(transaction, transaction.refused or refusal(Step.DATA, code, text))

    def _answer_body(self, transaction: _Transaction, code: int, text: bytes) -> None:
        outcome = transaction.refused
        if outcome is None and 200 <= code < 300:
            outcome = Accepted(queue_id(text))
        elif outcome is None and code < 400:
            outcome = Ambiguous(f"smtp_unexpected_{code}")
        elif self._chunking:
            self._dirty = True
        self._finish(transaction, outcome or refusal(Step.BODY, code, text))

    def _finish(self, transaction: _Transaction, outcome: Outcome) -> None:
        self._open.remove(transaction)  # the first one, but for a contradictory server
        self.verdicts.append((transaction.job, outcome))

    # -- its end ---------------------------------------------------------------------------------

    def usable(self) -> bool:
        """Whether nothing has come since it was last used: neither a 421 nor the end."""
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Say goodbye if that costs nothing, and close."""
        if self.alive and self.idle:
            with contextlib.suppress(OSError):
                self.sock.send(b"QUIT\r\n")
        self.alive = False
        self.sock.close()


def seven_bit(mime: bytes) -> bytes:
    """Encode every 8bit part anew, as RFC 6152 3 has it for servers without 8BITMIME."""
    policy = email.policy.SMTP.clone(cte_type="7bit")
    return email.message_from_bytes(mime, policy=policy).as_bytes()


def whole_lines(mime: bytes) -> bytes:
    """Make every line end CRLF and the last line whole; RFC 5321 2.3.8 allows nothing else."""
    ends = mime.count(b"\r\n")
    if mime.count(b"\n") != ends or mime.count(b"\r") != ends:
        mime = _BARE_LINE_END.sub(b"\r\n", mime)
    return mime if mime.endswith(b"\r\n") else mime + b"\r\n"


def stuffed(mime: bytes) -> bytes:
    """Double each leading dot (RFC 5321 4.5.2)."""
    lines = whole_lines(mime)
    if b"\n." in lines:
        lines = lines.replace(b"\n.", b"\n..")
    return b"." + lines if lines.startswith(b".") else lines
