"""Every provider by name, and the accounts that `config/providers.toml` makes of them.

The only place that knows concrete providers. A table of the file is one account:

    [relay-1]
    channel = "email"
    provider = "smtp"
    rate = 500                        # messages a second; leave out for no limit
    weight = 1                        # share among healthy accounts of the channel
    cost_micros = 100                 # per message, in millionths of the currency
    sandbox = false                   # true: an imitation; test keys send here alone
    host = "relay.example.com"        # these and all others are the provider's own settings
    password = "env:RELAY_PASSWORD"   # from the environment; "env:NAME:DEFAULT" need not be set
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.channels.contract import Provider, Traits
from app.channels.email.smtp import SmtpProvider
from app.channels.sandbox import SandboxProvider
from app.domain.vocabulary import Channel

PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    "sandbox": SandboxProvider,
    "smtp": SmtpProvider,
}


class InvalidAccount(Exception):
    """An account in the file cannot be used; says which, which field, and the way out."""

    def __init__(self, account: str, field_name: str, reason: str) -> None:
        super().__init__(f"providers.toml: [{account}] {field_name}: {reason}")
        self.account = account
        self.field = field_name
        self.reason = reason


class AccountConfig(BaseModel):
    """One table of the file. `rate` is in messages a second; `settings` are as written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    channel: Channel
    provider: str
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    weight: int = Field(default=1, ge=1)
    cost_micros: int = Field(default=0, ge=0)
    sandbox: bool = False
    settings: dict[str, Any] = Field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """A provider account ready for use: its configuration and the provider that speaks for it."""

    name: str
    channel: Channel
    rate: float | None
    weight: int
    cost_micros: int
    sandbox: bool
    provider: Provider = field(repr=False)

    @property
    def traits(self) -> Traits:
        """What the provider can do."""
        return self.provider.traits


def parse_accounts(raw: Mapping[str, Mapping[str, object]]) -> dict[str, AccountConfig]:
    """Read the tables of the file, without looking at any provider's own settings."""
    return {name: _parse(name, table) for name, table in raw.items()}


def build_accounts(
    raw: Mapping[str, Mapping[str, object]], environment: Mapping[str, str] = os.environ
) -> dict[str, Account]:
    """Make an account of each table of the file; raise `InvalidAccount` at the first bad one.

    `environment` is where a setting "env:NAME" is looked up.
    """
    return {name: _build(config, environment) for name, config in parse_accounts(raw).items()}


def _parse(name: str, table: Mapping[str, object]) -> AccountConfig:
    own = AccountConfig.model_fields.keys() - {"name", "settings"}
    fields = {key: value for key, value in table.items() if key in own}
    settings = {key: value for key, value in table.items() if key not in own}
    try:
        return AccountConfig.model_validate({**fields, "name": name, "settings": settings})
    except ValidationError as error:
        raise _invalid(name, error) from None


def _build(config: AccountConfig, environment: Mapping[str, str]) -> Account:
    kind = PROVIDERS.get(config.provider)
    if kind is None:
        known = ", ".join(sorted(PROVIDERS))
        raise InvalidAccount(
            config.name, "provider", f'"{config.provider}" is not known; choose one of: {known}'
        )
    if config.channel not in kind.traits.channels:
        able = ", ".join(sorted(kind.traits.channels))
        raise InvalidAccount(
            config.name, "channel", f'"{config.provider}" does not serve it; it serves: {able}'
        )
    settings = {
        key: _from_environment(environment, config.name, key, value)
        for key, value in config.settings.items()
    }
    try:
        parsed = kind.Settings.model_validate(settings)
    except ValidationError as error:
        raise _invalid(config.name, error) from None
    return Account(
        name=config.name,
        channel=config.channel,
        rate=config.rate,
        weight=config.weight,
        cost_micros=config.cost_micros,
        sandbox=config.sandbox,
        provider=kind(config.name, config.channel, parsed),
    )


def _from_environment(
    environment: Mapping[str, str], account: str, key: str, value: object
) -> object:
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    variable, colon, default = value.removeprefix("env:").partition(":")
    if variable not in environment and colon:
        return default
    if variable not in environment:
        raise InvalidAccount(
            account, key, f"the environment has no {variable}; set it, or write the value here"
        )
    return environment[variable]


def _invalid(account: str, error: ValidationError) -> InvalidAccount:
    # Never pydantic's own text: it repeats the input, which may be a secret.
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "no such setting; see the provider's Settings for those it has"
    return InvalidAccount(account, where, reason)
