"""Giving way: what the ledger undid so that others could go on is done again from its beginning."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import structlog
from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy.exc import OperationalError

_log = structlog.get_logger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")

TRIES = 5


def gave_way(error: OperationalError) -> bool:
    """Whether the ledger undid a transaction for the sake of others, and would take it now."""
    return isinstance(error.orig, DeadlockDetected | SerializationFailure)


def again_if_undone(act: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let what owns one transaction be tried again, a few times, where it had to give way.

    Locks are taken in one order everywhere, so this is for what cannot know its locks beforehand,
    and for what nobody thought of. It goes around whole transactions alone: of one that was undone
    nothing is left, in the ledger or in `act`.
    """

    @wraps(act)
    def tried(*given: _P.args, **named: _P.kwargs) -> _T:
        for _ in range(TRIES - 1):
            try:
                return act(*given, **named)
            except OperationalError as error:
                if not gave_way(error):
                    raise
                _log.info("gave_way", action=act.__name__.strip("_"))
        return act(*given, **named)

    return tried
