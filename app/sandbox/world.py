"""The world's state: what arrived where, and what people then did with it.

Everything here runs on one event loop. What it remembers is bounded, so it may run for weeks.
"""

import asyncio
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.sandbox.mail import read_mail, urls_in
from app.sandbox.outside import Outside
from app.sandbox.people import Act, Deed, Habits, plan

REMEMBERED_IDS = 200_000
REMEMBERED_ADDRESSES = 2_000
REMEMBERED_MESSAGES = 20  # of each address


@dataclass(slots=True)
class Shown:
    """A message on somebody's screen, and what has happened to it since."""

    channel: str
    to: str
    sender: str
    subject: str
    text: str
    ref: str
    urls: tuple[str, ...]
    at: datetime
    service: str = ""
    hook: str = ""
    deeds: list[str] = field(default_factory=list)


class World:
    """Mailboxes, handsets and chats, and the people before them."""

    def __init__(self, habits: Habits, outside: Outside) -> None:
        self._habits = habits
        self._outside = outside
        self._numbers = itertools.count(1)
        self._refs: OrderedDict[str, str] = OrderedDict()
        self._ordinals: Counter[tuple[str, str]] = Counter()
        self._screens: OrderedDict[tuple[str, str], deque[Shown]] = OrderedDict()
        self._waiting: set[asyncio.TimerHandle] = set()
        self._began = f"{datetime.now(UTC):%y%m%d%H%M%S}"  # refs differ from run to run
        self.counts: Counter[tuple[str, str]] = Counter()

    def close(self) -> None:
        """Nobody does anything any more."""
        for handle in self._waiting:
            handle.cancel()
        self._waiting.clear()

    def known(self, message_id: str) -> str | None:
        """Return the reference under which a message with this id was taken before."""
        return self._refs.get(message_id)

    def refuse(self, channel: str) -> None:
        """Count a message to somebody who does not exist."""
        self.counts[channel, "bounced"] += 1

    def take_mail(self, sender: str, to: str, mime: bytes, message_id: str = "") -> str:
        """A mail arrives, by SMTP or over the wire; return its reference."""
        mail = read_mail(mime)
        shown = self._shown("email", to, sender, mail.subject, mail.text, mail.urls)
        return self._arrive(shown, message_id)

    def take(
        self,
        channel: str,
        to: str,
        sender: str,
        text: str,
        service: str,
        hook: str,
        message_id: str,
    ) -> str:
        """A text or a chat message arrives; return its reference."""
        shown = self._shown(channel, to, sender, "", text, urls_in(text))
        shown.service, shown.hook = service, hook
        return self._arrive(shown, message_id)

    def latest(self, limit: int) -> list[Shown]:
        """Return the newest messages, newest first."""
        everything = itertools.chain.from_iterable(self._screens.values())
        return sorted(everything, key=lambda shown: shown.at, reverse=True)[:limit]

    def screens(self, limit: int) -> Iterator[tuple[str, str, list[Shown]]]:
        """Yield (channel, address, messages newest first), the latest used screen first."""
        for (channel, to), messages in itertools.islice(reversed(self._screens.items()), limit):
            yield channel, to, list(reversed(messages))

    def to(self, address: str) -> list[Shown]:
        """Return what `address` got on any channel, oldest first."""
        mine = (messages for (_, to), messages in self._screens.items() if to == address)
        return sorted(itertools.chain.from_iterable(mine), key=lambda shown: shown.at)

    def _shown(
        self, channel: str, to: str, sender: str, subject: str, text: str, urls: tuple[str, ...]
    ) -> Shown:
        ref = f"sbx-{self._began}-{next(self._numbers)}"
        return Shown(channel, to, sender, subject, text, ref, urls, datetime.now(UTC))

    def _arrive(self, shown: Shown, message_id: str) -> str:
        if message_id:
            self._refs[message_id] = shown.ref
            if len(self._refs) > REMEMBERED_IDS:
                self._refs.popitem(last=False)
        place = (shown.channel, shown.to)
        screen = self._screens.setdefault(place, deque(maxlen=REMEMBERED_MESSAGES))
        screen.append(shown)
        self._screens.move_to_end(place)
        if len(self._screens) > REMEMBERED_ADDRESSES:
            forgotten, _ = self._screens.popitem(last=False)
            del self._ordinals[forgotten]
        self.counts[shown.channel, "received"] += 1
        self._ordinals[place] += 1
        for act in plan(self._habits, shown.channel, shown.to, self._ordinals[place]):
            self._later(act.at_s, lambda act=act: self._do(shown, act))  # type: ignore[misc]  # mypy reads no default of a lambda
        return shown.ref

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        def now() -> None:
            self._waiting.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(delay_s, now)
        self._waiting.add(handle)

    def _do(self, shown: Shown, act: Act) -> None:
        shown.deeds.append(act.deed)
        self.counts[shown.channel, act.deed] += 1
        if act.deed is Deed.CLICKED:
            self._follow(shown, ("/c/", "/m/"), act.user_agent)
        elif shown.channel == "email":
            self._follow(shown, ("/o/",), act.user_agent)
        elif shown.hook:
            self._outside.receipt(
                shown.hook,
                {
                    "id": f"{shown.ref}-{act.deed}",
                    "ref": shown.ref,
                    "event": str(act.deed),
                    "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                },
            )

    def _follow(self, shown: Shown, paths: tuple[str, ...], user_agent: str) -> None:
        base = self._outside.home.public_url.rstrip("/")
        begins = tuple(base + path for path in paths)
        url = next((url for url in shown.urls if url.startswith(begins)), None)
        if url is not None:
            self._outside.fetch(url, user_agent)
