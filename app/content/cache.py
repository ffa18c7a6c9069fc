"""Keeping what is dear to make: compiled contents, by what they were made of."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Up to `size` values by key; the one kept longest goes first.

    Threads may share it: the worst that a race does is to make a value twice.
    """

    __slots__ = ("_size", "_values")

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for `key`, made if it is not there; what `make` raises is passed on."""
        found = self._values.get(key)
        return self.keep(key, make()) if found is None else found

    def find(self, key: Hashable) -> T | None:
        """The value for `key`, or None."""
        return self._values.get(key)

    def keep(self, key: Hashable, value: T) -> T:
        """Keep a value, and return it."""
        while len(self._values) >= self._size:
            self._values.pop(next(iter(self._values), key), None)
        self._values[key] = value
        return value
