"""Problem documents (RFC 9457): every error says what, where and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.faults import in_words
from app.usecases.consent.voices import Overruled, UsedKey
from app.usecases.errors import FieldError

MEDIA_TYPE: Final = "application/problem+json"
KIND: Final = "urn:converge:problem:"


class Problem(Exception):
    """An answer that is an error. `code` is stable; `field` names what is wrong in the request."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.headers = headers
        self.document = {
            "type": KIND + code,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            **({} if field is None else {"field": field}),
            **(more or {}),
        }

    def response(self) -> Response:
        """The problem as an answer."""
        return Response(
            orjson.dumps(self.document),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def unknown_customer() -> Problem:
    """What is answered where the brand has no such customer, or the key reaches none."""
    return Problem(404, "not_found", "there is no customer with this ref", field="ref")


UNAVAILABLE: Final = Problem(
    503,
    "ledger_unavailable",
    "the ledger cannot be reached; try again with the same keys, which makes nothing twice",
    headers={"Retry-After": "2"},
)
FAULT: Final = Problem(500, "fault", "something went wrong here; it has been logged")


async def on_problem(_request: Request, error: Exception) -> Response:
    """Answer with the problem that was raised."""
    assert isinstance(error, Problem)  # noqa: S101  # registered for it alone
    return error.response()


async def on_unknown_customer(_request: Request, _error: Exception) -> Response:
    """Answer for a customer who is not there, or not for this key."""
    return unknown_customer().response()


async def on_bad_field(_request: Request, error: Exception) -> Response:
    """Answer for what a use case cannot take."""
    assert isinstance(error, FieldError)  # noqa: S101  # registered for it alone
    return Problem(422, "invalid", error.reason, field=error.field).response()


async def on_overruled(_request: Request, error: Exception) -> Response:
    """Answer for a yes of the brand against a no that the customer said in person."""
    assert isinstance(error, Overruled)  # noqa: S101  # registered for it alone
    return Problem(409, "customer_said_no", error.reason, field=error.field).response()


async def on_used_key(_request: Request, error: Exception) -> Response:
    """Answer for a key under which something else was said before."""
    assert isinstance(error, UsedKey)  # noqa: S101  # registered for it alone
    return Problem(409, "conflict", error.reason, field=error.field).response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer for what the framework refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it alone
    code, detail = _FRAMEWORK.get(error.status_code, ("refused", str(error.detail)))
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of one route alone; an address may have several.
        path = getattr(request.scope.get("route"), "path", "")
        headers = {"Allow": ", ".join(sorted(request.app.state.methods.get(path, ())))}
    return Problem(error.status_code, code, detail, headers=headers).response()


async def on_invalid(_request: Request, error: Exception) -> Response:
    """Answer for a query parameter that cannot be read."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it alone
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return Problem(422, "invalid", in_words(first), field=field).response()


_FRAMEWORK: Final = {
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not take this method; see Allow"),
}
