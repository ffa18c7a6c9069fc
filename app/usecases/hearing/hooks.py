"""Hooks: what providers report is verified and kept; a task reads it later."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from app.channels.contract import HookRequest
from app.store.inbox import Arrival, keep_arrivals
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)

PATH = ":path"
"""Beside the headers stands where the vendor called us, below the account's own address."""
KEPT_HEADERS = ("content-type",)
"""What reading needs besides the body; signatures have served their purpose once verified."""


class UnknownHook(Exception):
    """No account of this name reads webhooks."""


def verified(runtime: Runtime, account_name: str, request: HookRequest) -> tuple[Arrival, bytes]:
    """Verify a webhook without asking anybody; return what to keep, and the vendor's JSON answer.

    The answer is empty where the vendor wants none. Raises `UnknownHook` and `BadSignature`.
    """
    account = runtime.accounts.get(account_name)
    reader = None if account is None else account.reader
    if account is None or reader is None:
        raise UnknownHook("no account of this name reads webhooks")
    reader.verify(request)
    answer = getattr(reader, "answer", None)
    headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
    if request.path:
        headers[PATH] = request.path
    # By its body alone: many vendors sign nothing else, and a repeat under another address would be
    # new each time.
    name = blake2b(request.body, digest_size=16).hexdigest()
    arrival = Arrival(account.name, name, request.body, headers)
    return arrival, b"" if answer is None else answer(request)


def keep(runtime: Runtime, arrivals: Sequence[Arrival]) -> tuple[int, frozenset[int]]:
    """Keep what arrived in one transaction; return how much is new, and which were not kept.

    Where one row cannot be kept, each is kept by itself. Raises when the ledger is away: then
    nothing was kept.
    """
    try:
        with runtime.engine.begin() as connection:
            new = keep_arrivals(connection, arrivals)
    except _OF_ONE_ROW:
        if len(arrivals) == 1:
            _log.error("arrival_not_kept", account=arrivals[0].source, exc_info=True)
            return 0, frozenset({0})
    else:
        for source, count in Counter(one.source for one in arrivals).items():
            runtime.tally.add("converge_inbox_kept_total", count, source=source)
        return new, frozenset()
    alone = [keep(runtime, [arrival]) for arrival in arrivals]
    return (
        sum(new for new, _ in alone),
        frozenset(n for n, (_, failed) in enumerate(alone) if failed),
    )


_OF_ONE_ROW: tuple[type[SQLAlchemyError], ...] = (DataError, IntegrityError)
