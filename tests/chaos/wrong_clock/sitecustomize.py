"""Read first by a Python whose time of day libfaketime shifts: let it sleep all the same.

libfaketime 0.9.10 (Debian 12) answers EINVAL to `clock_nanosleep` with an absolute time, which is
how Python sleeps since 3.11, when it is told to leave the monotonic clock alone. `select` it does
not touch.
"""

import select
import time


def sleep(seconds: float) -> None:
    """Sleep as `time.sleep` does."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = sleep
