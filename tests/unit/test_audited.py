"""What the audit trail says was changed, in plain words."""

from typing import Any

import pytest

from app.cli.audited import subject


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"customer": 12, "changed": ["email"]}, "customer 12, changed email"),
        (
            {"customer": 12, "changed": ["channels", "marketing"]},
            "customer 12, changed channels, marketing",
        ),
        ({"customer": 12, "changed": ["a", "b", "c", "d"]}, "customer 12, 4 changes"),
        ({"changes": ["+ brand demo"]}, "+ brand demo"),
        ({"changes": ["+ brand demo"] * 14}, "14 changes"),
        ({"intents": ["0198c0de"]}, "intent 0198c0de"),
        ({"customer": 12, "allow": [False]}, "customer 12, forbade"),
        ({"customer": 12, "allow": [True] * 9}, "customer 12, 9 statements"),
        (
            {
                "customer": 12,
                "allow": [True, False],
                "scopes": [{"kind": "marketing", "channel": "sms"}, {"endpoint": 7}],
            },
            "customer 12, allowed marketing messages by SMS, forbade messages to address 7",
        ),
        (
            {"account": "relay", "per_second": 2.0, "for_s": None},
            "account relay, per second 2",
        ),
    ],
)
def test_a_change_is_told_in_words(named: dict[str, Any], told: str) -> None:
    assert subject(named) == told
