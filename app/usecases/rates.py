"""The rates that operators have set, as every process knows them."""

from collections.abc import Mapping

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.store.limits import limits_in_force
from app.usecases.copies import Copy

_log = structlog.get_logger(__name__)

RATES_FRESH_S = 1.0


class Rates:
    """This process's copy of the limits in force, at most `RATES_FRESH_S` seconds old.

    While the ledger is away the copy stays as it is: a limit must not lapse because of that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last: Mapping[str, float] = {}
        self._copy = Copy(self._read, RATES_FRESH_S)

    def __call__(self) -> Mapping[str, float]:
        """Messages a second by account, for those whose limit was set."""
        return self._copy()

    def forget(self) -> None:
        """Read them anew at the next look."""
        self._copy.forget()

    def _read(self) -> Mapping[str, float]:
        try:
            with self._engine.begin() as connection:
                self._last = limits_in_force(connection)
        except SQLAlchemyError as error:
            _log.warning("rates_not_read", reason=type(error).__name__)
        return self._last
