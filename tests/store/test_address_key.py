"""The key of addresses' hashes: it outlives the secret that it is sealed by."""

from pathlib import Path

import pytest

from app.bootstrap import build
from app.usecases.consent.suppressing import hash_of
from config.settings import Settings, SettingsError
from tests.store.conftest import SECRET, House

NEWER = "another secret of the tests alone, as long"


def hashed(house: House, database_url: str, redis_url: str, folder: Path, *secrets: str) -> bytes:
    """The hash of an address in a process that has these secrets."""
    settings = Settings(
        database_url=database_url, redis_url=redis_url, secret=secrets, config_dir=folder
    )
    runtime = build(settings)
    for account in runtime.accounts.values():
        account.provider.close()
    runtime.engine.dispose()
    return hash_of(runtime, "email", "", "ada@example.com")


def test_a_secret_is_rotated_and_every_no_stays(
    house: House, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    known = hash_of(house.runtime, "email", "", "Ada@Example.com")
    servers = (house, database_url, redis_url, tmp_path)
    assert hashed(*servers, SECRET) == known
    assert hashed(*servers, NEWER, SECRET) == known
    assert hashed(*servers, NEWER) == known, "the former secret is needed no more"
    with pytest.raises(SettingsError, match="CONVERGE_SECRET: none of its secrets"):
        hashed(*servers, SECRET)


def test_the_ledger_alone_tells_no_address(house: House) -> None:
    [row] = house.rows("SELECT sealed FROM address_key")
    assert house.runtime.address_key not in bytes(row.sealed)
    assert house.runtime.address_key.hex() not in repr(house.runtime)
