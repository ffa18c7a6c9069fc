"""A few faults, as a change must survive them; `make chaos` is the long run of the same code."""

import pytest

from tests.chaos.run import Wishes, run

SEED = 7


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifteen_faults() -> None:
    """What does not hold is told in full by the exception."""
    # A poison takes three workers and their leases, a clock has to be wrong for long.
    without = frozenset({"clock", "poison"})
    run(Wishes(SEED, 15, pace=3.0, expires_s=90.0, without=without), print)
