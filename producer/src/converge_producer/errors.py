"""Everything that enqueuing can say no with. No error carries a body, an address or a secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


class ConvergeError(Exception):
    """The base of every error of this package."""


class InvalidIntent(ConvergeError, ValueError):
    """An intent that can never be taken as it stands.

    `field` is a dotted path such as `content.actions[0].url`; `reason` says what to change and
    never repeats the offending value.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason

    def under(self, outer: str) -> "InvalidIntent":
        """Return the same problem, seen from the value that holds the field."""
        dot = "." if self.field and not self.field.startswith("[") else ""
        return InvalidIntent(f"{outer}{dot}{self.field}", self.reason)


class Unreachable(ConvergeError, ConnectionError):
    """The other side could not be reached within seconds.

    `uncertain` is True when bytes had left, so that the last message may have arrived all the same.
    """

    def __init__(self, reason: str, *, uncertain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.uncertain = uncertain


class BrokerUnreachable(Unreachable):
    """The broker refused, hung or went away; `published` messages had been confirmed before."""

    published: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """One intent that the API refused: its place in what was given (from 0), field and reason."""

    index: int
    id: UUID
    field: str
    reason: str
    status: str = "refused"


class NotTaken(ConvergeError):
    """The broker or the API could not be reached: some intents, or all, were not taken.

    `taken` and `not_taken` hold ids in the order given; `refusals` what the API had refused before.
    With `uncertain`, the first of `not_taken` may have arrived all the same: enqueue them again
    with the same keys, which cannot make a second intent.
    """

    def __init__(
        self,
        taken: Sequence[UUID],
        not_taken: Sequence[UUID],
        reason: str,
        *,
        uncertain: bool = False,
        refusals: Sequence[Refusal] = (),
    ) -> None:
        doubt = "; some may have arrived, so repeat with the same keys" if uncertain else ""
        super().__init__(f"{_intents(not_taken)} not taken, {len(taken)} taken: {reason}{doubt}")
        self.taken = list(taken)
        self.not_taken = list(not_taken)
        self.reason = reason
        self.uncertain = uncertain
        self.refusals = list(refusals)


class Refused(ConvergeError):
    """The API refused some intents; all others were taken. `refusals` names each one."""

    def __init__(self, taken: Sequence[UUID], refusals: Sequence[Refusal]) -> None:
        first = refusals[0]
        super().__init__(
            f"{_intents(refusals)} refused, {len(taken)} taken; "
            f"the first: #{first.index} {first.field}: {first.reason}"
        )
        self.taken = list(taken)
        self.refusals = list(refusals)


def _intents(some: Sequence[object]) -> str:
    return "1 intent" if len(some) == 1 else f"{len(some)} intents"
