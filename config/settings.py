"""What is read from the environment: typed, in one place, each name also as `NAME_FILE`."""

import difflib
import hmac
import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.faults import faults

PREFIX = "CONVERGE_"
SECRET_BYTES = 32
_NEW_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105  # a command
# Read by the producer in services; not a setting of ours, and not a misspelled one either.
_FOREIGN = {"BRAND", "URL", "KEY"}

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = re.split(r"[\s,]+", value.strip(" ,\t\n\r"))
    try:
        return tuple(map(ip_network, parts))
    except ValueError:
        raise ValueError("must be networks such as 192.0.2.0/24, with commas between") from None


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
"""As 192.0.2.0/24, with commas or white space between; a long list fits a file (`_FILE`)."""


class SettingsError(Exception):
    """A setting is missing or wrong; the text names the variable and the way out."""


class Settings(BaseSettings):
    """Every setting. Times are in seconds. Without a database URL the profile is embedded.

    Values that are secret, or hold one, are left out of `repr` and of error texts.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # compose passes what was not set as empty
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: str = Field("", repr=False)
    broker_url: str = Field("", repr=False)
    """Where hints travel: Redis (the default is `redis_url`) or RabbitMQ."""
    redis_url: str = Field("", repr=False)
    public_url: str = ""
    """What links in messages begin with; the default is the API on this machine."""
    secret: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False)
    """Keys of tokens, comma-separated: the first signs, all of them verify."""

    config_dir: Path = Path(__file__).parent
    data_dir: Path = Path(".converge")
    embedded_source: Literal["any", "system", "wheel"] = "any"

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_processes: int = Field(1, ge=1)
    api_max_bytes: int = Field(5_000_000, ge=1000)
    """The longest request body that is read; a webhook may be three times as long."""
    api_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Intents a second that a key may enqueue over HTTP, unless it has a rate of its own."""

    machine_networks: Networks = ()
    """Networks of mail gateways and scanners: what they fetch, no person did."""
    prefetch_networks: Networks = ()
    """Networks that fetch images ahead (Apple's relay): what they open, nobody need have seen."""

    flower_host: str = "127.0.0.1"
    flower_port: Port = 5555
    flower_basic_auth: str = Field("", repr=False)
    """USER:PASSWORD; left out, `flower_credentials` makes one."""
    flower_read_only: bool = True

    worker_processes: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 2) // 2), ge=1)
    """Processes of a channel's fleet for the normal and bulk lanes; urgent has one of its own."""
    worker_threads: int = Field(4, ge=1, le=64)
    lease_seconds: Seconds = 60
    hint_lost_seconds: Seconds = 30
    dispatch_seconds: Seconds = 1
    upkeep_seconds: Seconds = 10
    soft_shutdown_seconds: Seconds = 30

    sandbox_smtp_host: str = "127.0.0.1"
    sandbox_smtp_port: Port = 1025
    sandbox_url: str = "http://127.0.0.1:8025"
    sandbox_secret: str = Field("", repr=False)
    """What the sandbox and its accounts share; left out, `sandbox_credential` makes one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments and the environment; `_FILE` values arrive as arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @field_validator("secret", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("secret")
    @classmethod
    def _long_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(each) < SECRET_BYTES for each in value):
            raise ValueError(
                f"each secret needs {SECRET_BYTES} characters or more; make one with {_NEW_SECRET}"
            )
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if value and urlsplit(value).scheme.split("+")[0] not in ("postgresql", "postgres"):
            raise ValueError("must look like postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and not _is_redis(value):
            raise ValueError("must look like redis://:PASSWORD@HOST:PORT/0")
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: str) -> str:
        if value and not (_is_redis(value) or urlsplit(value).scheme in ("amqp", "amqps")):
            raise ValueError("must be a redis:// or an amqp:// URL")
        return value

    @field_validator("flower_basic_auth")
    @classmethod
    def _user_and_password(cls, value: str) -> str:
        if value and not all(value.partition(":")[::2]):
            raise ValueError("must be USER:PASSWORD")
        return value

    @field_validator("public_url", "sandbox_url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must look like https://HOST")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        fill = object.__setattr__  # the model is frozen once it is made
        if not self.redis_url and _is_redis(self.broker_url):
            fill(self, "redis_url", self.broker_url)
        if not self.broker_url:
            fill(self, "broker_url", self.redis_url)
        if not self.public_url:
            fill(self, "public_url", f"http://127.0.0.1:{self.api_port}")
        if self.database_url and not self.redis_url:
            raise ValueError(
                f"{PREFIX}REDIS_URL is missing: with {PREFIX}DATABASE_URL set, set it too "
                "(or neither, for private servers on this machine)"
            )
        if self.broker_url and not self.database_url:
            raise ValueError(
                f"{PREFIX}DATABASE_URL is missing: with {PREFIX}REDIS_URL or {PREFIX}BROKER_URL "
                "set, set it too (or none, for private servers on this machine)"
            )
        return self

    @property
    def embedded(self) -> bool:
        """Whether Postgres and Redis are ours to start."""
        return not self.database_url

    @property
    def token_secrets(self) -> tuple[str, ...]:
        """The secrets, of which there must be one; raises `SettingsError`."""
        if not self.secret:
            raise SettingsError(
                f"{PREFIX}SECRET is not set: links in messages are signed with it. Make one with "
                f"{_NEW_SECRET} and give the same one to every process."
            )
        return self.secret

    @property
    def flower_credentials(self) -> str:
        """USER:PASSWORD of Flower: as set, or made from the secret, so that it is never open."""
        if self.flower_basic_auth:
            return self.flower_basic_auth
        return "operator:" + self._made_from_secret(b"flower")

    @property
    def sandbox_credential(self) -> str:
        """The sandbox's secret: as set, or made from ours, so that nobody can guess it."""
        return self.sandbox_secret or self._made_from_secret(b"sandbox")

    def _made_from_secret(self, purpose: bytes) -> str:
        key = self.token_secrets[0].encode()
        return hmac.new(key, purpose, "sha256").hexdigest()[:24]

    def with_servers(self, database_url: str, redis_url: str, secret: str) -> Self:
        """These settings with embedded servers filled in; a secret that was set is kept."""
        return self.model_copy(
            update={
                "database_url": database_url,
                "redis_url": redis_url,
                "broker_url": redis_url,
                "secret": self.secret or (secret,),
            }
        )

    def environment(self) -> dict[str, str]:
        """Variables that make a child process see the same servers, folders and addresses."""
        known = self.secret or self.sandbox_secret
        sandbox = {f"{PREFIX}SANDBOX_SECRET": self.sandbox_credential} if known else {}
        return sandbox | {
            f"{PREFIX}DATABASE_URL": self.database_url,
            f"{PREFIX}REDIS_URL": self.redis_url,
            f"{PREFIX}BROKER_URL": self.broker_url,
            f"{PREFIX}SECRET": ",".join(self.secret),
            f"{PREFIX}PUBLIC_URL": self.public_url,
            f"{PREFIX}CONFIG_DIR": str(self.config_dir.resolve()),
            f"{PREFIX}DATA_DIR": str(self.data_dir.resolve()),
        }


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; `overrides` win. Raises `SettingsError` naming every wrong variable."""
    names = list(Settings.model_fields)
    _reject_misspelled(names)
    try:
        return Settings(**(_from_files(names) | overrides))
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None


def _from_files(names: list[str]) -> dict[str, Any]:
    """The values whose variable `CONVERGE_X_FILE` names a file."""
    found = {}
    for name in names:
        variable = PREFIX + name.upper()
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            continue
        if os.environ.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set; keep one.")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"{variable}_FILE: {path} cannot be read ({error}).") from error
        except ValueError as error:
            raise SettingsError(f"{variable}_FILE: {path} is not text in UTF-8.") from error
    return found


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for place, text in faults(error, Settings):
        variable = f"{PREFIX}{str(place[0]).upper()}: " if place else ""
        lines.append(f"{variable}{text}")
    return lines


def _reject_misspelled(names: list[str]) -> None:
    """A variable that is almost one of ours is a mistake that would be silent."""
    known = {name.upper() for name in names}
    known |= {f"{name}_FILE" for name in known}
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in known | _FOREIGN:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close:
            raise SettingsError(f"{variable} is not a setting; did you mean {PREFIX}{close[0]}?")


def _is_redis(url: str) -> bool:
    return urlsplit(url).scheme in ("redis", "rediss")
