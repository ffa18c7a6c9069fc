"""Markdown (CommonMark, raw HTML off) with marks in it, as HTML and as plain text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from app.content.marks import OPEN, in_html, in_text, is_http, url_marks
from app.content.problem import ContentRefused

# How to write a link: given its place among the prose's links and its own marked URL.
Href: TypeAlias = Callable[[int, str], str]

MAX_LINKS: Final = 256
_LINK_SCHEMES = ("mailto:", "tel:")


class _Markdown(MarkdownIt):
    """CommonMark whose URLs keep their marks, and are judged by us instead of dropped unseen."""

    def normalizeLink(self, url: str) -> str:  # noqa: N802  # markdown-it's name
        return url_marks(url) if OPEN in url else super().normalizeLink(url)

    def normalizeLinkText(self, link: str) -> str:  # noqa: N802  # markdown-it's name
        return link if OPEN in link else super().normalizeLinkText(link)

    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802  # markdown-it's name
        return True


_MARKDOWN: Final = _Markdown("commonmark", {"html": False})
_RENDERER: Final = RendererHTML()


def direct(_place: int, url: str) -> str:
    """The `Href` of what is not tracked: the URL itself."""
    return url


class Prose:
    """One text, parsed. `links` are its http(s) links in order, as marked URLs.

    Raises `ContentRefused` naming `field` where a link or image has a scheme that is not allowed.
    """

    __slots__ = ("_tokens", "links")

    def __init__(self, field: str, marked: str) -> None:
        self._tokens = _MARKDOWN.parse(marked)
        self.links: list[str] = []
        for token in self._inline():
            if token.type == "link_open":
                self._take_link(field, token)
            elif token.type == "image" and not is_http(str(token.attrs["src"])):
                raise ContentRefused(field, "an image's URL must be http or https")

    def html(self, href: Href, styles: Mapping[str, str], *, images: bool) -> str:
        """HTML with `h` marks; `styles` maps a tag to its inline CSS; images can become words."""
        for token in [*self._tokens, *self._inline()]:
            if token.nesting >= 0 and token.tag in styles:
                token.attrSet("style", styles[token.tag])
            if token.type == "link_open" and "place" in token.meta:
                token.attrSet("href", href(token.meta["place"], self.links[token.meta["place"]]))
            if token.type == "image" and not images:
                token.type, token.tag, token.content = "text", "", _alternative(token)
        return in_html(_RENDERER.render(self._tokens, _MARKDOWN.options, {}))

    def text(self, href: Href | None) -> str:
        """Plain text with `t` marks: lists keep their signs, links follow their words.

        Without `href` a link is its words alone.
        """
        return in_text(_PlainText(self, href).write(self._tokens))

    def _inline(self) -> list[Token]:
        return [child for token in self._tokens for child in token.children or ()]

    def _take_link(self, field: str, token: Token) -> None:
        url = str(token.attrs["href"])
        if is_http(url):
            if len(self.links) == MAX_LINKS:
                raise ContentRefused(field, f"more than {MAX_LINKS} links")
            token.meta = {"place": len(self.links)}
            self.links.append(url)
        elif not url.startswith(_LINK_SCHEMES):
            raise ContentRefused(field, "a link must be http, https, mailto or tel")


def _alternative(token: Token) -> str:
    return _RENDERER.renderInlineAsText(token.children, _MARKDOWN.options, {})


class _PlainText:
    """Writes block tokens as lines of text."""

    def __init__(self, prose: Prose, href: Href | None) -> None:
        self._prose = prose
        self._href = href
        self._out: list[str] = []
        self._indents: list[str] = []
        self._bullet: str | None = None
        self._counters: list[int | None] = []
        self._tight = False
        self._new_list = False

    def write(self, tokens: Sequence[Token]) -> str:
        for token in tokens:
            if token.type == "inline":
                self._emit(self._inline(token.children or []))
            elif token.type in ("fence", "code_block"):
                self._emit(token.content.rstrip("\n"))
            elif token.type == "hr":
                self._emit("---")
            else:
                self._structure(token)
        return "".join(self._out)

    def _structure(self, token: Token) -> None:
        kind = token.type
        if kind == "paragraph_open":
            self._tight = token.hidden
        elif kind == "paragraph_close":
            self._tight = False
        elif kind in ("bullet_list_open", "ordered_list_open"):
            self._new_list = not self._counters
            first = int(token.attrs.get("start", 1)) if kind == "ordered_list_open" else None
            self._counters.append(first)
        elif kind in ("bullet_list_close", "ordered_list_close"):
            self._counters.pop()
        elif kind == "list_item_open":
            self._open_item()
        elif kind == "blockquote_open":
            self._indents.append("> ")
        elif kind in ("list_item_close", "blockquote_close"):
            self._indents.pop()

    def _open_item(self) -> None:
        number = self._counters[-1]
        self._bullet = "- "
        if number is not None:
            self._bullet = f"{number}. "
            self._counters[-1] = number + 1
        self._indents.append(" " * len(self._bullet))

    def _emit(self, text: str) -> None:
        if self._out:
            self._out.append("\n" if self._tight and not self._new_list else "\n\n")
        self._new_list = False
        indent = "".join(self._indents)
        first = indent
        if self._bullet is not None:
            first = "".join(self._indents[:-1]) + self._bullet
            self._bullet = None
        self._out.append(first + text.replace("\n", "\n" + indent))

    def _inline(self, tokens: Sequence[Token]) -> str:
        out: list[str] = []
        links: list[tuple[Token, int]] = []
        for token in tokens:
            if token.type in ("text", "code_inline"):
                out.append(token.content)
            elif token.type == "softbreak":
                out.append(" ")
            elif token.type == "hardbreak":
                out.append("\n")
            elif token.type == "image":
                out.append(_alternative(token))
            elif token.type == "link_open":
                links.append((token, len(out)))
            elif token.type == "link_close":
                link, start = links.pop()
                out[start:] = [self._link(link, "".join(out[start:]))]
        return "".join(out)

    def _link(self, link: Token, label: str) -> str:
        """A link's words and its URL; the URL alone where both are the same."""
        if self._href is None:
            return label
        if "place" not in link.meta:
            url = str(link.attrs["href"]).partition(":")[2]
            return url if label in ("", url) else f"{label}: {url}"
        place = link.meta["place"]
        url = self._prose.links[place]
        href = self._href(place, url)
        return href if not label or url_marks(label) == url else f"{label}: {href}"
