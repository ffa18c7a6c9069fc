"""Reading: what a batch of the inbox tells, and what of it is to be looked at again."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.domain.vocabulary import EventType
from app.store.events import Spoken
from app.store.inbox import Received
from app.usecases.consent.noes import Way
from app.usecases.hearing.heard import Heard

KEPT_FOR = timedelta(days=1)
"""How long what matches nothing yet is tried again: a receipt may overtake our own commit."""
AGAIN_CAP_S = 600.0
OVERTAKEN_CAP_S = 21_600.0
"""What overtook our commit is matched in minutes; the rest is somebody else's, and may be much."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about one delivery, ready to be written down."""

    source: str
    external_id: str
    spoken: Spoken
    event: EventType
    at: datetime
    reason: str = ""
    permanent: bool = True
    no: Way | None = None
    """The way by which it is a no, if it is one."""
    written: bool = False
    """Whether somebody wrote it: then it is as sure as an answer, whatever it says."""
    ref: str = ""
    """The reference that the ledger did not have yet, if it did not."""


@dataclass(slots=True)
class Reading:
    """What a batch of the inbox tells. `unread` rows are as `keep_in_inbox` takes them.

    `heard` are words such as STOP in the messages that are new; `active` are their customers, as
    `note_activity` takes them. `later` are to be read in batches of their own;
    `not_ours` tell of nothing that was sent from here.
    """

    facts: list[Fact] = field(default_factory=list)
    messages: int = 0
    active: list[dict[str, Any]] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    unread: dict[int, dict[str, Any]] = field(default_factory=dict)
    later: list[int] = field(default_factory=list)
    not_ours: set[int] = field(default_factory=set)

    def never(self, one: Received, problem: str) -> None:
        """It cannot be read; it stays, and an operator may have it read again."""
        self.unread[one.id] = {"id": one.id, "problem": problem, "again_s": None}

    def not_yet(self, one: Received, problem: str) -> None:
        """Try again later, ever more seldom, for a day."""
        again_s = None if _tried_for_a_day(one, AGAIN_CAP_S) else _pause_s(one.tries, AGAIN_CAP_S)
        self.unread[one.id] = {"id": one.id, "problem": problem, "again_s": again_s}

    def overtaken(self, one: Received) -> None:
        """It matches nothing, and may have overtaken our own commit: try again, more seldom still.
        After a day it was somebody else's."""
        if _tried_for_a_day(one, OVERTAKEN_CAP_S):
            self.not_ours.add(one.id)
            return
        problem, again_s = "no delivery has this reference", _pause_s(one.tries, OVERTAKEN_CAP_S)
        self.unread[one.id] = {"id": one.id, "problem": problem, "again_s": again_s}


def _pause_s(tries: int, cap_s: float) -> float:
    return min(cap_s, 2.0**tries)


def _tried_for_a_day(one: Received, cap_s: float) -> bool:
    return sum(_pause_s(n, cap_s) for n in range(one.tries)) >= KEPT_FOR.total_seconds()
