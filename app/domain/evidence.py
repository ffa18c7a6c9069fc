"""How surely an event shows that a person saw a message, and who really fetched that pixel.

The order of grades is the design's: `sent < delivered < opened_by_machine < opened < clicked <
replied`. A policy names the grade at which it calls an intent seen.

Fetches of pixels and links come from people, from proxies that act for people, and from machines
that fetch on their own. What is known of the plain cases:

- Apple Mail Privacy Protection fetches every image soon after delivery, whether or not the message
  is ever looked at, and calls itself just `Mozilla/5.0` (wordtothewise.com/2021/09/apple-mpp,
  help.socketlabs.com "Identifying Apple MPP Opens"). A machine.
- Gmail has two fetchers. `GoogleImageProxy` (`via ggpht.com`) fetches when a person opens the
  message; the prefetch for a Gmail that is open in a browser goes by a frozen `Chrome/42 … Edge/12
  Mozilla/5.0` (bird.com, "Gmail is pre-fetching images"). The first is a person, the second not.
- `YahooMailProxy` fetches for a person who opens the message (litmus.com, "Yahoo! Mail introduces
  image caching"). A person.
- A proxy is not a prefetcher (wordtothewise.com/2024/08/prefetches-and-proxies); but any fetch
  within seconds of hand-over is a scanner's or a prefetch, whatever it calls itself: so a mail
  proxy at delivery time is a machine too.
- Gateways (Barracuda, Proofpoint, Mimecast, Safe Links …) follow links before the recipient can;
  many hide behind an ordinary browser's name. Only the clock, or their network, tells on those.
- An image proxy never follows a person's click: the person's own browser does.
- Apple publishes where its relay comes from (mask-api.icloud.com/egress-ip-ranges.csv): images that
  are fetched from there are mostly prefetched, links are followed by people who browse through it.
- Scanners follow every link of a message at once; nobody reads that fast. Such a burst shows only
  after its first fetch, so fetches are judged a moment after they came in, together.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from types import MappingProxyType
from typing import Final, TypeVar

from app.domain.vocabulary import EventType


class Evidence(IntEnum):
    """Grades of evidence, weakest first; compare them with `<` and `>=`."""

    SENT = 0
    DELIVERED = 1
    OPENED_BY_MACHINE = 2
    OPENED = 3
    CLICKED = 4
    REPLIED = 5

    @property
    def word(self) -> str:
        """As policies, events and reports write it."""
        return self.name.lower()

    @property
    def probability(self) -> float:
        """How likely it is that a person saw it: assumed, until it is learned per customer."""
        return _PROBABILITIES[self]

    @classmethod
    def parse(cls, word: str) -> "Evidence":
        """Return the grade that `word` names (`read` is `opened`).

        Raises `ValueError` with the words there are.
        """
        try:
            return cls["OPENED" if word == "read" else word.upper()]
        except KeyError:
            words = ", ".join(grade.word for grade in cls)
            raise ValueError(f"{word!r} is no grade of evidence; there are {words}") from None


_PROBABILITIES: Final[Mapping[Evidence, float]] = MappingProxyType(
    {
        Evidence.SENT: 0.2,
        Evidence.DELIVERED: 0.3,
        Evidence.OPENED_BY_MACHINE: 0.35,
        Evidence.OPENED: 0.9,
        Evidence.CLICKED: 0.98,
        Evidence.REPLIED: 1.0,
    }
)

# A read receipt says what an open says. Whoever complains or unsubscribes does so with this very
# message before them. A bounce or a failure shows nothing.
_EVIDENCE: Final[Mapping[EventType, Evidence]] = MappingProxyType(
    {
        EventType.DELIVERED: Evidence.DELIVERED,
        EventType.OPENED_BY_MACHINE: Evidence.OPENED_BY_MACHINE,
        EventType.OPENED: Evidence.OPENED,
        EventType.READ: Evidence.OPENED,
        EventType.COMPLAINED: Evidence.OPENED,
        EventType.UNSUBSCRIBED: Evidence.OPENED,
        EventType.CLICKED: Evidence.CLICKED,
        EventType.REPLIED: Evidence.REPLIED,
    }
)


def evidence_of(event: EventType) -> Evidence | None:
    """Return what an event is evidence of; None: of nothing (a bounce, a failure)."""
    return _EVIDENCE.get(event)


def satisfies(evidence: Evidence | None, seen_at: Evidence | str) -> bool:
    """Return whether `evidence` is enough for a policy that is sure at `seen_at`."""
    wanted = seen_at if isinstance(seen_at, Evidence) else Evidence.parse(seen_at)
    return evidence is not None and evidence >= wanted


AnyNetwork = TypeVar("AnyNetwork", IPv4Network, IPv6Network)


class Networks:
    """Networks, of which there may be hundreds of thousands."""

    __slots__ = ("_ranges",)

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        given = list(networks)
        self._ranges = {
            4: _ranges(one for one in given if one.version == 4),
            6: _ranges(one for one in given if one.version == 6),
        }

    def __contains__(self, ip: str) -> bool:
        """Whether an address lies in one of them; what is no address does not."""
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if address.version == 6 else None
        address = mapped or address
        starts, ends = self._ranges[address.version]
        place = bisect_right(starts, int(address)) - 1
        return place >= 0 and int(address) <= ends[place]


def _ranges(networks: Iterable[AnyNetwork]) -> tuple[list[int], list[int]]:
    """Where networks of one version begin and end, in order, none within another."""
    apart = list(collapse_addresses(networks))
    return (
        [int(one.network_address) for one in apart],
        [int(one.broadcast_address) for one in apart],
    )


NOWHERE: Final = Networks()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What makes a fetch a machine's, beyond the names that machines give themselves.

    `grace_s`: seconds after hand-over in which no person can have opened yet. `networks`: those of
    the gateways that an operator knows, `prefetching` those whence images are fetched unseen;
    vendors change theirs, so none is built in. `burst_s`: what follows so many links of a message
    as nobody does within so many seconds is a machine.
    """

    grace_s: float = 3.0
    networks: Networks = NOWHERE
    prefetching: Networks = NOWHERE
    burst_s: float = 2.0


BURST_LINKS: Final = 3
"""Links that nobody follows within seconds; of a message that has but two, both."""


def is_burst(followed: Collection[int], links: int) -> bool:
    """Whether these links of a message, followed within moments, were followed by a machine.

    `links` is how many the message has. One link tells nothing, however often it is followed.
    """
    return len(set(followed)) >= min(max(links, 2), BURST_LINKS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fetch counts as, and why: a short code that is kept with the event."""

    event: EventType
    reason: str


_SCANNERS: Final = re.compile(
    r"bingpreview|safelinks|barracuda|proofpoint|mimecast|ironport|ciscosecure|fireeye|trendmicro"
    r"|fortimail|fortiguard|sophos|symantec|messagelabs|forcepoint|zscaler|bitdefender|kaspersky"
    r"|checkpoint|virustotal|urlscan|spamassassin|rspamd",
    re.IGNORECASE,
)
_ROBOTS: Final = re.compile(
    r"(?<!cu)bot\b|crawl|spider|slurp|preview|prefetch|monitor|facebookexternalhit|whatsapp/"
    r"|skypeuripreview|headless|phantomjs|puppeteer|playwright|selenium"
    r"|python|aiohttp|httpx|curl/|wget|libwww|java/|okhttp|go-http-client|apache-httpclient"
    r"|node-fetch|axios|undici|guzzle|ruby|scrapy|postman",
    re.IGNORECASE,
)
_APPLE_PREFETCH: Final = re.compile(r"mozilla/5\.0", re.IGNORECASE)
_GMAIL_PREFETCH: Final = re.compile(r"chrome/42\.0\.2311\.135 safari/537\.36 edge/12\.246")
_MAIL_PROXIES: Final = re.compile(r"googleimageproxy|ggpht\.com|yahoomailproxy", re.IGNORECASE)


def classify_open(
    user_agent: str | None,
    ip: str | None,
    method: str,
    seconds_since_handover: float | None,
    suspicion: Suspicion = Suspicion(),
) -> Verdict:
    """Tell whether a fetch of the pixel is a person's `opened` or `opened_by_machine`.

    `seconds_since_handover` is None while the hand-over has not been recorded: then the fetch came
    before settle, so it is a machine's.
    """
    reason = _machine(user_agent, ip, method, seconds_since_handover, suspicion)
    if not reason and (ip or "") in suspicion.prefetching:
        reason = "prefetch_network"
    if reason:
        return Verdict(EventType.OPENED_BY_MACHINE, reason)
    proxied = _MAIL_PROXIES.search(user_agent or "") is not None
    return Verdict(EventType.OPENED, "mail_proxy" if proxied else "person")


def classify_click(
    user_agent: str | None,
    ip: str | None,
    method: str,
    seconds_since_handover: float | None,
    suspicion: Suspicion = Suspicion(),
) -> Verdict:
    """Tell whether a followed link is a person's `clicked`, or else `opened_by_machine`.

    The arguments are those of `classify_open`.
    """
    reason = _machine(user_agent, ip, method, seconds_since_handover, suspicion)
    if not reason and _MAIL_PROXIES.search(user_agent or ""):
        reason = "mail_proxy"
    if reason:
        return Verdict(EventType.OPENED_BY_MACHINE, reason)
    return Verdict(EventType.CLICKED, "person")


def _machine(
    user_agent: str | None,
    ip: str | None,
    method: str,
    seconds_since_handover: float | None,
    suspicion: Suspicion,
) -> str:
    """The reason for which this is a machine, or nothing."""
    if method.upper() != "GET":
        return "method"
    return (
        _machine_by_name(user_agent or "")
        or ("scanner_network" if (ip or "") in suspicion.networks else "")
        or _too_early(seconds_since_handover, suspicion.grace_s)
    )


def _machine_by_name(user_agent: str) -> str:
    name = user_agent.strip()
    if not name:
        return "no_user_agent"
    if _APPLE_PREFETCH.fullmatch(name):
        return "apple_prefetch"
    if _GMAIL_PREFETCH.search(name.lower()):
        return "gmail_prefetch"
    if _SCANNERS.search(name):
        return "scanner"
    return "robot" if _ROBOTS.search(name) else ""


def _too_early(seconds: float | None, grace_s: float) -> str:
    return "too_early" if seconds is None or seconds < grace_s else ""
