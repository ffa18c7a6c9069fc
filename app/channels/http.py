"""The base of every provider that speaks HTTP.

A provider writes a `Settings` model, `build` (message -> request), `interpret` (2xx reply ->
outcome) and, where the vendor has error codes, `code_of` and `codes`. The rest is here: pooled
keep-alive `requests` sessions, one per thread; fan-out within a batch; deadlines; and the table
that turns what happened into an outcome. `build` makes requests that come before with `ask`.

Whether bytes of a request had begun to leave is known, not guessed from exceptions: the
connection notes it as it writes. The total deadline also holds against a server that drips, for
the thread that waits shuts the socket of a request that is overdue.
"""

import contextlib
import email.utils
import itertools
import math
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson
import requests
from pydantic import BaseModel
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from app.channels.contract import (
    LONGEST_NAME,
    Accepted,
    Ambiguous,
    Blame,
    Message,
    Outcome,
    RateLimited,
    Rejected,
    Retryable,
    Traits,
)
from app.channels.http_session import HttpSettings, current, noting_session
from app.domain.vocabulary import Channel

REPLY_LIMIT: Final = 1_000_000  # bytes of a reply that are read at most
DEFAULT_RETRY_AFTER: Final = 5.0
LONGEST_RETRY_AFTER: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request; `body` is sent as it is."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One reply, read to its end; header names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body; raise `ValueError`."""
        return orjson.loads(self.body)

    def identifier(self, name: str) -> str:
        """The vendor's id of that name; raise as `interpret` for what no receipt could name."""
        found = self.json()[name]
        if not (isinstance(found, str) and found.isprintable() and 0 < len(found) <= LONGEST_NAME):
            raise ValueError(f"{name} is no id")
        return found


class NotSent(Exception):
    """Raised by `build`: no byte of the message has left, and what that means for it."""

    def __init__(self, outcome: Retryable | RateLimited | Rejected) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class HttpProvider(ABC):
    """A provider that sends each message as one HTTP request."""

    traits: ClassVar[Traits]
    Settings: ClassVar[type[BaseModel]]
    codes: ClassVar[Mapping[str, Outcome]] = {}

    def __init__(self, account: str, channel: Channel, settings: HttpSettings) -> None:
        self.account = account
        self.channel = channel
        self._http = settings
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []
        self._threads: ThreadPoolExecutor | None = None

    @abstractmethod
    def build(self, message: Message) -> HttpRequest:
        """Make the request; raise `NotSent`, or `ValueError` or `TypeError` if it never can be."""

    @abstractmethod
    def interpret(self, reply: HttpReply) -> Outcome:
        """Read a 2xx reply. `ValueError`, `TypeError` or `LookupError` make it `Ambiguous`."""

    def code_of(self, _reply: HttpReply, /) -> str | None:
        """Find the vendor's error code, to be looked up in `codes`. May raise as `interpret`."""
        return None

    def refused(self, reply: HttpReply) -> Outcome | None:
        """Read an error reply; None if only its status says what it means. May raise likewise."""
        return self.codes.get(self.code_of(reply) or "")

    def ask(self, request: HttpRequest) -> HttpReply:
        """From within `build`: exchange what must come before the message. Any status is a reply.

        It shares the message's time but is no part of it: what breaks is `NotSent`.
        """
        flight = current.flight
        if not isinstance(flight, _Flight):
            raise RuntimeError(  # noqa: TRY004  # called at a wrong time, with no wrong value
                "nothing is being sent in this thread"
            )
        try:
            return self._exchange(_prepared(request), flight, carries=False)
        except _Unfinished as unfinished:
            raise NotSent(Retryable(unfinished.reason)) from unfinished
        except (requests.RequestException, HTTPError, OSError) as error:
            raise NotSent(_unsent(flight.broken(error))) from error

    def unwelcome(self, reply: HttpReply) -> NotSent:
        """What a reply to `ask` that is of no use means for the message."""
        if 200 <= reply.status < 300:
            return NotSent(Retryable(f"http_{reply.status}_unreadable"))
        return NotSent(_unsent(self._outcome(reply)))

    def send(self, batch: Sequence[Message], deadline: float) -> list[Outcome]:
        """Try each message once, many at a time; one outcome per message, in order."""
        if time.monotonic() >= deadline:
            return [Retryable("http_deadline")] * len(batch)
        flights = [_Flight(deadline, self._http.total_timeout) for _ in batch]
        threads = self._started_threads()
        futures = [
            threads.submit(self._fly, flight, message)
            for flight, message in zip(flights, batch, strict=True)
        ]
        # They start in order, so that they also become overdue in about that order.
        return [_landed(*each) for each in zip(flights, futures, strict=True)]

    def close(self) -> None:
        """Close the kept connections and end the threads."""
        with self._lock:
            threads, self._threads = self._threads, None
            sessions, self._sessions = self._sessions, []
        if threads:
            threads.shutdown(wait=True, cancel_futures=True)
        for session in sessions:
            session.close()

    def _started_threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._http.concurrency, self.account)
            return self._threads

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = noting_session(self._http)
            with self._lock:
                self._sessions.append(session)
        return session

    def _fly(self, flight: "_Flight", message: Message) -> Outcome:
        if not flight.begin():
            return Retryable("http_deadline")
        current.flight = flight
        try:
            prepared = self._built(message)
            return self._outcome(self._exchange(prepared, flight, carries=True))
        except NotSent as verdict:
            return verdict.outcome
        except _Unfinished as unfinished:
            return Ambiguous(unfinished.reason)
        except (requests.RequestException, HTTPError, OSError) as error:
            return flight.broken(error)
        finally:
            current.flight = None

    def _built(self, message: Message) -> requests.PreparedRequest:
        try:
            return _prepared(self.build(message))
        except (ValueError, TypeError) as error:
            raise NotSent(Rejected("http_request_unbuildable", Blame.CONTENT)) from error

    def _exchange(
        self, prepared: requests.PreparedRequest, flight: "_Flight", *, carries: bool
    ) -> HttpReply:
        flight.set_out(carries=carries)
        seconds = flight.left()
        timeout = min(self._http.connect_timeout, seconds), min(self._http.read_timeout, seconds)
        session = self._session()
        with session.send(
            prepared,
            timeout=timeout,
            allow_redirects=False,
            stream=True,
            verify=session.verify,
            proxies=session.proxies,
        ) as response:
            try:
                body = _read(response, flight)
            except (HTTPError, OSError, _Unfinished):
                if 200 <= response.status_code < 300:
                    raise
                body = b""  # the verdict is in the status
            return HttpReply(response.status_code, CaseInsensitiveDict(response.headers), body)

    def _outcome(self, reply: HttpReply) -> Outcome:
        status = reply.status
        try:
            if 200 <= status < 300:
                return self.interpret(reply)
            if status >= 400 and (outcome := self.refused(reply)):
                return outcome
        except (ValueError, TypeError, LookupError):
            if 200 <= status < 300:
                return Ambiguous(f"http_{status}_unreadable")
        if status == 409 and not self.traits.idempotent:
            return Rejected("http_409", Blame.CONTENT)  # there is no key that it could know
        return outcome_of_status(status, reply.headers)


def outcome_of_status(status: int, headers: Mapping[str, str], reason: str = "") -> Outcome:
    """What a status outside 2xx means where the vendor's own codes say nothing."""
    reason = reason or f"http_{status}"
    match status:
        case 429:
            return RateLimited(retry_after(headers) or DEFAULT_RETRY_AFTER, reason)
        case 503 if (seconds := retry_after(headers)) is not None:
            return RateLimited(seconds, reason)
        case 401 | 403 | 407:
            return Rejected(reason, Blame.ACCOUNT)
        case 409:
            return Accepted()  # the same idempotency key was taken before
        case 408 | 425 | 500 | 501 | 503 | 505:
            return Retryable(reason)
        case _ if 400 <= status < 500:
            return Rejected(reason, Blame.CONTENT)
        case _ if 300 <= status < 400:
            return Rejected(reason, Blame.ACCOUNT)  # the address of the API is wrong
        case _:
            return Ambiguous(reason)  # 502, 504 and what proxies invent: it may have gone through


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After (RFC 9110 10.2.3), as seconds from now; None if absent or unreadable."""
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _prepared(request: HttpRequest) -> requests.PreparedRequest:
    return requests.Request(
        request.method,
        request.url,
        data=request.body,
        headers={"Accept-Encoding": "identity", **request.headers},
    ).prepare()


def _unsent(outcome: Outcome) -> Retryable | RateLimited | Rejected:
    """What an outcome means that is not of the message but of a request before it."""
    if isinstance(outcome, Accepted):
        return Retryable("http_409")
    return Retryable(outcome.reason) if isinstance(outcome, Ambiguous) else outcome


class _Unfinished(Exception):
    """A reply that had no end in time or size."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Flight:
    """A message in the air: when it must be over, and whether its bytes have begun to leave."""

    def __init__(self, deadline: float, seconds: float) -> None:
        self.sent = False
        self._carries = False  # the request under way is the message, not one before it
        self._begun = False  # its bytes have begun to leave
        self._over = False
        self._ends = deadline
        self._seconds = seconds
        self._socket: socket.socket | None = None

    def begin(self) -> bool:
        """The time of this message starts now; false if it is over already."""
        now = time.monotonic()
        if self._over or now >= self._ends:
            return False
        self._ends = min(self._ends, now + self._seconds)
        return True

    def set_out(self, *, carries: bool) -> None:
        """A request begins, which carries the message or comes before it."""
        self._carries = carries
        self._begun = False

    def left(self) -> float:
        """Seconds until it is overdue; never quite zero, which would mean no limit."""
        return max(self._ends - time.monotonic(), 0.001)

    def leave(self, sock: socket.socket | None) -> None:
        """Bytes of the request are about to leave through this socket.

        Raises `TimeoutError` if `abort` came first and may have called it unsent.
        """
        self._socket = sock
        self._begun = True
        self.sent = self._carries
        if self._over:
            raise TimeoutError

    def abort(self) -> Outcome:
        """It is overdue: free its thread, and say what is known of it."""
        self._over = True  # before `sent` is read, as `leave` writes it before it reads this
        outcome = Ambiguous("http_deadline") if self.sent else Retryable("http_deadline")
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it may just have ended by itself
                sock.shutdown(socket.SHUT_RDWR)
        return outcome

    def broken(self, error: Exception) -> Outcome:
        """The request ended in an exception."""
        causes = list(itertools.islice(_causes(error), 20))
        timed_out = any(isinstance(cause, TimeoutError | requests.Timeout) for cause in causes)
        late = "http_deadline" if self.left() <= 0.001 else "http_read_timeout"
        on_the_way = late if timed_out else "http_connection_lost"
        if self.sent:
            return Ambiguous(on_the_way)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return Rejected("http_tls_certificate", Blame.ACCOUNT)
        if isinstance(error, ValueError):  # requests: InvalidURL, InvalidHeader, MissingSchema …
            return Rejected("http_request_unbuildable", Blame.CONTENT)
        if self._begun:
            return Retryable(on_the_way)
        return Retryable("http_connect_timeout" if timed_out else "http_connect_failed")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _landed(flight: _Flight, future: Future[Outcome]) -> Outcome:
    try:
        while not future.done():
            try:
                return future.result(flight.left())
            except TimeoutError:
                if flight.left() <= 0.001 and not future.done():
                    return Retryable("http_deadline") if future.cancel() else flight.abort()
        return future.result()
    except CancelledError:  # closed while it waited for its turn
        return Retryable("http_closed")


def _read(response: requests.Response, flight: _Flight) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read1(65536):
        parts.append(part)
        size += len(part)
        if size > REPLY_LIMIT:
            raise _Unfinished("http_reply_too_big")
        if flight.left() <= 0.001:
            raise _Unfinished("http_deadline")
    return b"".join(parts)
