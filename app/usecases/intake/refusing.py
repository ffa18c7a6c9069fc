"""Refusals: why an intent is not taken, in a form that its sender can act upon."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.domain.consent import Ground
from app.domain.decision import BARS, Decision
from app.usecases.telling.plain import left


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """Why an intent was not taken. `code` is stable; `reason` is for people and quotes nothing
    private."""

    field: str
    code: str
    reason: str


UNDECLARED: Final = frozenset(
    {"unknown_brand", "unknown_sender", "unknown_topic", "unknown_policy"}
)
"""Codes for what the brand has not declared, as far as this process knows."""
FAULT: Final = Refusal(
    "intent", "fault", "a fault of ours kept it from being taken; it is in our log"
)


def unknown_customer(to: Any, *, test: bool) -> Refusal:
    """Refuse what is for nobody: a ref is unknown, or that of a customer of the other kind, whose
    caps, consent and activity it would change."""
    if not test:
        return Refusal(
            "to",
            "unknown_customer",
            "no customer has this ref, or a test customer alone; give a customer object, "
            "or load customers with `converge customers import`",
        )
    if isinstance(to, str):
        return Refusal(
            "to",
            "unknown_customer",
            "no test customer has this ref, and a test key (or `--test`) knows test customers "
            "alone; give a customer object with a ref that no live customer has, "
            "or load test customers with `converge customers import --test`",
        )
    return Refusal(
        "to.ref",
        "unknown_customer",
        "a live customer has this ref, and a test key (or `--test`) knows test customers alone; "
        "give another ref",
    )


def unstorable(document: Any) -> Refusal:
    """Refuse what passed every check and cannot be kept; name the field that holds it."""
    reason = "holds a value that cannot be kept, such as a whole number of over 64 bits"
    if not isinstance(document, dict):
        return Refusal("intent", "unstorable", reason)
    for name, value in document.items():
        if not _is_json(value):
            return Refusal(name, "unstorable", reason)
    return Refusal("intent", "unstorable", reason)


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def unreachable(decision: Decision) -> Refusal:
    """Refuse what no step of the policy can say, with the reason for every channel."""
    bars = [one for one in decision.considered if one.why in BARS]
    if any(one.told == Ground.NO_YES for one in bars):
        return Refusal(
            "kind",
            "consent_required",
            "marketing needs the customer's consent to it or to this topic, and none is on record "
            "for these addresses; a yes to everything, to a sender or to a channel does not count",
        )
    reasons = "; ".join(
        f"{one.channel}: {left(one.why, one.told, one.until)}"
        for one in {(one.channel, one.why): one for one in decision.considered}.values()
    )
    if bars:
        return Refusal("to", "blocked", f"it may not be said to the customer now ({reasons})")
    return Refusal(
        "to",
        "no_endpoint",
        f"the customer cannot be reached on any channel of the policy ({reasons})",
    )
