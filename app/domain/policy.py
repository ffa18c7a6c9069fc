"""Policies: the escalation ladder that an intent climbs until it was seen."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from app.domain.vocabulary import Channel


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: the channels of which the best is taken, and how long it has to be seen.

    `unless_seen_within` is in seconds from hand-over; None on a last step that waits for nothing.
    """

    channels: tuple[Channel, ...]
    unless_seen_within: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A named ladder. `expires_after` is in seconds from acceptance; `seen_at` is the evidence
    that counts as seen."""

    name: str
    steps: tuple[Step, ...]
    expires_after: float
    seen_at: str = "opened"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Policy":
        """Read the form that the ledger keeps (written by `config.schema`)."""
        return cls(
            name=document["name"],
            steps=tuple(
                Step(
                    channels=tuple(Channel(name) for name in step["channels"]),
                    unless_seen_within=step.get("unless_seen_within_s"),
                )
                for step in document["steps"]
            ),
            expires_after=float(document["expires_after_s"]),
            seen_at=document.get("seen_at", "opened"),
        )

    def may_go_on(self, channel: Channel, able: Set[Channel]) -> bool:
        """Whether a step with `channel`, or a later one, has one of the `able` channels."""
        reached = False
        for step in self.steps:
            reached = reached or channel in step.channels
            if reached and not able.isdisjoint(step.channels):
                return True
        return False

    def timeout(self, step: int) -> float | None:
        """How long `step` has to be seen, in seconds; None where no later step would follow."""
        return self.steps[step].unless_seen_within if step + 1 < len(self.steps) else None
