"""Settings: where they come from, what is said when they are wrong, what is never shown."""

import hmac
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.channels.contract import BadSignature, HookRequest, WebhookReader
from app.channels.registry import build_accounts
from config.schema import load_toml
from config.settings import Settings, SettingsError, load_settings

DATABASE = "postgresql://converge:hush@db.example.net/converge"
REDIS = "redis://:hush@redis.example.net:6379/0"
SECRET = "s" * 40


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CONVERGE_DATABASE_URL", DATABASE)
    monkeypatch.setenv("CONVERGE_REDIS_URL", REDIS)
    monkeypatch.setenv("CONVERGE_SECRET", f"{SECRET}, {'o' * 40}")
    return monkeypatch


def test_nothing_set_is_the_embedded_profile() -> None:
    settings = load_settings()
    assert settings.embedded
    assert settings.public_url == "http://127.0.0.1:8000"
    assert (settings.config_dir / "brands.toml").is_file()


def test_the_configured_profile(configured: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert not settings.embedded
    assert settings.broker_url == REDIS, "the broker is Redis unless told otherwise"
    assert settings.token_secrets == (SECRET, "o" * 40)
    assert "hush" not in repr(settings)
    assert SECRET not in repr(settings)
    configured.setenv("CONVERGE_BROKER_URL", "amqp://u:p@rabbit.example.net//")
    assert load_settings().broker_url.startswith("amqp:")


def test_a_value_may_be_in_a_file(configured: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "secret"
    kept.write_text("f" * 40 + "\n")
    configured.setenv("CONVERGE_SECRET_FILE", str(kept))
    with pytest.raises(SettingsError, match="CONVERGE_SECRET and CONVERGE_SECRET_FILE"):
        load_settings()
    configured.delenv("CONVERGE_SECRET")
    assert load_settings().token_secrets == ("f" * 40,)
    configured.setenv("CONVERGE_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"CONVERGE_SECRET_FILE: .*missing cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CONVERGE_API_PORT", "80000", "CONVERGE_API_PORT"),
        ("CONVERGE_API_PORT", "http", "CONVERGE_API_PORT"),
        ("CONVERGE_SECRET", "short", r"CONVERGE_SECRET: .*secrets.token_urlsafe"),
        ("CONVERGE_DATABASE_URL", "mysql://u:hush@h/d", "CONVERGE_DATABASE_URL: .*postgresql://"),
        ("CONVERGE_REDIS_URL", "http://h", "CONVERGE_REDIS_URL: .*redis://"),
        ("CONVERGE_BROKER_URL", "sqs://", "CONVERGE_BROKER_URL: .*amqp://"),
        ("CONVERGE_PUBLIC_URL", "shop.example.com", "CONVERGE_PUBLIC_URL: .*https://"),
        ("CONVERGE_FLOWER_BASIC_AUTH", "admin", "CONVERGE_FLOWER_BASIC_AUTH: .*USER:PASSWORD"),
        ("CONVERGE_LEASE_SECONDS", "0", "CONVERGE_LEASE_SECONDS"),
        ("CONVERGE_DATABSE_URL", DATABASE, "did you mean CONVERGE_DATABASE_URL"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    configured: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    configured.setenv(variable, value)
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("missing", ["CONVERGE_DATABASE_URL", "CONVERGE_REDIS_URL"])
def test_half_a_configuration_names_the_other_half(
    configured: pytest.MonkeyPatch, missing: str
) -> None:
    configured.delenv(missing)
    with pytest.raises(SettingsError, match=f"{missing} is missing"):
        load_settings()


def test_an_empty_variable_is_not_set(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("CONVERGE_WORKER_PROCESSES", "")
    assert load_settings().worker_processes >= 1


def test_tokens_need_a_secret(configured: pytest.MonkeyPatch) -> None:
    configured.delenv("CONVERGE_SECRET")
    with pytest.raises(SettingsError, match="CONVERGE_SECRET is not set"):
        _ = load_settings().token_secrets


def test_flower_is_never_open(configured: pytest.MonkeyPatch) -> None:
    made = load_settings().flower_credentials
    assert made == load_settings().flower_credentials
    assert made.startswith("operator:")
    assert SECRET not in made
    configured.setenv("CONVERGE_FLOWER_BASIC_AUTH", "ops:word")
    assert load_settings().flower_credentials == "ops:word"


def test_the_sandbox_is_never_open(configured: pytest.MonkeyPatch) -> None:
    made = load_settings().sandbox_credential
    assert len(made) >= 24
    assert made not in load_settings().flower_credentials
    accounts = load_toml(load_settings().config_dir / "providers.toml")
    built = build_accounts(accounts, load_settings().environment())
    stamp = datetime.now(UTC)
    for secret in ("sandbox", made):
        signed = f"{int(stamp.timestamp())}.{{}}".encode()
        v1 = hmac.new(secret.encode(), signed, "sha256").hexdigest()
        headers = {"x-converge-signature": f"t={int(stamp.timestamp())},v1={v1}"}
        request = HookRequest(b"{}", headers, "https://converge.example/hooks/sandbox-sms", stamp)
        reader = built["sandbox-sms"].provider
        assert isinstance(reader, WebhookReader)
        with nullcontext() if secret == made else pytest.raises(BadSignature):
            reader.verify(request)
    configured.setenv("CONVERGE_SANDBOX_SECRET", "a secret of its own")
    assert load_settings().environment()["CONVERGE_SANDBOX_SECRET"] == "a secret of its own"


def test_a_child_process_sees_the_same_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings().with_servers(DATABASE, REDIS, SECRET)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    child = load_settings()
    assert (child.database_url, child.broker_url, child.secret) == (DATABASE, REDIS, (SECRET,))
    assert child.data_dir == settings.data_dir.resolve()
