"""A content document as one channel says it, and what rendering needs to know of a person.

A document is `{"subject", "text", "actions": [{"label", "url"}], "must_keep", "overrides"}` as the
producer's wire format validated it; here it is compiled.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from app.content.language import Texts
from app.content.marks import fill_values, is_http, mark, url_marks
from app.content.problem import ContentRefused
from app.content.prose import MAX_LINKS, Href, Prose, direct
from app.domain.body import Body
from app.domain.tokens import Links
from app.domain.vocabulary import Channel

Tracking: TypeAlias = Literal["off", "clicks", "all"]

MAX_FACTS: Final = 50
_FORMS_KEPT = 64

# Links are numbered so that a redirect needs to look at one text alone: actions first, then each
# text in the order in which it stands here.
ACTIONS: Final = 0
_TEXT: Final = 1
_OVERRIDES: Final = {channel: 2 + place for place, channel in enumerate(Channel)}


class Personal(NamedTuple):
    """What differs from message to message.

    `date` is an RFC 5322 date (`mail_date`); the customer's name and address serve mail alone.
    """

    delivery_id: int
    data: Mapping[str, Any]
    links: Links
    to_address: str = ""
    customer_name: str | None = None
    date: str = ""
    customer_id: int = 0


class Parts(NamedTuple):
    """A content's marked texts: the same for everybody unless the content has control flow."""

    subject: str | None
    text: str
    actions: tuple[tuple[str, str], ...]
    facts: tuple[str, ...]


class Content:
    """One document for one channel: its texts, compiled. Raises `ContentRefused`."""

    __slots__ = (
        "_actions",
        "_facts",
        "_has_subject",
        "_plain",
        "names",
        "part",
        "text_field",
        "texts",
    )

    def __init__(self, document: Mapping[str, Any], channel: Channel) -> None:
        override = (document.get("overrides") or {}).get(channel.value)
        self.text_field = "content.text" if override is None else f"content.overrides.{channel}"
        self.part = _TEXT if override is None else _OVERRIDES[channel]
        subject = document.get("subject")
        actions = document.get("actions") or []
        facts = document.get("must_keep") or []
        if len(actions) > MAX_LINKS:
            raise ContentRefused("content.actions", f"more than {MAX_LINKS} actions")
        if len(facts) > MAX_FACTS:
            raise ContentRefused("content.must_keep", f"more than {MAX_FACTS} facts")
        fields = {"content.subject": subject} if subject is not None else {}
        fields[self.text_field] = (document.get("text") or "") if override is None else override
        for place, action in enumerate(actions):
            fields[f"content.actions[{place}].label"] = action["label"]
            fields[f"content.actions[{place}].url"] = action["url"]
        for place, fact in enumerate(facts):
            fields[f"content.must_keep[{place}]"] = fact
        self._has_subject = subject is not None
        self._actions = len(actions)
        self.texts = Texts(fields)
        self.names = self.texts.names
        self._plain = self._parts(self.texts.marked) if self.texts.fixed else None

    @property
    def plain(self) -> Parts | None:
        """The parts where they are the same for everybody."""
        return self._plain

    def expand(self, data: Mapping[str, Any]) -> tuple[Parts, list[str]]:
        """The parts for one person and the values for their marks; raises `ContentRefused`."""
        expansion = self.texts.expand(data)
        return self._plain or self._parts(expansion.marked), expansion.values

    def _parts(self, marked: Sequence[str]) -> Parts:
        rest = list(marked)
        subject = rest.pop(0) if self._has_subject else None
        text = rest.pop(0)
        pairs = rest[: 2 * self._actions]
        actions = []
        for place in range(self._actions):
            url = url_marks(pairs[2 * place + 1].strip())
            if not is_http(url):
                field = f"content.actions[{place}].url"
                raise ContentRefused(field, "must be an http or https URL")
            actions.append((pairs[2 * place], url))
        return Parts(subject, text, tuple(actions), tuple(rest[2 * self._actions :]))


B_co = TypeVar("B_co", bound=Body, covariant=True)


class Skeleton(Generic[B_co]):
    """A content compiled for one channel and sender: renders one person's body in microseconds.

    Safe to share between threads. A content with control flow has a form for each way that its
    control flow has gone; the forms used lately are kept.
    """

    __slots__ = ("_content", "_form")

    def __init__(
        self,
        content: Content,
        build: Callable[[Parts], Callable[[list[str], Personal], B_co]],
    ) -> None:
        self._content = content
        self._form = lru_cache(_FORMS_KEPT)(build)
        if content.plain is not None:
            self._form(content.plain)

    def render(self, personal: Personal) -> B_co:
        """The body for one delivery; `ContentRefused` concerns this message alone."""
        parts, values = self._content.expand(personal.data)
        return self._form(parts)(values, personal)


class Target(NamedTuple):
    """Where a link leads, and how many links its message has."""

    url: str
    links: int


def link_target(document: Mapping[str, Any], data: Mapping[str, Any], index: int) -> Target:
    """What is behind link `index` of a message; raises `ContentRefused` where it has none.

    Only URLs of the message itself can come out, so a redirect to it is no open redirect.
    """
    part, place = divmod(index, MAX_LINKS)
    channel = next((channel for channel, number in _OVERRIDES.items() if number == part), None)
    if channel is None:
        content = Content({**document, "overrides": None}, Channel.EMAIL)
    else:
        content = Content(document, channel)
    parts, values = content.expand(data)
    in_actions = [url for _, url in parts.actions]
    in_text = Prose(content.text_field, parts.text).links
    urls = in_actions if part == ACTIONS else in_text if part == content.part else []
    if place >= len(urls):
        raise ContentRefused("content", "there is no such link in it")
    return Target(fill_values(urls[place], values), len(in_actions) + len(in_text))


def href(tracking: Tracking, part: int) -> Href:
    """How the http links of a part are written: directly, or as redirects that count a click."""
    if tracking == "off":
        return direct
    return lambda place, _url: mark("c", part * MAX_LINKS + place)
