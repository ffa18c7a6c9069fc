"""The declarations in TOML: brands, policies, providers; errors show file, table and field."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator

from app.domain.vocabulary import Channel

_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_BRAND_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"  # as the ledger has it
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
# One @, no spaces or control characters; what a name may look like is the email channel's matter.
_ADDRESS = r"^[^@\s\x00-\x1f<>,;]+@[^@\s\x00-\x1f<>,;]+\.[^@\s\x00-\x1f<>,;]+$"
_PHONE_OR_NAME = r"^(\+[1-9]\d{6,14}|\d{3,8}|[A-Za-z0-9 ]{1,11})$"


class DeclarationError(Exception):
    """A declaration is wrong; one line for each fault, as `FILE: [table] field: what`."""


def _seconds(value: object) -> object:
    if not isinstance(value, str) or not (match := _DURATION.fullmatch(value.strip())):
        raise ValueError('must be a time such as "30s", "30m", "2h" or "3d"')
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _one_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("must be one line without control characters")
    return value


Duration = Annotated[float, BeforeValidator(_seconds)]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=_NAME)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SenderDeclaration(_Table):
    """Who speaks for the brand: identities by channel, tracking, and a limit of its own."""

    name: Line
    email: Annotated[str, Field(pattern=_ADDRESS, max_length=254)] | None = None
    phone: Annotated[str, Field(pattern=_PHONE_OR_NAME)] | None = None
    """An E.164 number, a short code, or a name of up to 11 letters and digits."""
    chat: Line | None = None
    tracking: Literal["off", "clicks", "all"] = "all"
    rate_per_s: Annotated[float, Field(gt=0)] | None = None
    """Messages a second, over all channels and workers; None is no limit of its own."""


class BrandDeclaration(_Table):
    """A brand with its senders and topics (name to title)."""

    title: Line
    default_locale: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    default_sender: str | None = None
    senders: Annotated[dict[Name, SenderDeclaration], Field(min_length=1)]
    topics: Annotated[dict[Name, Line], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_sender(self) -> "BrandDeclaration":
        if self.default_sender is not None and self.default_sender not in self.senders:
            raise ValueError(
                f'default_sender "{self.default_sender}" is none of its senders '
                f"({', '.join(self.senders)})"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """What the ledger keeps of the brand itself, as plain JSON."""
        return self.model_dump(mode="json", exclude={"senders", "topics"})

    def sender_settings(self) -> dict[str, dict[str, Any]]:
        """What the ledger keeps of each sender, as plain JSON."""
        return {name: sender.model_dump(mode="json") for name, sender in self.senders.items()}


class _Step(_Table):
    channels: Annotated[list[Channel], Field(min_length=1)]
    unless_seen_within: Duration | None = None


class _Policy(_Table):
    expires_after: Duration
    seen_at: Literal["delivered", "opened", "clicked", "read", "replied"] = "opened"
    steps: Annotated[list[_Step], Field(min_length=1, max_length=10)]

    @model_validator(mode="after")
    def _reachable(self) -> "_Policy":
        elapsed = 0.0
        for number, step in enumerate(self.steps[:-1]):
            if step.unless_seen_within is None:
                raise ValueError(
                    f"steps[{number}] needs unless_seen_within: it says when the next step comes"
                )
            elapsed += step.unless_seen_within
        if elapsed >= self.expires_after:
            raise ValueError(
                f"expires_after ({self.expires_after:g} s) is over before the last step, which "
                f"comes after {elapsed:g} s"
            )
        return self

    def document(self, name: str) -> dict[str, Any]:
        """The form that the ledger keeps: plain JSON, times in seconds."""
        return {
            "name": name,
            "expires_after_s": self.expires_after,
            "seen_at": self.seen_at,
            "steps": [
                {
                    "channels": [channel.value for channel in step.channels],
                    "unless_seen_within_s": step.unless_seen_within,
                }
                for step in self.steps
            ],
        }


_BRANDS = TypeAdapter(dict[Annotated[str, Field(pattern=_BRAND_NAME)], BrandDeclaration])
_POLICIES = TypeAdapter(dict[Name, _Policy])


def load_brands(path: Path) -> dict[str, BrandDeclaration]:
    """Read brands by name; raises `DeclarationError`."""
    try:
        return _BRANDS.validate_python(load_toml(path))
    except ValidationError as error:
        raise _declaration_error(path, error) from None


def load_policies(path: Path) -> dict[str, dict[str, Any]]:
    """Read policies by name, in the form that the ledger keeps; raises `DeclarationError`."""
    try:
        policies = _POLICIES.validate_python(load_toml(path))
    except ValidationError as error:
        raise _declaration_error(path, error) from None
    return {name: policy.document(name) for name, policy in policies.items()}


def load_toml(path: Path) -> dict[str, Any]:
    """Read a file as it is (accounts are checked by the channels); raises `DeclarationError`."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise DeclarationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise DeclarationError(f"{path} is not TOML: {error}") from error


def _declaration_error(path: Path, error: ValidationError) -> DeclarationError:
    lines = []
    for each in error.errors(include_url=False, include_input=False):
        table, *fields = [part for part in each["loc"] if part != "[key]"]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fields)
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "is not known here"
        where = f"[{table}] {field.lstrip('.')}".rstrip()
        lines.append(f"{path.name}: {where}: {message}")
    return DeclarationError("\n".join(lines))
