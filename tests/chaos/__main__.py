"""`python -m tests.chaos --seed N --faults 200`: break everything for a while, and lose nothing.

Prints the seed, a line for each fault and a closing table. The exit status is 0 when everything
held, 1 when something did not: then also what, all that was broken before it, and the whole story
of the intents that it is about. A seed draws the same faults again; what they meet is up to chance.
"""

import argparse
import os
import secrets
import signal
import sys
import time

from app.observe.logging import configure_logging
from tests.chaos.run import Broken, Wishes, run
from tests.chaos.schedule import CARDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="left out: drawn, and printed")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--pace", type=float, default=1.0, help="2: twice as often, half as long")
    parser.add_argument("--load", type=int, default=8, help="intents in a chunk, every half second")
    parser.add_argument("--without", action="append", default=[], choices=sorted(CARDS))
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    for name in [name for name in os.environ if name.startswith("CONVERGE_")]:
        del os.environ[name]
    configure_logging("error", "json")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what it started
    _say(f"seed {seed}, {given.faults} faults")
    wishes = Wishes(
        seed=seed,
        faults=given.faults,
        pace=given.pace,
        per_chunk=given.load,
        without=frozenset(given.without),
    )
    began = time.monotonic()
    try:
        run(wishes, _say)
    except Broken as broken:
        _say(str(broken))
        return 1
    _say(f"seed {seed}: everything held, {time.monotonic() - began:.0f} s")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
