"""Upkeep: what must not grow for ever is taken away, a little at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from app.domain.caps import remembered_s
from app.store.answers import forget_strangers
from app.store.catalog import KEPT_DAYS
from app.store.fleet import forget_unseen
from app.store.inbox import forget_inbox
from app.store.optouts import forget_ended
from app.store.persons import forget_counts
from app.store.refusals import forget_documents
from app.store.retention import forget_bodies, forget_texts
from app.store.tallies import fold_ended
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

INBOX_KEPT = timedelta(days=7)
REFUSED_DOCUMENTS_KEPT = timedelta(days=7)
COUNTS_KEPT = timedelta(days=2)
"""Counts under caps stay so long, or as long as the longest window that is declared: who took a cap
away by mistake has it back."""
PROCESSES_KEPT = timedelta(days=1)
STRANGERS_KEPT = timedelta(days=1)
AT_ONCE = 5_000
MOST = 20
"""Times that one run takes up to `AT_ONCE` rows of a kind, each in a transaction of its own."""

Part = tuple[str, Callable[[Connection], int]]
"""What is taken away, and how: some of it, saying how much."""


def upkeep(runtime: Runtime) -> dict[str, int]:
    """Take away what has served its time; return how many rows of each.

    A part that fails does not keep the others from theirs. The first failure is raised once they
    are done, so that somebody sees it.
    """
    counts: Counter[str] = Counter()
    failures: list[Exception] = []
    for name, part in _parts(runtime):
        try:
            counts[name] += _some(runtime, part)
        except Exception as error:  # noqa: BLE001  # raised below
            _log.error("upkeep_failed", part=name, exc_info=error)
            failures.append(error)
    if any(counts.values()):
        _log.info("upkeep", **counts)
    if failures:
        raise failures[0]
    return dict(counts)


def _some(runtime: Runtime, part: Callable[[Connection], int]) -> int:
    done = 0
    for _ in range(MOST):
        with runtime.engine.begin() as connection:
            taken = part(connection)
        done += taken
        if taken < AT_ONCE:
            break
    return done


def _parts(runtime: Runtime) -> Iterator[Part]:
    inbox, documents = INBOX_KEPT.total_seconds(), REFUSED_DOCUMENTS_KEPT.total_seconds()
    yield "inbox", partial(forget_inbox, after_s=inbox, limit=AT_ONCE)
    yield "refusal_documents", partial(forget_documents, after_s=documents, limit=AT_ONCE)
    brands = runtime.catalog().brands.values()
    kept = {brand.id: brand.keep_content_days for brand in brands}
    for brand_id, days in {**kept, NOBODYS: KEPT_DAYS}.items():
        yield "bodies", partial(forget_bodies, brand_id=brand_id, days=days, limit=AT_ONCE)
        yield "texts", partial(forget_texts, brand_id=brand_id, days=days, limit=AT_ONCE)
    counts = max(
        COUNTS_KEPT.total_seconds(), remembered_s(cap for one in brands for cap in one.rules.caps)
    )
    chance = runtime.jitter()
    yield "cap_counts", partial(forget_counts, before_s=counts, limit=AT_ONCE, chance=chance)
    yield "tallies_folded", fold_ended
    strangers = STRANGERS_KEPT.total_seconds()
    yield "strangers", partial(forget_strangers, after_s=strangers, limit=AT_ONCE)
    yield "suppressions", partial(forget_ended, limit=AT_ONCE)
    yield "processes", partial(forget_unseen, unseen_s=PROCESSES_KEPT.total_seconds())


NOBODYS = 0
"""Stands for the brand of what came from nobody known."""
