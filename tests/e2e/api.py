"""The API over real HTTP: uvicorn in a thread, on the runtime of `house`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import uvicorn
from fastapi import FastAPI

from app.api import create
from app.api.connection import BoundedHttp
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.apply import apply
from app.usecases.operating.keys import create_key
from tests.store.conftest import DECLARED, House, house, intent, sink

__all__ = ["MAX_BYTES", "Site", "house", "intent", "serving", "sink", "site"]

MAX_BYTES = 300_000
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@dataclass
class Site:
    """A served API, and calls with the key of brand `demo` (or another, or none)."""

    house: House
    url: str
    key: str

    def call(self, method: str, path: str, *, key: str | None = None, **more: Any) -> Any:
        """Make a request; `key` "" sends none. Redirects are not followed."""
        headers = dict(more.pop("headers", {}))
        if key != "":
            headers.setdefault("Authorization", f"Bearer {key or self.key}")
        return requests.request(
            method, self.url + path, headers=headers, timeout=60, allow_redirects=False, **more
        )

    def get(self, path: str, **more: Any) -> Any:
        return self.call("GET", path, **more)

    def post(self, path: str, document: Any = None, **more: Any) -> Any:
        return self.call("POST", path, json=document, **more)

    def put(self, path: str, document: Any, **more: Any) -> Any:
        return self.call("PUT", path, json=document, **more)

    def fetch(self, path: str, method: str = "GET", agent: str = BROWSER) -> Any:
        """Fetch as a customer's browser does: without a key."""
        return self.call(method, path, key="", headers={"User-Agent": agent})

    def problem(self, answer: Any, status: int, field: str | None) -> dict[str, Any]:
        """The problem document of an answer, which must be of this status and name this field."""
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        document: dict[str, Any] = answer.json()
        assert document["status"] == status
        assert {"type", "title", "detail"} <= document.keys()
        assert document.get("field") == field, document
        return document

    def other_brand(self) -> str:
        """A key of another brand."""
        brand = DECLARED.brands["demo"]
        apply(self.house.runtime, type(DECLARED)({"other": brand}, DECLARED.policies))
        return create_key(self.house.runtime, "other")

    def read_feedback(self) -> dict[str, int]:
        """Read the inbox, a moment after what was fetched has come in."""
        self.house.execute("UPDATE inbox SET due_at = now() WHERE due_at > now() AND tries = 0")
        return read_feedback(self.house.runtime)


@contextmanager
def serving(app: FastAPI, http: type[BoundedHttp] = BoundedHttp) -> Iterator[str]:
    """Serve an application on a free port until the block ends; yield its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=http, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    started = threading.Event()
    startup = server.startup

    async def told(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = told  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        assert started.wait(20)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        socket.close()


@pytest.fixture
def site(house: House) -> Iterator[Site]:
    """The API of `house`, with customer `ada` in it."""
    key = create_key(house.runtime, "demo")
    with serving(create(house.runtime, max_bytes=MAX_BYTES)) as url:
        served = Site(house, url, key)
        ada = {"email": "ada@example.com", "phone": "+12025550101"}
        assert served.put("/v1/customers/ada", ada).status_code == 200
        yield served
