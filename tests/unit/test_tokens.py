"""Tokens: what is signed comes back, whatever is altered is refused."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.tokens import (
    TOKEN_LENGTH,
    BadToken,
    Claims,
    ExpiredToken,
    Links,
    Purpose,
    Rights,
    Signer,
    expiry_at,
)

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
SOON = datetime(2025, 3, 2, 0, 0, tzinfo=UTC)
SIGNER = Signer([b"first-secret-of-ours"])

ids = st.integers(0, 2**64 - 1)
indexes = st.integers(0, 2**16 - 1)


@given(st.sampled_from(Purpose), ids, indexes)
def test_what_was_signed_comes_back(purpose: Purpose, number: int, index: int) -> None:
    token = SIGNER.sign(purpose, number, index, SOON)
    assert len(token) == TOKEN_LENGTH
    assert SIGNER.read(token, purpose, NOW) == Claims(purpose, number, index, SOON)


@given(ids, indexes, st.integers(0, 27 * 8 - 1))
def test_any_flipped_bit_is_refused(number: int, index: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(SIGNER.sign(Purpose.CLICK, number, index, SOON)))
    raw[bit // 8] ^= 1 << bit % 8
    forged = base64.urlsafe_b64encode(raw).decode()
    for purpose in Purpose:
        with pytest.raises(BadToken):
            SIGNER.read(forged, purpose, NOW)


@given(st.text(max_size=60))
def test_whatever_else_arrives_is_refused(token: str) -> None:
    with pytest.raises(BadToken):
        SIGNER.read(token, Purpose.OPEN, NOW)


def test_the_signature_is_truncated_hmac_sha256() -> None:
    for secret in (b"k" * 16, b"k" * 64, b"k" * 100):
        raw = base64.urlsafe_b64decode(Signer([secret]).sign(Purpose.OPEN, 7))
        assert raw[15:] == hmac.new(secret, raw[:15], hashlib.sha256).digest()[:12]


@pytest.mark.parametrize("other", [p for p in Purpose if p is not Purpose.OPEN])
def test_a_token_serves_one_purpose(other: Purpose) -> None:
    with pytest.raises(BadToken):
        SIGNER.read(SIGNER.sign(Purpose.OPEN, 1, 0, SOON), other, NOW)


def test_it_expires_at_the_end_of_its_hour_and_not_before() -> None:
    token = SIGNER.sign(Purpose.MESSAGE, 1, 0, NOW)
    end = NOW.replace(minute=0) + timedelta(hours=1)
    assert SIGNER.read(token, Purpose.MESSAGE, end - timedelta(seconds=1)).expires_at == end
    with pytest.raises(ExpiredToken):
        SIGNER.read(token, Purpose.MESSAGE, end)


def test_a_link_with_all_rights_is_good_for_no_minute_longer_than_promised() -> None:
    for minute in range(60):
        until = NOW.replace(minute=minute, second=1) + timedelta(hours=1)
        links = Links("https://converge.example", SIGNER, until)
        url = links.preferences(7, Rights.FULL)
        claims = SIGNER.read(url.rpartition("/")[2], Purpose.PREFERENCES, NOW)
        ends = expiry_at(until)
        assert claims.expires_at == ends
        assert timedelta() <= ends - until < timedelta(minutes=1)


def test_none_never_expires() -> None:
    token = SIGNER.sign(Purpose.UNSUBSCRIBE, 1)
    far = datetime(9000, 1, 1, tzinfo=UTC)
    assert SIGNER.read(token, Purpose.UNSUBSCRIBE, far).expires_at is None


def test_secrets_rotate() -> None:
    old, new = b"the-older-secret", b"the-newer-secret"
    token = Signer([old]).sign(Purpose.OPEN, 9, 0, SOON)
    assert Signer([new, old]).read(token, Purpose.OPEN, NOW).id == 9
    with pytest.raises(BadToken):
        Signer([new]).read(token, Purpose.OPEN, NOW)
    assert Signer([new, old]).sign(Purpose.OPEN, 9) == Signer([new]).sign(Purpose.OPEN, 9)


@pytest.mark.parametrize("secrets", [[], [b"short"], [b"long-enough-secret", b"short"]])
def test_weak_secrets_are_refused(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Signer(secrets)


def test_links_lead_to_the_delivery() -> None:
    links = Links("https://mail.example.com/base/", SIGNER, SOON)
    for url, purpose, index in [
        (links.open(5), Purpose.OPEN, 0),
        (links.click(5, 258), Purpose.CLICK, 258),
        (links.message(5), Purpose.MESSAGE, 0),
        (links.unsubscribe(5), Purpose.UNSUBSCRIBE, 0),
        (links.preferences(5), Purpose.PREFERENCES, Rights.CHOOSE),
        (links.preferences(5, Rights.FULL), Purpose.PREFERENCES, Rights.FULL),
    ]:
        base, token = url.rsplit("/", 1)
        assert base == f"https://mail.example.com/base/{purpose.value}"
        claims = SIGNER.read(token, purpose, NOW)
        assert (claims.id, claims.index) == (5, index)


def test_a_trace_is_the_same_at_every_attempt() -> None:
    first, later = Links("http://a.example", SIGNER, NOW), Links("http://a.example", SIGNER, SOON)
    assert first.trace(5) == later.trace(5) != first.trace(6)
    assert SIGNER.read(first.trace(5), Purpose.TRACE, NOW).id == 5


@pytest.mark.parametrize("url", ["ftp://a.example", "https://", "https://a.example/?q", "a\r\nb"])
def test_a_public_url_must_be_plain(url: str) -> None:
    with pytest.raises(ValueError, match="public URL"):
        Links(url, SIGNER, None)
