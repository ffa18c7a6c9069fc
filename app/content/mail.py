"""A content as mail: a multipart/alternative message from a prepared skeleton.

Nothing of a person reaches a header unchecked (`headers`), and the boundary holds a token that
nobody can foresee, so neither data nor text can add a header or a part.
"""

import base64
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.content import layout
from app.content.headers import address, mailbox, words
from app.content.marks import MARK, Pattern, Slots, in_html, in_text, mark, opening, text_as_html
from app.content.message import ACTIONS, Content, Parts, Personal, Skeleton, Tracking, href
from app.content.prose import Prose
from app.domain.body import EmailBody
from app.domain.vocabulary import Channel

_LONGEST_LINE = 998  # RFC 5322, 2.1.1, without CRLF
_SUBJECT_LENGTH = 70
_PREHEADER_LENGTH = 110


@dataclass(frozen=True, slots=True)
class SenderIdentity:
    """Who a mail is from; raises `ContentRefused` where it cannot stand in a header."""

    name: str
    address: str
    reply_to: str | None = None

    def __post_init__(self) -> None:
        mailbox("sender", self.name, self.address)
        if self.reply_to is not None:
            address("sender.reply_to", self.reply_to)

    @property
    def domain(self) -> str:
        """The domain that its message ids are under."""
        return self.address.rpartition("@")[2]


def compile_email(
    document: Mapping[str, Any],
    sender: SenderIdentity,
    *,
    tracking: Tracking,
    locale: str = "en",
    automatic: bool = True,
    unsubscribe: bool = False,
) -> Skeleton[EmailBody]:
    """The skeleton of a content's mails; raises `ContentRefused`.

    `automatic` marks a mail that no person wrote (RFC 3834); `unsubscribe` adds the one-click
    headers and the link of RFC 8058, as all mail must have that is not transactional. (The relay's
    DKIM signature must cover both headers.) Every mail has the link to what the customer allows and
    wishes.
    """
    content = Content(document, Channel.EMAIL)

    def build(parts: Parts) -> Callable[[list[str], Personal], EmailBody]:
        footer = _Footer(sender, locale, unsubscribe=unsubscribe)
        return _Form(content, parts, sender, tracking, automatic, footer)

    return Skeleton(content, build)


class _Form:
    """One form of a mail, ready to be filled."""

    def __init__(
        self,
        content: Content,
        parts: Parts,
        sender: SenderIdentity,
        tracking: Tracking,
        automatic: bool,
        footer: "_Footer",
    ) -> None:
        prose = Prose(content.text_field, parts.text)
        plain = prose.text(href(tracking, content.part))
        bare = prose.text(None)
        subject = in_text(parts.subject or opening(bare, _SUBJECT_LENGTH) or sender.name)
        actions = [
            (label, href(tracking, ACTIONS)(place, url))
            for place, (label, url) in enumerate(parts.actions)
        ]
        self._subject = _Subject(subject, given=bool(parts.subject))
        self._text = _Part("plain", _text(plain, actions, footer))
        markup = layout.mail(
            locale=footer.locale,
            title=text_as_html(subject),
            preheader=text_as_html(opening(bare, _PREHEADER_LENGTH)),
            sender=html.escape(sender.name),
            body=prose.html(href(tracking, content.part), layout.STYLES, images=True),
            buttons=layout.mail_buttons(_html_actions(actions)),
            footer=footer.html(),
        )
        seen = layout.pixel(mark("o")) if tracking == "all" else ""
        self._html = _Part("html", markup + seen + layout.MAIL_END)
        self._unsubscribe = footer.unsubscribe
        patterns = [self._subject.pattern, self._text.pattern, self._html.pattern]
        if footer.unsubscribe:
            patterns.append(Pattern(mark("n")))
        self._slots = Slots(*patterns)
        self._head = f"From: {mailbox('sender', sender.name, sender.address)}\r\n" + (
            f"Reply-To: {sender.reply_to}\r\n" if sender.reply_to else ""
        )
        self._tail = "MIME-Version: 1.0\r\n" + (
            "Auto-Submitted: auto-generated\r\n" if automatic else ""
        )
        self._domain = sender.domain

    def __call__(self, values: list[str], personal: Personal) -> EmailBody:
        values = [value.replace("\n", "\r\n") if "\n" in value else value for value in values]
        slots = self._slots.fill(values, personal.links, personal.delivery_id, personal.customer_id)
        subject = self._subject.fill(slots)
        text, text_wide = self._text.fill(slots)
        markup, markup_wide = self._html.fill(slots)
        trace = personal.links.trace(personal.delivery_id)
        boundary = f"=_{trace}"
        head = (
            f"{self._head}To: {mailbox('to', personal.customer_name, personal.to_address)}\r\n"
            f"Subject: {subject}\r\nDate: {personal.date}\r\n"
            f"Message-ID: <{trace}@{self._domain}>\r\nX-Converge-Delivery: {trace}\r\n"
            f"{self._tail}"
        )
        if self._unsubscribe:
            head += (
                f"List-Unsubscribe: <{slots['n0']}>\r\n"
                "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
            )
        wide = text_wide or markup_wide
        if wide:
            head += "Content-Transfer-Encoding: 8bit\r\n"
        head += f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'
        line = f"--{boundary}".encode()
        mime = b"".join(
            (head.encode("ascii"), line, text, b"\r\n", line, markup, b"\r\n", line, b"--\r\n")
        )
        return EmailBody(mime, eight_bit=wide)


def _html_actions(actions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(in_html(html.escape(label)), in_html(html.escape(url))) for label, url in actions]


@dataclass(frozen=True, slots=True)
class _Footer:
    """What stands below a message: who sent it, and the ways to do something about it."""

    sender: SenderIdentity
    locale: str
    unsubscribe: bool

    def links(self) -> list[tuple[str, str]]:
        """The words of each link, and its mark."""
        view, leave, preferences, _ = layout.phrases(self.locale)
        ways = [(view, "m"), (preferences, "p")] + [(leave, "n")] * self.unsubscribe
        return [(words, mark(kind)) for words, kind in ways]

    def sent_by(self, name: str) -> str:
        """Who sent it."""
        return layout.phrases(self.locale)[-1].format(name)

    def html(self) -> str:
        """The footer as marked HTML."""
        links = [layout.footer_link(href, words) for words, href in self.links()]
        return f"{self.sent_by(html.escape(self.sender.name))}<br>\n" + " &middot; ".join(links)


def _text(plain: str, actions: list[tuple[str, str]], footer: _Footer) -> str:
    blocks = [plain, in_text("\n".join(f"{label}: {url}" for label, url in actions))]
    below = [f"-- \n{footer.sent_by(footer.sender.name)}"]
    below += [f"{words}: {href}" for words, href in footer.links()]
    return "\n\n".join([*filter(None, blocks), "\n".join(below)]) + "\n"


class _Subject:
    """The Subject header: encoded once where it is the same for everybody."""

    def __init__(self, marked: str, *, given: bool) -> None:
        self.pattern = Pattern(marked)
        self._given = given
        self._encoded = None if self.pattern.keys else self._encode(marked)

    def fill(self, slots: dict[str, str]) -> str:
        return self._encoded or self._encode(self.pattern.fill(slots))

    def _encode(self, subject: str) -> str:
        # A subject that we made of the text takes the text's line breaks as spaces.
        return words(
            "content.subject", "Subject", subject if self._given else " ".join(subject.split())
        )


class _Part:
    """One alternative: its headers and body, in the lightest encoding that carries it."""

    def __init__(self, subtype: str, marked: str) -> None:
        lines = marked.split("\n")
        static = [MARK.sub("", line).encode() for line in lines]
        self.pattern = Pattern("\r\n".join(lines))
        self._type = f"\r\nContent-Type: text/{subtype}; charset=utf-8\r\n".encode()
        self._longest = max(map(len, static))
        self._static_bytes = len(b"\r\n".join(static))

    def fill(self, slots: dict[str, str]) -> tuple[bytes, bool]:
        """The part, and whether it has bytes over 127."""
        body = self.pattern.fill(slots).encode()
        # All that was put in, on the longest line: only if that is too much are lines measured.
        if self._longest + len(body) - self._static_bytes > _LONGEST_LINE and _is_long(body):
            encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
            return self._type + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded, False
        if body.isascii():
            return self._type + b"\r\n" + body, False
        return self._type + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + body, True


def _is_long(body: bytes) -> bool:
    return max(map(len, body.split(b"\r\n"))) > _LONGEST_LINE
