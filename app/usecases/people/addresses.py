"""Addresses of customers: checked with well-kept libraries, and brought into one form."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import orjson
import phonenumbers
from email_validator import EmailNotValidError, validate_email

from app.domain.vocabulary import Channel
from app.domain.zones import find_zone
from converge_producer import InvalidIntent

# spec.matrix.org, user identifiers: what new ones may be, and the older ones that are still around.
_MATRIX_USER: Final = re.compile(r"(?=.{4,255}\Z)@[!-9;-~]+:[A-Za-z0-9.\-\[\]:]+")
_PLAIN_FIELDS: Final = ("name", "locale", "timezone", "attributes")
_CHANNEL_FIELDS: Final = {
    "email": Channel.EMAIL,
    "phone": Channel.SMS,
    "chat": Channel.CHAT,
    "social": Channel.SOCIAL,
}
FIELD_OF_CHANNEL: Final = {channel: name for name, channel in _CHANNEL_FIELDS.items()}
ADDRESS_FIELDS: Final = tuple(_CHANNEL_FIELDS)
"""The fields of a customer that hold addresses."""


def customer_row(document: Mapping[str, Any], region: str | None, path: str) -> dict[str, Any]:
    """Turn a customer object of the wire into a row for `upsert_customers`.

    `region` (ISO 3166) is where phone numbers without a country code are taken to be; `path`
    stands before a field's name in errors. Raises `InvalidIntent`, which never quotes the value.
    """
    given = [name for name in _PLAIN_FIELDS if name in document]
    row: dict[str, Any] = {
        "ref": document["ref"],
        "as_of": document.get("as_of"),
        "endpoints": [],
        **{name: document.get(name) for name in _PLAIN_FIELDS},
    }
    _check_attributes(row["attributes"], f"{path}attributes")
    if row["timezone"] is not None:
        check_timezone(row["timezone"], f"{path}timezone")
    for name, channel in _CHANNEL_FIELDS.items():
        if name in document:
            given.append(channel.value)
            row["endpoints"] += _endpoints(document[name], channel, region, f"{path}{name}")
    row["given"] = given
    return row


def merge_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fold rows about the same customer into one: what came later, or is newer, wins."""
    merged: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=_as_of):
        known = merged.get(row["ref"])
        merged[row["ref"]] = row if known is None else _over(known, row)
    return list(merged.values())


def _as_of(row: Mapping[str, Any]) -> float:
    told = row["as_of"]
    return datetime.fromisoformat(told).timestamp() if told else 0.0


def _over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    told = set(new["given"])
    return {
        "ref": new["ref"],
        "as_of": new["as_of"] or old["as_of"],
        "given": sorted(told | set(old["given"])),
        **{name: (new if name in told else old)[name] for name in _PLAIN_FIELDS},
        "endpoints": [e for e in old["endpoints"] if e["channel"] not in told]
        + list(new["endpoints"]),
    }


def _endpoints(value: Any, channel: Channel, region: str | None, path: str) -> list[dict[str, str]]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [normal_endpoint(one, channel, region, path) for one in values]


def normal_endpoint(value: Any, channel: Channel, region: str | None, path: str) -> dict[str, str]:
    """One address in its one form: `{"channel", "service", "address"}`; raises `InvalidIntent`."""
    service = ""
    if channel is Channel.EMAIL:
        address = email_address(value, path)
    elif channel is Channel.SMS:
        address = phone_number(value, region, path)
    else:
        if isinstance(value, str):
            service, _, address = value.partition(":")
        else:
            service, address = value["service"], value["address"]
        if not service or not address:
            raise InvalidIntent(path, 'must name its service and address, as in "matrix:@ada:…"')
        if service == "matrix" and not _MATRIX_USER.fullmatch(address):
            raise InvalidIntent(path, "is not a user of Matrix, such as @ada:example.org")
    return {"channel": channel.value, "service": service, "address": address}


@lru_cache(maxsize=50_000)
def email_address(value: str, path: str = "email") -> str:
    """Normalise a mail address (RFC 5321, IDNA); raise `InvalidIntent`.

    All in small letters: a mail server could tell `Bo@` from `bo@`, and none does. Two addresses
    would be two consents, and a no to one would not be one to the other.
    """
    try:
        checked = validate_email(value, check_deliverability=False, allow_smtputf8=True)
    except EmailNotValidError as error:
        # The library's messages speak of characters and parts, but may quote them.
        raise InvalidIntent(path, "is not a valid mail address") from error
    if checked.ascii_email is None:
        raise InvalidIntent(
            path, "has letters beyond ASCII before the @, which mail cannot carry yet"
        )
    return checked.ascii_email.lower()


def in_one_form(channel: Channel, address: str) -> str:
    """An address of the ledger as `normal_endpoint` would have it: old ones may have capitals."""
    return address.lower() if channel is Channel.EMAIL else address


@lru_cache(maxsize=50_000)
def phone_number(value: str, region: str | None = None, path: str = "phone") -> str:
    """Normalise a phone number to E.164; raise `InvalidIntent`."""
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException as error:
        raise InvalidIntent(
            path, "is not a phone number; write it with its country code, as in +12025550123"
        ) from error
    if not phonenumbers.is_possible_number(number):
        raise InvalidIntent(path, "is not a possible phone number (too short or too long)")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _check_attributes(value: Any, path: str) -> None:
    """What the ledger's jsonb cannot hold: whole numbers of over 64 bits here, NUL everywhere."""
    try:
        packed = orjson.dumps(value)
    except TypeError as error:
        raise InvalidIntent(
            path, "holds a value that cannot be kept, such as a whole number of over 64 bits"
        ) from error
    if b"\\u0000" in packed:
        raise InvalidIntent(path, "must not contain the character NUL")


def check_timezone(value: str, path: str = "") -> None:
    """Raise `InvalidIntent` for a name that is no time zone."""
    if find_zone(value) is None:
        raise InvalidIntent(path, "is not a time zone of the IANA database, such as Europe/Berlin")
