"""How far somebody reaches who asks about a brand's customers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Which customers, and what of them: all of it, unless it is bounded.

    `senders`: what is about these, or about no sender; addresses are masked then. `test`: test
    customers alone, or live ones alone.
    """

    senders: frozenset[str] | None = None
    test: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether it is everything about a customer."""
        return self.senders is None

    def knows(self, *, test: bool) -> bool:
        """Whether a customer, a test customer or a live one, is there at all."""
        return self.test is None or self.test is test

    def covers(self, sender: str | None) -> bool:
        """Whether it reaches what is about a sender; None is about all of them."""
        return self.senders is None or sender is None or sender in self.senders
