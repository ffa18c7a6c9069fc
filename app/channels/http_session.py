"""HTTP sessions for one thread each, whose connections note when a request leaves."""

import socket
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Annotated, Any, Protocol

import requests
from pydantic import BaseModel, ConfigDict, Field
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

Seconds = Annotated[float, Field(gt=0, le=600)]


class HttpSettings(BaseModel):
    """Settings that every HTTP provider has. Times in seconds; `total_timeout` is per message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int = Field(default=80, ge=1, le=512)
    connect_timeout: Seconds = 5
    read_timeout: Seconds = 15
    total_timeout: Seconds = 20
    proxy: str | None = None
    ca_file: str | None = None


class Flight(Protocol):
    """A request in the air, as far as its connection knows it."""

    def leave(self, sock: socket.socket | None) -> None:
        """Bytes of it are about to leave through `sock`. May raise `TimeoutError`."""


class _Current(threading.local):
    flight: Flight | None = None


current = _Current()  # what this thread's connection is to tell


class _NotingConnection(HTTPConnection):
    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if current.flight:
            current.flight.leave(self.sock)
        super().send(data)


class _NotingTlsConnection(_NotingConnection, HTTPSConnection):
    pass


class _NotingPool(HTTPConnectionPool):
    ConnectionCls = _NotingConnection


class _NotingTlsPool(HTTPSConnectionPool):
    ConnectionCls = _NotingTlsConnection


class _NotingAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _NotingPool,
            "https": _NotingTlsPool,
        }


def noting_session(settings: HttpSettings) -> requests.Session:
    """Make a session that keeps nothing but connections, and notes what leaves."""
    session = requests.Session()
    session.trust_env = False  # else .netrc may replace our Authorization header
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.verify = settings.ca_file or True
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    adapter = _NotingAdapter(pool_connections=2, pool_maxsize=1, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
