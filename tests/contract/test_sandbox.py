"""The sandbox's receipts: signed, fresh, readable."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from app.channels.contract import BadSignature, HookRequest, Receipt, UnreadableHook
from app.channels.sandbox import SandboxProvider, SandboxSettings
from app.domain.vocabulary import Channel, EventType
from app.sandbox.outside import signature

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())
FACT = {"id": "fact-1", "ref": "r-1", "event": "read", "at": "2026-03-01T11:59:58.000+00:00"}


@pytest.fixture
def provider() -> SandboxProvider:
    settings = SandboxSettings.model_validate({"url": "http://127.0.0.1:1", "secret": "s3cret"})
    return SandboxProvider("account", Channel.CHAT, settings)


def _request(body: bytes, header: str | None, at: datetime = NOW) -> HookRequest:
    headers = {"x-converge-signature": header} if header is not None else {}
    return HookRequest(body, headers, "http://127.0.0.1:1/hooks/account", at)


def test_a_receipt_signed_by_the_sandbox_is_read(provider: SandboxProvider) -> None:
    body = json.dumps(FACT).encode()
    request = _request(body, signature("s3cret", STAMP, body))
    provider.verify(request)
    assert provider.read(request) == [
        Receipt("fact-1", "r-1", EventType.READ, datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC))
    ]


BODY = json.dumps(FACT).encode()
GOOD = signature("s3cret", STAMP, BODY)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (None, BODY),
        ("", BODY),
        ("v1=abc", BODY),
        ("t=,v1=", BODY),
        ("t=²,v1=é", BODY),
        (f"t={STAMP},v1=", BODY),
        (GOOD, BODY + b" "),
        (GOOD.replace(f"t={STAMP}", f"t={STAMP + 1}"), BODY),
        (signature("other", STAMP, BODY), BODY),
    ],
)
def test_anything_else_is_not(provider: SandboxProvider, header: str | None, body: bytes) -> None:
    with pytest.raises(BadSignature):
        provider.verify(_request(body, header))


@pytest.mark.parametrize(("minutes", "fresh"), [(4, True), (-4, True), (6, False), (-6, False)])
def test_a_signature_grows_old(provider: SandboxProvider, minutes: int, fresh: bool) -> None:
    request = _request(BODY, GOOD, NOW + timedelta(minutes=minutes))
    if fresh:
        provider.verify(request)
    else:
        with pytest.raises(BadSignature):
            provider.verify(request)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"id": "x"}',
        json.dumps({**FACT, "event": "eaten"}).encode(),
        json.dumps({**FACT, "at": "2026-03-01T11:59:58"}).encode(),
        json.dumps({**FACT, "at": 5}).encode(),
    ],
)
def test_what_is_no_receipt_is_said_to_be_none(provider: SandboxProvider, body: bytes) -> None:
    with pytest.raises(UnreadableHook):
        provider.read(_request(body, None))
