"""Tallies of processes add up, also when the processes are gone."""

from uuid import UUID, uuid4

from app.store.tallies import GONE, fold_ended, put_tallies, totals
from app.usecases.operating.upkeep import upkeep
from tests.store.conftest import House

TICKS = ("converge_dispatch_ticks_total", "{}")
SENT = ("converge_attempts_total", '{"account": "relay", "outcome": "accepted"}')


def _put(house: House, worker: UUID, **counts: float) -> None:
    with house.runtime.engine.begin() as connection:
        put_tallies(connection, worker, {TICKS: counts["ticks"], SENT: counts["sent"]})


def _seen(house: House, worker: UUID, state: str, ago_s: float) -> None:
    house.execute(
        "INSERT INTO workers (id, name, state, seen_at) "
        "VALUES (:id, 'w', :state, now() - make_interval(secs => :ago))",
        id=worker,
        state=state,
        ago=ago_s,
    )


def _totals(house: House) -> dict[tuple[str, str], float]:
    with house.runtime.engine.begin() as connection:
        return totals(connection)


def test_a_snapshot_replaces_the_one_before_and_processes_add_up(house: House) -> None:
    one, other = uuid4(), uuid4()
    _put(house, one, ticks=1, sent=10)
    written = house.rows("SELECT xmin FROM tallies WHERE name = :name", name=SENT[0])
    _put(house, one, ticks=2, sent=10)
    assert house.rows("SELECT xmin FROM tallies WHERE name = :name", name=SENT[0]) == written
    _put(house, other, ticks=5, sent=1)
    assert _totals(house) == {TICKS: 7, SENT: 11}


def test_who_is_gone_is_folded_once_and_who_works_is_left_alone(house: House) -> None:
    lives, stopped, silent, unknown = (uuid4() for _ in range(4))
    _seen(house, lives, "draining", 60)
    _seen(house, stopped, "stopped", 0)
    _seen(house, silent, "running", 7200)
    for worker in (lives, stopped, silent, unknown):
        _put(house, worker, ticks=1, sent=100)
    before = _totals(house)
    assert upkeep(house.runtime)["tallies_folded"] == 6
    assert upkeep(house.runtime)["tallies_folded"] == 0
    assert _totals(house) == before == {TICKS: 4, SENT: 400}
    assert {row[0] for row in house.rows("SELECT worker_id FROM tallies")} == {lives, GONE}
    _put(house, lives, ticks=2, sent=100)
    assert _totals(house)[TICKS] == 5


def test_several_folds_add_up(house: House) -> None:
    for _ in range(2):
        _put(house, uuid4(), ticks=1, sent=1)
        with house.runtime.engine.begin() as connection:
            assert fold_ended(connection) == 2
    assert _totals(house) == {TICKS: 2, SENT: 2}
