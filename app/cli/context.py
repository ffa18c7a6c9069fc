"""What a command works with: the settings, the runtime, the declarations and the brand."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from app.bootstrap import build
from app.cli.failures import USAGE, Problem
from app.cli.ports import with_remembered_ports
from app.store.catalog import Brand
from app.usecases.operating.apply import BrandWish, Declared
from app.usecases.runtime import Runtime
from config.running import running_settings
from config.schema import load_brands, load_policies
from config.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
BrandName = Annotated[
    str, typer.Option("--brand", envvar="CONVERGE_BRAND", metavar="BRAND", help="Whose.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
DEFAULT_BRAND = "demo"
MOST_ID = 2**63 - 1
"""The ledger counts no further."""


@cache
def settings() -> Settings:
    """The settings; in the embedded profile those of the servers that `converge up` runs."""
    found = running_settings()
    chosen = load_settings()
    if not chosen.embedded:
        return found
    chosen = with_remembered_ports(chosen)
    return chosen.with_servers(found.database_url, found.redis_url, found.secret[0])


@cache
def runtime() -> Runtime:
    """The runtime of this command."""
    return build(settings())


def declared(config_dir: Path) -> Declared:
    """Everything that the files declare; raises `DeclarationError`."""
    return Declared(
        brands={
            name: BrandWish(brand.settings(), brand.sender_settings(), brand.topics)
            for name, brand in load_brands(config_dir / "brands.toml").items()
        },
        policies=load_policies(config_dir / "policies.toml"),
    )


def brand_called(name: str) -> Brand:
    """Find a brand; raises `Problem` with those that there are."""
    brands = runtime().catalog().brands
    if name in brands:
        return brands[name]
    known = ", ".join(sorted(brands)) or "none yet"
    raise Problem(
        f"There is no brand {name!r} (known: {known}). "
        "Declare it in brands.toml and run `converge apply`.",
        USAGE,
    )


def unknown_customer(ref: str, brand: str) -> Problem:
    """The refusal of a customer whom nobody knows."""
    return Problem(
        f"There is no customer {ref!r} of brand {brand}. "
        "`converge why ADDRESS` finds one by an address.",
        USAGE,
    )


def id_of(text: str) -> UUID:
    """Read the id of an intent or a task."""
    try:
        return UUID(text)
    except ValueError:
        raise Problem(
            f"{text!r} is no id: ids look like 0f8fad5b-d9cb-469f-a165-70867728950e. "
            "`converge why CUSTOMER --key KEY` finds an intent by its key.",
            USAGE,
        ) from None


def check_reason(reason: str) -> None:
    """Refuse a reason that says nothing."""
    if not reason.strip():
        raise Problem("--reason: say why: it is kept and shown.", USAGE)


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST_S = 10 * 365 * 86_400.0


def since_moment(text: str | None, now: datetime) -> datetime | None:
    """Read `2h`, `3d` (ago), a date or an ISO 8601 time; a time without offset is UTC."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS:
            return now - timedelta(**{_UNITS[unit]: float(number)})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise Problem(
            f'--since {text!r}: write how long ago ("2h", "3d") or a time ("2030-01-31T09:00Z").',
            USAGE,
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=now.tzinfo)


def moment_of(text: str, option: str) -> datetime:
    """Read a time in ISO 8601; without offset it is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(
            f'{option} {text!r}: write a time such as "2030-01-31T09:00Z".', USAGE
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def seconds_of(text: str, option: str) -> float:
    """Read a length of time such as `90s`, `30m`, `2h`; it is longer than none."""
    number, unit = text[:-1], text[-1:]
    try:
        found = timedelta(**{_UNITS[unit]: float(number)}).total_seconds()
    except (KeyError, ValueError, OverflowError):
        found = 0.0
    if not 0 < found < _LONGEST_S:
        raise Problem(f'{option} {text!r}: write how long, such as "90s", "30m" or "2h".', USAGE)
    return found
