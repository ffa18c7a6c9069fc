"""The sandbox's way to Converge: people fetch its links, handsets post its hooks.

Blocking `requests` on a few threads. Nothing but Converge itself is ever called: a URL that does
not begin with its public URL is not fetched, and redirects are not followed.
"""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import requests
import structlog

_log = structlog.get_logger(__name__)
TIMEOUT_S = (2.0, 10.0)
HOOK_TRIES = 5
FIRST_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Home:
    """The Converge that this world belongs to.

    `public_url` is how links begin; `reach_url` where it answers, when that is another place (in
    a container network). `secret` is what both sides of the wire share.
    """

    public_url: str
    secret: str
    reach_url: str = ""

    def reach(self, url: str) -> str | None:
        """Return where to fetch `url`, or None if it is not Converge's."""
        if not url.startswith(self.public_url.rstrip("/") + "/"):
            return None
        return self._base + url[len(self.public_url.rstrip("/")) :]

    def hook(self, account: str) -> str:
        """Return the URL of an account's webhook."""
        return f"{self._base}/hooks/{account}"

    @property
    def _base(self) -> str:
        return (self.reach_url or self.public_url).rstrip("/")


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return `X-Converge-Signature`: HMAC-SHA256 over `timestamp.body`, in hexadecimal."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={signed.hexdigest()}"


class Outside:
    """Calls to Converge, at most `concurrency` at once. Close it when done."""

    def __init__(self, home: Home, concurrency: int = 8) -> None:
        self.home = home
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="outside")
        self._local = threading.local()
        self._closing = threading.Event()

    def close(self) -> None:
        """Give up what has not begun and wait for what has."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def fetch(self, url: str, user_agent: str) -> "Future[bool]":
        """GET a link of Converge as a browser would; True if it answered well."""
        return self._pool.submit(self._fetch, url, user_agent)

    def receipt(self, account: str, receipt: Mapping[str, str]) -> "Future[bool]":
        """POST one signed receipt, again with longer pauses until it is taken (2xx)."""
        return self._pool.submit(self._receipt, account, json.dumps(receipt).encode())

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False  # no proxy, no netrc
        return session

    def _fetch(self, url: str, user_agent: str) -> bool:
        where = self.home.reach(url)
        if where is None:
            return False
        try:
            answer = self._session().get(
                where,
                headers={"User-Agent": user_agent},
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            _log.warning("fetch_failed", reason=type(error).__name__)
            return False
        return answer.status_code < 400

    def _receipt(self, account: str, body: bytes) -> bool:
        for attempt in range(HOOK_TRIES):
            if self._post(account, body):
                return True
            if self._closing.wait(FIRST_RETRY_S * 2**attempt):
                break
        _log.warning("receipt_given_up", account=account)
        return False

    def _post(self, account: str, body: bytes) -> bool:
        try:
            answer = self._session().post(
                self.home.hook(account),
                data=body,
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": "converge-sandbox",
                    "X-Converge-Signature": signature(self.home.secret, int(time.time()), body),
                },
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            _log.warning("receipt_failed", account=account, reason=type(error).__name__)
            return False
        return answer.ok
