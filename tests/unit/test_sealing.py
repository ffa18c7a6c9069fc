"""The key of addresses' hashes: sealed by a secret, and kept when that is rotated."""

import pytest

from app.domain.sealing import KEY_BYTES, WrongSecret, new_key, seal, unseal

OLD, NEW = b"a former secret of the tests", b"the secret of the tests by now"


def test_a_key_is_opened_by_its_secret_alone() -> None:
    key = new_key()
    sealed = seal(key, OLD)
    assert len(key) == KEY_BYTES
    assert key not in sealed
    assert unseal(sealed, [OLD]) == (key, 0)
    assert unseal(sealed, [NEW, OLD]) == (key, 1), "rotated: the former secret still opens it"
    for secrets in ([NEW], [], [OLD + b"x"]):
        with pytest.raises(WrongSecret):
            unseal(sealed, secrets)


def test_the_same_key_is_never_sealed_alike() -> None:
    key = new_key()
    assert seal(key, OLD) != seal(key, OLD)


def test_what_was_tampered_with_is_not_opened() -> None:
    sealed = bytearray(seal(new_key(), OLD))
    sealed[20] ^= 1
    with pytest.raises(WrongSecret):
        unseal(bytes(sealed), [OLD])
