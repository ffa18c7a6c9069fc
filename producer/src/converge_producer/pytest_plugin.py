"""The pytest fixture `intents_sent`, for the tests of a service that enqueues intents."""

from typing import Any

import pytest

from converge_producer import producer


@pytest.fixture
def intents_sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keep every intent that any producer enqueues in this test; nothing leaves the process.

    Intents are checked as always. The list holds their wire documents, in order.
    """
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(producer, "_captured", sent)
    return sent
