"""A customer as an intent may carry it: a field left out stays as it is, null removes it."""

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from converge_producer.checks import Check, each, fail, matching, moment, text
from converge_producer.checks import fields as check_fields

MAX_ADDRESSES: Final = 20

_EMAIL = re.compile(r"[^\s@<>(),;:\"\\\[\]\x00-\x1f\x7f]+@[^\s@<>(),;:\"\\\x00-\x1f\x7f]+")
_SERVICE_ADDRESS = re.compile(r"[a-z][a-z0-9_-]{0,31}:\S.*")

reference: Final[Check] = text(200)
_email_text = text(254)


def _email(value: Any) -> None:
    _email_text(value)
    if _EMAIL.fullmatch(value) is None:
        raise fail("must be one e-mail address such as ada@example.com")


_phone = matching(r"\+?[0-9][0-9 ().\-/]{2,30}", "one phone number such as +1 555 0100", 32)
_ENDPOINT_CHECKS: Final[dict[str, Check]] = {
    "service": matching(r"[a-z][a-z0-9_-]{0,31}", "the name of a service such as matrix", 32),
    "address": text(255),
}
_endpoint_text = text(288)


def _endpoint(value: Any) -> None:
    if isinstance(value, str):
        _endpoint_text(value)
        if _SERVICE_ADDRESS.fullmatch(value) is None:
            raise fail('must be "service:address" such as matrix:@ada:example.org')
    else:
        check_fields(_ENDPOINT_CHECKS, value, required=("service", "address"))


_attribute_name = text(100)


def _attributes(value: Any) -> None:
    if not isinstance(value, dict):
        raise fail("must be an object")
    for name in value:
        _attribute_name(name)


CUSTOMER_CHECKS: Final[dict[str, Check]] = {
    "ref": reference,
    "name": text(200),
    "email": each(_email, MAX_ADDRESSES, or_one=True),
    "phone": each(_phone, MAX_ADDRESSES, or_one=True),
    "chat": each(_endpoint, MAX_ADDRESSES, or_one=True),
    "social": each(_endpoint, MAX_ADDRESSES, or_one=True),
    "locale": matching(
        r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*", "a language tag such as en or pt-BR", 35
    ),
    "timezone": matching(r"[A-Za-z][A-Za-z0-9_+\-/]*", "an IANA zone such as Europe/Paris", 64),
    "attributes": _attributes,
    "as_of": moment,
}


def validate_customer(document: Any) -> None:
    """Check a customer object; raises `InvalidIntent` with paths relative to it.

    Addresses are checked for plausible syntax alone; whether they exist is for those who send.
    """
    check_fields(CUSTOMER_CHECKS, document, required=("ref",))


class _Unset:
    """Marks a field that was not given, since None means "remove"."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer to be created or updated along with an intent.

    A field left out stays as it is; None removes it. `email` and `phone` take one address or a
    list; `chat` and `social` take "service:address", {"service", "address"}, or a list of those.
    `as_of` says when these facts were true: older facts never overwrite newer ones.
    """

    ref: str
    name: str | _Unset | None = UNSET
    email: str | list[str] | _Unset | None = UNSET
    phone: str | list[str] | _Unset | None = UNSET
    chat: str | dict[str, str] | list[str | dict[str, str]] | _Unset | None = UNSET
    social: str | dict[str, str] | list[str | dict[str, str]] | _Unset | None = UNSET
    locale: str | _Unset | None = UNSET
    timezone: str | _Unset | None = UNSET
    attributes: dict[str, Any] | _Unset | None = UNSET
    as_of: datetime | str | _Unset = UNSET

    def document(self) -> dict[str, Any]:
        """Return the wire form: only the fields that were given."""
        given = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not UNSET:
                given[name] = value.isoformat() if isinstance(value, datetime) else value
        return given


_NAMES: Final = tuple(field.name for field in fields(Customer))
