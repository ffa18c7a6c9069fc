"""Time zones by name."""

from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    """The zone of the IANA database that `name` names, such as Europe/Berlin; None where none."""
    try:
        return ZoneInfo(name)
    # A name that makes no file name is a ValueError; that of a folder, or one too long, an OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
