"""Statements of consent, as tests make them."""

from collections.abc import Sequence

from app.usecases.consent.consents import Statement, say
from app.usecases.runtime import Runtime

__all__ = ["Statement", "record"]


def record(runtime: Runtime, brand_id: int, statements: Sequence[Statement]) -> list[int]:
    """Write statements down in a transaction of their own; return the customers of the new ones."""
    with runtime.engine.begin() as connection:
        return say(connection, brand_id, statements)
