"""Tallies of all processes: each writes its own rows, a reader sums them.

Nobody waits for anybody: a row has one writer, but for those of processes that are gone, which
upkeep folds into the rows of the nil UUID.
"""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection, text

from app.store.session import as_rows

GONE = UUID(int=0)
SILENT_S = 3600.0
"""A process not heard of for this long is gone. One that came back yet (it was stopped, not dead)
would count twice, hence so long."""


def put_tallies(
    connection: Connection, worker_id: UUID, snapshot: Mapping[tuple[str, str], float]
) -> None:
    """Write what a process has counted since it began; what did not change is not written."""
    if not snapshot:
        return
    rows = [{"name": name, "labels": labels, "value": n} for (name, labels), n in snapshot.items()]
    connection.execute(
        text("""
            INSERT INTO tallies (worker_id, name, labels, value)
            SELECT :worker_id, r.name, r.labels, r.value
              FROM json_to_recordset(CAST(:rows AS json)) AS r(name text, labels text, value float8)
              LEFT JOIN tallies t
                ON t.worker_id = :worker_id AND t.name = r.name AND t.labels = r.labels
             WHERE t.value IS DISTINCT FROM r.value
            ON CONFLICT (worker_id, name, labels) DO UPDATE SET value = excluded.value"""),
        {"worker_id": worker_id, "rows": as_rows(rows)},
    )


def totals(connection: Connection) -> dict[tuple[str, str], float]:
    """The sums over all processes that ever were, by name and labels (a JSON object)."""
    rows = connection.execute(text("SELECT name, labels, sum(value) FROM tallies GROUP BY 1, 2"))
    return {(row[0], row[1]): row[2] for row in rows}


def fold_ended(connection: Connection, silent_s: float = SILENT_S) -> int:
    """Fold the tallies of processes that are gone into one set of rows; return how many rows."""
    folded: int = connection.execute(
        text("""
            WITH gone AS (
                DELETE FROM tallies t
                 WHERE worker_id <> :gone AND NOT EXISTS (
                       SELECT FROM workers w WHERE w.id = t.worker_id AND w.state <> 'stopped'
                          AND w.seen_at > now() - make_interval(secs => :silent))
                RETURNING name, labels, value
            ), summed AS (
                INSERT INTO tallies (worker_id, name, labels, value)
                SELECT :gone, name, labels, sum(value) FROM gone GROUP BY name, labels
                ON CONFLICT (worker_id, name, labels)
                DO UPDATE SET value = tallies.value + excluded.value
            )
            SELECT count(*) FROM gone"""),
        {"gone": GONE, "silent": silent_s},
    ).scalar_one()
    return folded
