"""Use cases side by side on real connections, of which one moves at a time.

Each runs in a thread of its own and stands still before every statement and every commit, until it
is told to go on. One that waits for another's lock is left waiting, and goes on by itself once the
lock is free. So a test chooses the moment in which two of them meet, or lets a seed choose.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event

DEADLINE_S = 30.0
COMMIT = "COMMIT"


class Actor(threading.Thread):
    """One use case. `at` is the statement before which it stands, None while it runs."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self.at: str | None = None
        self.pid = 0
        self.ended = False
        self.error: BaseException | None = None
        self._act = act
        self._go = threading.Semaphore(0)

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            self.error = error
        self.ended = True

    def stand(self, connection: Connection, statement: str) -> None:
        """Called by the actor's own thread, before it does something."""
        self.pid = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
        self.at = " ".join(statement.split())
        assert self._go.acquire(timeout=DEADLINE_S), f"{self.name} was left standing"

    def release(self) -> None:
        self.at = None
        self._go.release()


class Interleaving:
    """The actors, and what they did in which order: `history` holds (actor, statement) pairs."""

    def __init__(self, actors: Mapping[str, Actor], watch: psycopg.Connection) -> None:
        self.actors = actors
        self.history: list[tuple[str, str]] = []
        self._watch = watch

    def go(self, name: str, until: str | None = None) -> bool:
        """Let an actor go on, to its end or until it stands before a statement with `until`.

        Return False when it waits for a lock instead.
        """
        actor = self.actors[name]
        while self._come_to_rest(actor):
            if actor.at is None:  # it has ended
                assert until is None, f"{name} never came to {until}"
                return True
            if until is not None and until in actor.at:
                return True
            self._step(actor)
        return False

    def finish(self) -> None:
        """Let all of them go on to their ends."""
        waiting = list(self.actors)
        while waiting:
            waiting = [name for name in waiting if not self.go(name)]

    def by_chance(self, chance: Random) -> None:
        """Let chance choose who goes on, step by step, until all have ended."""
        while True:
            able = [a for a in self.actors.values() if self._come_to_rest(a) and a.at is not None]
            if not able:
                assert all(actor.ended for actor in self.actors.values()), "all wait for locks"
                return
            self._step(chance.choice(able))

    def place(self, name: str, part: str) -> int | None:
        """Where in the history the commit of an actor's statement stands; None: never done."""
        places = [n for n, (who, what) in enumerate(self.history) if who == name and part in what]
        if not places:
            return None
        return next(
            n
            for n, (who, what) in enumerate(self.history)
            if n > places[0] and who == name and what == COMMIT
        )

    def _step(self, actor: Actor) -> None:
        assert actor.at is not None
        self.history.append((actor.name, actor.at))
        actor.release()
        self._come_to_rest(actor)

    def _come_to_rest(self, actor: Actor) -> bool:
        """Wait until the actor stands, has ended (True) or waits for a lock (False)."""
        deadline = time.monotonic() + DEADLINE_S
        while actor.at is None and not actor.ended:
            asked = self._watch.execute("SELECT pg_blocking_pids(%s)", (actor.pid,)).fetchone()
            if asked and asked[0] and actor.at is None and not actor.ended:
                return False
            assert time.monotonic() < deadline, f"{actor.name} does not come to rest"
        if actor.error is not None:
            raise actor.error
        return True


@contextmanager
def side_by_side(engine: Engine, url: str, **acts: Callable[[], object]) -> Iterator[Interleaving]:
    """Start use cases by name, each standing before its first statement."""

    def stand(connection: Connection, statement: str = COMMIT) -> None:
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            actor.stand(connection, statement)

    def before_statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        stand(connection, statement)

    event.listen(engine, "before_cursor_execute", before_statement)
    event.listen(engine, "commit", stand)
    actors = {name: Actor(name, act) for name, act in acts.items()}
    try:
        with psycopg.connect(url, autocommit=True) as watch:
            for actor in actors.values():
                actor.start()
            interleaving = Interleaving(actors, watch)
            yield interleaving
            interleaving.finish()
    finally:
        event.remove(engine, "before_cursor_execute", before_statement)
        event.remove(engine, "commit", stand)
        for actor in actors.values():
            actor.release()
            actor.join(DEADLINE_S)
