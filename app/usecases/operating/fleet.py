"""The fleet: which processes are there, and what operators ask of them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal
from uuid import UUID, uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.store import audit, fleet
from app.store.fleet import Present
from app.store.tallies import put_tallies
from app.usecases.operating.control import Operator
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

BEAT_S = 1.0
LAST_BEAT_S = 5.0
"""So long a process that ends waits until the ledger has its last beat, and what it counted."""
PRESENT_S = 10.0
"""A process not heard of for so long is taken for gone."""
State = Literal["running", "draining", "drained", "stopped"]


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the fleet: its name, the queues that it serves and its release.

    A process that is started again is another member, though its name be the same.
    """

    name: str
    queues: Sequence[str] = ()
    id: UUID = field(default_factory=uuid4)
    release: str = field(default_factory=lambda: version("converge"))


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is asked to do: `drain` is to take no new work until told otherwise."""

    drain: bool = False


def beat(runtime: Runtime, member: Member, state: State = "running") -> Orders:
    """Say that a process is there and what it has counted; return what is asked of it."""
    counted = runtime.tally.snapshot()
    with runtime.engine.begin() as connection:
        drain = fleet.note_beat(
            connection,
            member.id,
            name=member.name,
            queues=member.queues,
            release=member.release,
            state=state,
        )
        put_tallies(connection, member.id, counted)
    return Orders(drain)


class Pulse:
    """A thread that beats for its process each second, until it is stopped.

    A ledger that is away is told once in the log, and asked again. `state` says how the process
    is, and `obey` hears its orders; both are called by this thread.
    """

    def __init__(
        self,
        runtime: Runtime,
        member: Member,
        state: Callable[[], State] = lambda: "running",
        obey: Callable[[Orders], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._member = member
        self._state = state
        self._obey = obey
        self._end = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin, with a first beat at once."""
        self._thread.start()

    def stop(self) -> None:
        """Beat a last time, as `stopped`; a ledger that does not answer is not waited for long."""
        self._end.set()
        self._thread.join(LAST_BEAT_S)

    def _run(self) -> None:
        while not self._end.is_set():
            self._beat(self._state())
            self._end.wait(BEAT_S)
        self._beat("stopped")

    def _beat(self, state: State) -> None:
        try:
            orders = beat(self._runtime, self._member, state)
        except SQLAlchemyError as error:
            if not self._away:
                _log.warning("pulse_lost", reason=type(error).__name__)
            self._away = True
            return
        if self._away:
            _log.info("pulse_back")
        self._away = False
        self._obey(orders)


class UnknownWorker(Exception):
    """No worker of this name is there; the text names those that are."""


def workers(runtime: Runtime) -> list[Present]:
    """The processes that serve queues and were heard of lately, by name."""
    with runtime.engine.begin() as connection:
        return [one for one in fleet.present(connection, PRESENT_S) if one.queues]


def drain(
    runtime: Runtime, worker: str | None, by: Operator, *, undo: bool = False
) -> list[Present]:
    """Ask a worker, or all that are there, to take no new work, or to take work again.

    A worker is named as Celery has it (`email-1@host`) or without its host, where one alone is
    called that; `@host` means all of a host, or of a container. Returns those meant, as they were;
    asking twice changes nothing. Raises `UnknownWorker`.
    """
    with runtime.engine.begin() as connection:
        there = [one for one in fleet.present(connection, PRESENT_S) if one.queues]
        meant = there if worker is None else _named(there, worker)
        new = fleet.ask_drain(connection, [one.id for one in meant], undo=undo)
        if new:
            names = [one.name for one in meant if one.id in new]
            action = "undo_drain" if undo else "drain"
            audit.note(
                connection,
                actor=by.name,
                action=action,
                subject={"workers": names},
                reason=by.reason,
            )
            _log.info("controlled", action=action, workers=names)
    return meant


def _named(there: Sequence[Present], worker: str) -> list[Present]:
    if of_host := [one for one in there if worker == "@" + one.name.partition("@")[2]]:
        return of_host
    called = [one for one in there if worker in (one.name, one.name.partition("@")[0])]
    fully = {one.name for one in called}
    if len(fully) == 1:  # of one name there may be several, of two releases
        return called
    if called:
        names = ", ".join(sorted(fully))
        raise UnknownWorker(f"Several workers are called {worker!r}: name one of {names}.")
    if worker.startswith("@"):
        hosts = {one.name.partition("@")[2] for one in there}
        raise UnknownWorker(
            f"No worker runs on a machine called {worker[1:]!r}; some run on: "
            f"{', '.join(sorted(hosts)) or 'none'}."
        )
    names = ", ".join(one.name for one in there) or "none"
    raise UnknownWorker(f"There is no worker {worker!r}; there are: {names}.")
