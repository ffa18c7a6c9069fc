"""What a tick of the dispatcher costs with few and with very many rows that are not yet due."""

import statistics
import time

import psycopg

from app.bootstrap import build
from app.store import migrate
from app.usecases.delivering.dispatch import dispatch
from app.usecases.runtime import Runtime
from benchmarks.place import Place

_WARM_UP = 10
# Foreign keys are not checked while this is filled: the rows are made to fit.
_FILL = """
    SET session_replication_role = replica;
    INSERT INTO customers (brand_id, ref) VALUES (1, 'cust-1');
    INSERT INTO intents (id, brand_id, sender_id, topic_id, customer_id, content_id, policy_id,
                         key, fingerprint, kind, urgency, data, expires_at, decide_at)
    SELECT md5(n::text)::uuid, 1, 1, 1, 1, 1, 1, n::text, '\\x00', 'transactional', 'bulk', '{{}}',
           now() + interval '3 days', now() + interval '2 days' + n * interval '1 ms'
      FROM generate_series(1, {rows}) AS g(n);
    INSERT INTO deliveries (intent_id, brand_id, sender_id, endpoint_id, step, channel, lane,
                            account, state, due_at)
    SELECT md5(n::text)::uuid, 1, 1, 1, 0, 'email', (ARRAY['bulk', 'normal'])[1 + n / 2 % 2],
           'relay', (ARRAY['planned', 'sent'])[1 + n % 2],
           now() + interval '1 day' + n * interval '1 ms'
      FROM generate_series(1, {rows}) AS g(n)"""


def tick_ratio(place: Place, many: int, few: int, ticks: int) -> tuple[float, float, float]:
    """Median seconds of a tick over `few` and over `many` rows, taken in turns, and the ratio."""
    runtimes = [_ledger(place, "bench_few", few), _ledger(place, "bench_many", many)]
    took: list[list[float]] = [[], []]
    for turn in range(_WARM_UP + ticks):
        for runtime, times in zip(runtimes, took, strict=True):
            started = time.perf_counter()
            dispatch(runtime)
            if turn >= _WARM_UP:
                times.append(time.perf_counter() - started)
    for runtime, name in zip(runtimes, ("bench_few", "bench_many"), strict=True):
        runtime.engine.dispose()
        place.execute(f"DROP DATABASE {name} WITH (FORCE)")
    small, large = (statistics.median(times) for times in took)
    return small, large, large / small


def _ledger(place: Place, name: str, rows: int) -> Runtime:
    """A ledger of its own on the same server, half of its rows planned and half handed over."""
    place.execute(f"CREATE DATABASE {name}")
    url = f"{place.settings.database_url.rpartition('/')[0]}/{name}"
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL.format(rows=rows))
        connection.execute("VACUUM ANALYZE")
    settings = place.settings.model_copy(update={"database_url": url})
    return build(settings)
