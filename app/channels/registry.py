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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.channels.chat.matrix import MatrixProvider
from app.channels.contract import Provider, Traits, WebhookReader
from app.channels.email.smtp import SmtpProvider
from app.channels.sandbox import SandboxProvider
from app.channels.sms.twilio import TwilioProvider
from app.domain.vocabulary import Channel
from app.faults import faults, fitting

PROVIDERS: Final[Mapping[str, type[Provider]]] = {
    "matrix": MatrixProvider,
    "sandbox": SandboxProvider,
    "smtp": SmtpProvider,
    "twilio": TwilioProvider,
}


class InvalidAccount(Exception):
    """Accounts in the file cannot be used: a line for each fault, with field and way out.

    `account`, `field` and `reason` are those of the first.
    """

    def __init__(self, faults: Sequence[tuple[str, str, str]]) -> None:
        lines = (
            f"providers.toml: {f'[{name}] {field}'.rstrip()}: {reason}"
            for name, field, reason in faults
        )
        super().__init__("\n".join(lines))
        self.faults = tuple(faults)
        self.account, self.field, self.reason = self.faults[0]


class AccountConfig(BaseModel):
    """One table of the file, without the provider's own settings; `rate` in messages a second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, fitting(r"[a-z0-9][a-z0-9_-]{0,62}", "of a-z, 0-9, _ and -; 63 at most")]
    channel: Channel
    provider: str
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    weight: int = Field(default=1, ge=1)
    cost_micros: int = Field(default=0, ge=0)
    sandbox: bool = False


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

    @property
    def reader(self) -> WebhookReader | None:
        """Who reads what is reported of the account; None where nothing is."""
        found = getattr(self.provider, "reader", self.provider)
        return found if isinstance(found, WebhookReader) else None


def serving(accounts: Collection[Account], *, test: bool) -> list[Account]:
    """Those that take test intents, or live ones; neither ever goes to an account of the other.

    Where only sandbox accounts are configured, the whole installation is a sandbox.
    """
    sandbox = [account for account in accounts if account.sandbox]
    live = [account for account in accounts if not account.sandbox]
    return sandbox if test or not live else live


def build_accounts(
    raw: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> dict[str, Account]:
    """Make an account of each table of the file; raise `InvalidAccount` with all that is wrong.

    `environment` is where a setting "env:NAME" is looked up.
    """
    built: dict[str, Account] = {}
    wrong: list[tuple[str, str, str]] = []
    for name, table in raw.items():
        told = _Told(name)
        account = _build(name, table, environment, told)
        wrong += told.faults
        if account is not None:
            built[name] = account
    if wrong:
        raise InvalidAccount(wrong)
    return built


class _Told:
    """What is wrong with one account, as (account, field, reason)."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.faults: list[tuple[str, str, str]] = []

    def __call__(self, field_name: str, reason: str) -> None:
        self.faults.append((self._account, field_name, reason))

    def all_of(self, error: ValidationError, form: type[BaseModel]) -> None:
        """Every fault of one table."""
        # Never pydantic's own text: it repeats the input, which may be a secret.
        for place, text in faults(error, form, also=_OWN):
            self(".".join(map(str, place)) or "settings", text)


_OWN: Final = AccountConfig.model_fields.keys() - {"name"}


def _build(name: str, table: object, environment: Mapping[str, str], told: _Told) -> Account | None:
    if not isinstance(table, Mapping):
        told("", "must be a table, with the settings of an account in it")
        return None
    config = _config(name, table, told)
    kind = _kind(table, told)
    if kind is None:
        return None
    settings = _settings(kind, table, environment, told)
    if config is not None and config.channel not in kind.traits.channels:
        able = ", ".join(sorted(kind.traits.channels))
        told("channel", f'"{config.provider}" does not serve it; it serves: {able}')
    if config is None or settings is None or told.faults:
        return None
    return Account(
        name=config.name,
        channel=config.channel,
        rate=config.rate,
        weight=config.weight,
        cost_micros=config.cost_micros,
        sandbox=config.sandbox,
        provider=kind(config.name, config.channel, settings),
    )


def _config(name: str, table: Mapping[str, object], told: _Told) -> AccountConfig | None:
    own = {key: value for key, value in table.items() if key in _OWN}
    try:
        return AccountConfig.model_validate({**own, "name": name})
    except ValidationError as error:
        told.all_of(error, AccountConfig)
        return None


def _kind(table: Mapping[str, object], told: _Told) -> type[Provider] | None:
    wanted = table.get("provider")
    if not isinstance(wanted, str):
        return None  # which is told already
    if wanted not in PROVIDERS:
        known = ", ".join(sorted(PROVIDERS))
        told("provider", f'"{wanted}" is not known; choose one of: {known}')
    return PROVIDERS.get(wanted)


def _settings(
    kind: type[Provider], table: Mapping[str, object], environment: Mapping[str, str], told: _Told
) -> BaseModel | None:
    before = len(told.faults)
    found = {
        key: _from_environment(environment, key, value, told)
        for key, value in table.items()
        if key not in _OWN
    }
    if len(told.faults) > before:
        return None  # a variable is missing; what else is wrong would be guesswork
    try:
        return kind.Settings.model_validate(found)
    except ValidationError as error:
        told.all_of(error, kind.Settings)
        return None


def _from_environment(
    environment: Mapping[str, str], key: str, value: object, told: _Told
) -> object:
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    variable, colon, default = value.removeprefix("env:").partition(":")
    if variable not in environment and not colon:
        told(key, f"the environment has no {variable}; set it, or write the value here")
    return environment.get(variable, default)
