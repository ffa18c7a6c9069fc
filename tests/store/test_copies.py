"""What each process keeps a copy of: nobody waits for a connection while holding one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from app.store import catalog
from app.store.session import make_engine
from app.usecases.rates import Rates
from app.usecases.runtime import CatalogCache
from tests.store.conftest import House, intent

IN_TIME_S = 10.0


@pytest.fixture
def narrow(house: House, database_url: str) -> Iterator[Engine]:
    """An engine with two connections in all."""
    engine = make_engine(database_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("kind", [CatalogCache, Rates])
def test_a_copy_grown_old_is_read_while_others_hold_every_connection(
    narrow: Engine,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Engine], Any],
    forgotten: bool,
) -> None:
    if not forgotten:
        monkeypatch.setattr("app.usecases.runtime.CATALOG_FRESH_S", 0.0)
        monkeypatch.setattr("app.usecases.rates.RATES_FRESH_S", 0.0)
    copy = kind(narrow)
    copy()
    if forgotten:
        copy.forget()
    inside = threading.Barrier(2, timeout=IN_TIME_S)

    def within_a_transaction() -> Any:
        with narrow.begin() as connection:
            connection.execute(text("SELECT 1"))
            inside.wait()
            return copy()

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(within_a_transaction) for _ in range(2)]
        for one in both:
            one.result(timeout=IN_TIME_S)


def test_what_is_not_declared_is_looked_up_on_the_connection_at_hand(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.runtime.catalog()
    pool: Any = house.runtime.engine.pool
    held: list[int] = []
    load = catalog.load_catalog

    def counted(connection: Any) -> Any:
        held.append(pool.checkedout())
        return load(connection)

    monkeypatch.setattr("app.usecases.runtime.load_catalog", counted)
    [verdict] = house.accept(intent(topic="nowhere"))
    assert verdict.code == "unknown_topic"
    assert held == [1]
