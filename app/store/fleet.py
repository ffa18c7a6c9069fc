"""The fleet: a row for each process that works, kept fresh by that process alone.

A row's updates touch no index and stay within its page (HOT), so a beat each second leaves nothing
to vacuum but what the next beat cleans away.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Present:
    """A process that beat lately. `drain_asked_at`: since when it shall take no new work."""

    id: UUID
    name: str
    queues: Sequence[str]
    state: str
    release: str
    started_at: datetime
    seen_at: datetime
    drain_asked_at: datetime | None

    @property
    def consumes(self) -> bool:
        """Whether it takes new work from its queues."""
        return self.state == "running"


def note_beat(
    connection: Connection,
    worker_id: UUID,
    *,
    name: str,
    queues: Sequence[str],
    release: str,
    state: str,
) -> bool:
    """Say that a process is there; return whether it was asked to drain.

    The transaction need not reach the disk before it counts: the next beat says it again.
    """
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    row = connection.execute(
        text("""
            INSERT INTO workers (id, name, queues, release, state)
            VALUES (:id, :name, :queues, :release, :state)
            ON CONFLICT (id) DO UPDATE SET state = excluded.state, seen_at = now()
            RETURNING drain_asked_at IS NOT NULL"""),
        {
            "id": worker_id,
            "name": name,
            "queues": list(queues),
            "release": release,
            "state": state,
        },
    )
    return bool(row.scalar_one())


def present(connection: Connection, within_s: float) -> list[Present]:
    """The processes heard of within `within_s` seconds that have not ended, by name.

    Of several with one name, those that beat since the newest began are there beside it, as two
    releases are on one host; it was started in place of the others.
    """
    rows = connection.execute(
        text("""
            SELECT id, name, queues, state, release, started_at, seen_at, drain_asked_at
              FROM (SELECT *, max(started_at) OVER (PARTITION BY name) AS newest
                      FROM workers
                     WHERE state <> 'stopped'
                       AND seen_at > now() - make_interval(secs => :within)) there
             WHERE started_at = newest OR seen_at > newest
             ORDER BY name, started_at DESC"""),
        {"within": within_s},
    )
    return [Present(*row) for row in rows]


def ask_drain(connection: Connection, ids: Collection[UUID], *, undo: bool) -> list[UUID]:
    """Ask processes to drain, or not to any more; return those for which that is new."""
    rows = connection.execute(
        text("""
            UPDATE workers SET drain_asked_at = CASE WHEN :undo THEN NULL ELSE now() END
             WHERE id = ANY(CAST(:ids AS uuid[])) AND (drain_asked_at IS NOT NULL) = :undo
            RETURNING id"""),
        {"ids": list(ids), "undo": undo},
    )
    return list(rows.scalars())


def forget_unseen(connection: Connection, unseen_s: float) -> int:
    """Take away the rows of processes that nobody heard of for so long; return how many."""
    done = connection.execute(
        text("DELETE FROM workers WHERE seen_at < now() - make_interval(secs => :unseen)"),
        {"unseen": unseen_s},
    )
    return done.rowcount
