"""What the people of the sandbox do with a message: pure, and the same again for the same seed.

Rates: 90 % of texts are read, 40 % of mails opened (the figures that escalation lives on), and
about 75 % of chats. These behave as they are named, whatever the rates:

| mail or handle | number | behaviour |
|---|---|---|
| `open@sandbox.example` | +12025550101 | reads everything, follows the first link |
| `ignore@sandbox.example` | +12025550102 | gets everything, looks at nothing |
| `bounce@sandbox.example` | +12025550103 | does not exist |
| `slow@sandbox.example` | +12025550104 | is accepted late (but not by SMTP) and reads late |

`open+anything@` is `open@`, and `@open:sandbox.example` is its Matrix form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import Final

READS: Final[Mapping[str, float]] = MappingProxyType(
    {"email": 0.40, "sms": 0.90, "chat": 0.75, "social": 0.60}
)
FOLLOWS_LINK: Final = 0.35  # of those who read
MAILBOXES_PREFETCHED: Final = 0.25
SLOW_ACCEPT_S: Final = 2.0
SLOW_READ_S: Final = 25.0
LONGEST_PAUSE_S: Final = 15.0

BROWSERS: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile",
)
PREFETCHERS: Final = (
    "Mozilla/5.0",  # Apple Mail Privacy Protection
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)


class Nature(StrEnum):
    """How an address behaves."""

    OPENS = "open"
    IGNORES = "ignore"
    BOUNCES = "bounce"
    SLOW = "slow"
    OWN_MIND = ""


class Deed(StrEnum):
    """What happens with a message: to the handset, by a machine, by the person."""

    DELIVERED = "delivered"
    PREFETCHED = "prefetched"
    READ = "read"
    CLICKED = "clicked"


@dataclass(frozen=True, slots=True)
class Act:
    """A deed, `at_s` seconds after the message arrived, by what calls itself `user_agent`."""

    at_s: float
    deed: Deed
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the people of one run are.

    `speed` divides their pauses. `patience_s` is not scaled: nobody opens or clicks earlier, since
    what opens within seconds of hand-over is taken for a machine. `acts` False: nobody does a
    thing; addresses that bounce still bounce.
    """

    seed: int = 0
    speed: float = 1.0
    patience_s: float = 4.0
    acts: bool = True


_NUMBERS: Final[Mapping[str, Nature]] = MappingProxyType(
    {
        "+12025550101": Nature.OPENS,
        "+12025550102": Nature.IGNORES,
        "+12025550103": Nature.BOUNCES,
        "+12025550104": Nature.SLOW,
    }
)


def nature_of(address: str) -> Nature:
    """Return how `address` behaves: as it is named, or with a mind of its own."""
    if address in _NUMBERS:
        return _NUMBERS[address]
    local, _, domain = address.strip().lower().lstrip("@").replace(":", "@").rpartition("@")
    if domain != "sandbox.example":
        return Nature.OWN_MIND
    try:
        return Nature(local.partition("+")[0])
    except ValueError:
        return Nature.OWN_MIND


def plan(habits: Habits, channel: str, address: str, ordinal: int) -> tuple[Act, ...]:
    """Return what will happen with the `ordinal`-th message to `address`, in order of time."""
    nature = nature_of(address)
    if not habits.acts or nature is Nature.BOUNCES:
        return ()
    chance = Random(f"{habits.seed}/{channel}/{address}/{ordinal}")  # noqa: S311  # no secret
    acts = [_arrival(channel, address, habits, chance)]
    reads = chance.random() < READS[channel]
    follows = chance.random() < FOLLOWS_LINK
    if nature is Nature.IGNORES or (nature is Nature.OWN_MIND and not reads):
        return tuple(act for act in acts if act)
    pause = min(chance.expovariate(1 / 4), LONGEST_PAUSE_S)
    if nature is Nature.SLOW:
        pause += SLOW_READ_S
    browser = chance.choice(BROWSERS)
    # Read receipts of a handset are believed at once; a pixel that early is not.
    earliest = habits.patience_s if channel == "email" else 0.7
    read_at = earliest + pause / habits.speed
    acts.append(Act(read_at, Deed.READ, browser))
    if follows or nature is Nature.OPENS:
        click_at = max(read_at, habits.patience_s) + chance.uniform(0.5, 2.0) / habits.speed
        acts.append(Act(click_at, Deed.CLICKED, browser))
    return tuple(act for act in acts if act)


def _arrival(channel: str, address: str, habits: Habits, chance: Random) -> Act | None:
    """What the receiving side does by itself: a handset confirms; some mailboxes fetch images."""
    soon = chance.uniform(0.1, 0.6)
    if channel != "email":
        return Act(soon, Deed.DELIVERED)
    mailbox = Random(f"{habits.seed}/mailbox/{address}")  # noqa: S311  # no secret
    if mailbox.random() < MAILBOXES_PREFETCHED:
        return Act(soon, Deed.PREFETCHED, mailbox.choice(PREFETCHERS))
    return None
