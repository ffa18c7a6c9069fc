"""Accounts from the tables of providers.toml."""

import pytest

from app.channels.contract import Provider
from app.channels.registry import PROVIDERS, InvalidAccount, build_accounts
from app.domain.vocabulary import Channel

RELAY = {
    "channel": "email",
    "provider": "smtp",
    "rate": 500,
    "weight": 2,
    "cost_micros": 100,
    "host": "relay.example.com",
    "username": "converge",
    "password": "env:RELAY_PASSWORD",
}


def test_a_table_is_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", "hush-hush")
    account = build_accounts({"relay-1": RELAY})["relay-1"]
    assert (account.name, account.channel, account.rate) == ("relay-1", Channel.EMAIL, 500)
    assert (account.weight, account.cost_micros, account.sandbox) == (2, 100, False)
    assert isinstance(account.provider, Provider)
    assert "hush-hush" not in repr(account) + repr(vars(account.provider))


def test_what_may_be_left_out() -> None:
    account = build_accounts({"a": {"channel": "email", "provider": "smtp", "host": "h"}})["a"]
    assert (account.rate, account.weight, account.cost_micros) == (None, 1, 0)


def test_a_default_stands_in_for_an_unset_variable() -> None:
    build_accounts({"a": {"channel": "email", "provider": "smtp", "host": "env:UNSET_HOST:h"}})


@pytest.mark.parametrize(
    ("change", "field", "way_out"),
    [
        ({"provider": "pigeon"}, "provider", "smtp"),
        ({"channel": "sms"}, "channel", "email"),
        ({"channel": "post"}, "channel", "'email'"),
        ({"rate": 0}, "rate", "must be more than 0"),
        ({"weight": "many"}, "weight", "must be a whole number"),
        ({"hots": "x"}, "hots", "is not known here; did you mean host?"),
        ({"wieght": 3}, "wieght", "did you mean weight?"),
        ({"zzz": 3}, "zzz", "known are ca_file, channel, chunking, "),
        ({"port": 99999}, "port", "must be 65535 or less"),
        ({"password": "env:UNSET_PASSWORD"}, "password", "UNSET_PASSWORD"),
        ({"tls": "none"}, "settings", "starttls"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file", "file"),
    ],
)
def test_a_mistake_is_named_with_account_field_and_way_out(
    change: dict[str, object], field: str, way_out: str
) -> None:
    table = {**RELAY, "password": "hush-hush", **change}
    with pytest.raises(InvalidAccount) as caught:
        build_accounts({"relay-1": table})
    assert caught.value.account == "relay-1"
    assert caught.value.field == field
    assert way_out in str(caught.value)
    assert "hush-hush" not in str(caught.value)


def test_every_fault_of_every_account_is_told_at_once() -> None:
    with pytest.raises(InvalidAccount) as caught:
        build_accounts(
            {
                "relay-1": {**RELAY, "rate": 0, "port": 0, "hots": "x", "password": "hush-hush"},
                "texts": {"channel": "sms", "provider": "twilio", "account_sid": "x"},
                "rate": 3,
            }
        )
    assert str(caught.value).splitlines() == [
        "providers.toml: [relay-1] rate: must be more than 0",
        "providers.toml: [relay-1] port: must be 1 or more",
        "providers.toml: [relay-1] hots: is not known here; did you mean host?",
        (
            "providers.toml: [texts] account_sid: must be AC and 32 characters of 0-9 and a-f, "
            "as the console shows it"
        ),
        "providers.toml: [texts] auth_token: is missing",
        "providers.toml: [texts] public_url: is missing",
        "providers.toml: [rate]: must be a table, with the settings of an account in it",
    ]


def test_a_name_must_fit_queues_and_urls() -> None:
    with pytest.raises(InvalidAccount):
        build_accounts({"Relay 1": RELAY})


@pytest.mark.parametrize("name", PROVIDERS)
def test_settings_of_every_provider_refuse_the_unknown(name: str) -> None:
    assert PROVIDERS[name].Settings.model_config["extra"] == "forbid"
