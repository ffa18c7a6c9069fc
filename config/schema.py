"""The declarations in TOML: brands, policies, providers; errors show file, table and field."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import AfterValidator, BeforeValidator

from app.domain.caps import LONGEST_S
from app.domain.vocabulary import Channel, Kind
from app.domain.wishes import QuietHours
from app.domain.zones import find_zone
from app.faults import faults, fitting

_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_BRAND_NAME = r"[a-z0-9][a-z0-9-]{0,62}"  # as the ledger has it
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
# One bare address of ASCII (its domain as IDNA), as it can stand in a header: else no mail is sent.
_ADDRESS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
_PHONE_OR_NAME = r"(\+[1-9]\d{6,14}|\d{3,8}|[A-Za-z0-9 ]{1,11})"
_LOCALE = r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*"
_Form = TypeVar("_Form")


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
Name = Annotated[str, fitting(_NAME, "of a-z, 0-9, _ and -, as a name; 63 at most")]
MailAddress = Annotated[
    str, Field(max_length=254), fitting(_ADDRESS, "one bare address such as desk@shop.example")
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SenderDeclaration(_Table):
    """Who speaks for the brand: identities by channel, tracking, and a limit of its own.

    `reply_to` is where answers to its mails go, where that is not the `email` they are from.
    """

    name: Line
    email: MailAddress | None = None
    reply_to: MailAddress | None = None
    phone: (
        Annotated[
            str,
            fitting(
                _PHONE_OR_NAME,
                "a number such as +15550100123, a short code, or a name of up to 11 letters",
            ),
        ]
        | None
    ) = None
    """An E.164 number, a short code, or a name of up to 11 letters and digits."""
    chat: Line | None = None
    tracking: Literal["off", "clicks", "all"] = "all"
    rate_per_s: Annotated[float, Field(gt=0)] | None = None
    """Messages a second, over all channels and workers; None is no limit of its own."""


class CapDeclaration(_Table):
    """At most so many messages to one customer within a rolling window, of those that fit.

    A message counts for the window and up to a 24th of it more.
    """

    most: int
    within: Duration
    channel: Channel | None = None
    sender: str | None = None
    topic: str | None = None
    kind: Kind | None = None

    @field_validator("most")
    @classmethod
    def _something(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be 1 or more: 0 would block everything; to send nothing, pause")
        return value

    @field_validator("within")
    @classmethod
    def _not_for_ever(cls, value: float) -> float:
        if value > LONGEST_S:
            raise ValueError('must be "90d" or less')
        return value


class QuietDeclaration(_Table):
    """Quiet hours, in the customer's own zone."""

    start: Annotated[str, Field(alias="from")]
    end: Annotated[str, Field(alias="to")]

    @model_validator(mode="after")
    def _times(self) -> "QuietDeclaration":
        QuietHours.parse(self.start, self.end)
        return self


class BrandDeclaration(_Table):
    """A brand with its senders, topics (name to title) and caps.

    `marketing_quiet_hours` are those in which marketing is not sent (47 CFR 64.1200(c)(1): before
    8 am and after 9 pm of the recipient); `timezone` is where its customers are if nothing tells.
    `keep_content_days` is how long texts are kept, of a message from the day on which it ended.
    `opt_out` says what STOP and one-click unsubscribing say no to: all that the brand sends there,
    or the one sender alone. `help_text` answers HELP.
    """

    title: Line
    default_locale: Annotated[str, fitting(_LOCALE, 'a language such as "en" or "de-AT"')] = "en"
    default_sender: str | None = None
    timezone: str = "UTC"
    keep_content_days: Annotated[int, Field(ge=1, le=3650)] = 30
    opt_out: Literal["brand", "sender"] = "brand"
    help_text: (
        Annotated[str, Field(min_length=1, max_length=450), AfterValidator(_one_line)] | None
    ) = None
    marketing_quiet_hours: QuietDeclaration = QuietDeclaration(**{"from": "21:00", "to": "08:00"})
    caps: dict[Name, CapDeclaration] = Field(default_factory=dict)
    senders: Annotated[dict[Name, SenderDeclaration], Field(min_length=1)]
    topics: Annotated[dict[Name, Line], Field(min_length=1)]

    @field_validator("timezone")
    @classmethod
    def _real_zone(cls, value: str) -> str:
        if find_zone(value) is None:
            raise ValueError(f'"{value[:40]}" is no time zone; names look like "Europe/Berlin"')
        return value

    @model_validator(mode="after")
    def _known_in_caps(self) -> "BrandDeclaration":
        for name, cap in self.caps.items():
            for field_name, value, known in (
                ("sender", cap.sender, self.senders),
                ("topic", cap.topic, self.topics),
            ):
                if value is not None and value not in known:
                    raise ValueError(
                        f'caps.{name}.{field_name}: "{value}" is none of {", ".join(known)}'
                    )
        return self

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
        return self.model_dump(mode="json", by_alias=True, exclude={"senders", "topics"})

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


_Brands = dict[
    Annotated[str, fitting(_BRAND_NAME, "of a-z, 0-9 and -, as its name; 63 at most")],
    BrandDeclaration,
]
_Policies = dict[Name, _Policy]


def load_brands(path: Path) -> dict[str, BrandDeclaration]:
    """Read brands by name; raises `DeclarationError`."""
    return _load(path, _Brands)


def load_policies(path: Path) -> dict[str, dict[str, Any]]:
    """Read policies by name, in the form that the ledger keeps; raises `DeclarationError`."""
    return {name: policy.document(name) for name, policy in _load(path, _Policies).items()}


def _load(path: Path, form: type[_Form]) -> _Form:
    try:
        return TypeAdapter(form).validate_python(load_toml(path))
    except ValidationError as error:
        raise _declaration_error(path, error, form) from None


def load_toml(path: Path) -> dict[str, Any]:
    """Read a file as it is (accounts are checked by the channels); raises `DeclarationError`."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DeclarationError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DeclarationError(
            f"{path} is not text in UTF-8 (at line {line}); save it in that encoding"
        ) from error
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except ValueError as error:
        last = f"at line {len(text.splitlines())}, the last"
        told = str(error).replace("at end of document", last)
        raise DeclarationError(f"{path} is not TOML: {told}") from error


def _declaration_error(path: Path, error: ValidationError, form: Any) -> DeclarationError:
    lines = []
    for place, text in faults(error, form):
        table, *fields = place
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fields)
        where = f"[{table}] {field.lstrip('.')}".rstrip()
        lines.append(f"{path.name}: {where}: {text}")
    return DeclarationError("\n".join(lines))
