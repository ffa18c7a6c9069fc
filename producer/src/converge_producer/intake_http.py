"""Handing intents over by HTTP: `POST /v1/intents/batch`, newline-delimited JSON, one verdict each.

The API answers after commit, so what it took is in the ledger.
"""

import os
import threading
from typing import Any, Final

import requests
from requests.auth import AuthBase

from converge_producer.errors import Refusal, Unreachable
from converge_producer.intake import Chunk
from converge_producer.tracing import traceparent

CONNECT_TIMEOUT: Final = 2.0  # seconds
READ_TIMEOUT: Final = 8.0  # seconds; a batch of 500 takes well under one
_TAKEN: Final = ("accepted", "exists")
_OK: Final = 200
_FAULT: Final = 500  # from here on the API may have done its work all the same


class ApiUnreachable(Unreachable):
    """The API refused the connection, hung, or did not answer with verdicts."""


class _Bearer(AuthBase):
    """Sets the key as an `auth`, because a ~/.netrc would override a plain header."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class HttpIntake:
    """Posts chunks; one session for each thread and process."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url.rstrip('/')}/v1/intents/batch"
        self._auth = _Bearer(key)
        self._local = threading.local()

    def take(self, chunk: Chunk) -> list[Refusal]:
        """Post one chunk; raises `ApiUnreachable` within seconds."""
        body = "\n".join(chunk.packed).encode() + b"\n"
        trace = traceparent()
        try:
            answer = self._session().post(
                self._url,
                data=body,
                auth=self._auth,
                headers={"Content-Type": "application/x-ndjson"}
                | ({"traceparent": trace} if trace else {}),
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                allow_redirects=False,  # a redirected POST loses its body
            )
        except requests.ConnectTimeout as error:
            raise _unreachable(error, uncertain=False) from error
        except requests.ConnectionError as error:
            raise _unreachable(error, uncertain=not _never_connected(error)) from error
        except requests.RequestException as error:
            raise _unreachable(error, uncertain=True) from error
        if answer.status_code != _OK:
            raise ApiUnreachable(
                f"the API answered {answer.status_code}{_title(answer)}",
                uncertain=answer.status_code >= _FAULT,
            )
        return _refusals(chunk, answer)

    def close(self) -> None:
        """Close this thread's session."""
        session = getattr(self._local, "session", None)
        if session is not None and self._local.pid == os.getpid():
            session.close()
        self._local.session = None

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None or self._local.pid != os.getpid():
            session = requests.Session()
            self._local.session, self._local.pid = session, os.getpid()
        return session


def _refusals(chunk: Chunk, answer: requests.Response) -> list[Refusal]:
    try:
        verdicts = {one["line"]: one for one in answer.json()["results"]}
        found = [verdicts[line] for line in range(1, len(chunk.ids) + 1)]
        return [
            Refusal(
                index=chunk.first + place,
                id=chunk.ids[place],
                field=str(one.get("field") or ""),
                reason=str(one.get("reason") or one["status"]),
                status=str(one["status"]),
            )
            for place, one in enumerate(found)
            if one["status"] not in _TAKEN
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiUnreachable(
            "the API's answer holds no verdict for each intent", uncertain=True
        ) from error


def _never_connected(error: BaseException) -> bool:
    # requests wraps urllib3's error, which names the failed step by its class alone.
    inner: Any = error.args[0] if error.args else None
    return type(getattr(inner, "reason", inner)).__name__ in (
        "NewConnectionError",
        "ConnectTimeoutError",
        "NameResolutionError",
    )


def _title(answer: requests.Response) -> str:
    """Return the title of a problem document (RFC 9457), if there is one."""
    try:
        title = answer.json()["title"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({str(title)[:100]})"


def _unreachable(error: Exception, *, uncertain: bool) -> ApiUnreachable:
    return ApiUnreachable(
        f"the API cannot be reached ({type(error).__name__})", uncertain=uncertain
    )
