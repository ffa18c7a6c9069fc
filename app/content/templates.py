"""Templates: contents kept in files, `NAME/LOCALE.md`, loaded and checked at start.

A file has TOML between two `+++` lines (`subject`, `actions`, `must_keep`, `overrides`) and the
Markdown text below.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from app.content.chat import compile_chat
from app.content.message import Content
from app.content.problem import ContentRefused
from app.domain.vocabulary import Channel
from converge_producer.errors import InvalidIntent
from converge_producer.wire import validate_intent

_FILE: Final = re.compile(r"\+\+\+\n(.*?)^\+\+\+\n(.*)", re.DOTALL | re.MULTILINE)
_LAST_LOCALE: Final = "en"


class BadTemplate(Exception):
    """A template file cannot be used; the message names the file, the field and the reason."""


class Templates:
    """The templates of a folder. A folder that is not there holds none; raises `BadTemplate`."""

    def __init__(self, folder: Path) -> None:
        self._documents: dict[str, dict[str, dict[str, Any]]] = {}
        for path in sorted(folder.glob("*/*.md")):
            documents = self._documents.setdefault(path.parent.name, {})
            documents[_normal(path.stem)] = _load(path)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every (name, locale)."""
        return ((name, locale) for name, of in self._documents.items() for locale in of)

    def resolve(self, name: str, locale: str | None, default_locale: str) -> dict[str, Any]:
        """The document of template `name`, in the nearest language that it has.

        `de-AT` falls back to `de`, then to the brand's default locale, then to English. Raises
        `ContentRefused` on `content.template`, with the names that are known.
        """
        documents = self._documents.get(name)
        if documents is None:
            raise ContentRefused("content.template", self._unknown(name))
        for wish in (locale, default_locale, _LAST_LOCALE):
            for nearer in _nearer(wish or ""):
                if nearer in documents:
                    return documents[nearer]
        reason = f"{name!r} is there in {', '.join(documents)}, not in {locale or default_locale}"
        raise ContentRefused("content.template", reason)

    def _unknown(self, name: str) -> str:
        known = sorted(self._documents)
        close = get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"there is no template {name!r}{hint} (known: {', '.join(known) or 'none'})"


def _normal(locale: str) -> str:
    return locale.replace("_", "-").lower()


def _nearer(locale: str) -> Iterator[str]:
    """`zh-hant-tw`, `zh-hant`, `zh`."""
    parts = _normal(locale).split("-")
    return ("-".join(parts[:length]) for length in range(len(parts), 0, -1))


def _load(path: Path) -> dict[str, Any]:
    where = f"{path.parent.name}/{path.name}"
    try:
        found = _FILE.fullmatch(path.read_text("utf-8").replace("\r\n", "\n"))
        if found is None:
            raise BadTemplate(f"{where}: must begin with TOML between two lines of +++")
        document = {**tomllib.loads(found[1]), "text": found[2].strip()}
        _check(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadTemplate(f"{where}: {error}") from None
    except InvalidIntent as error:
        raise BadTemplate(f"{where}: {error.field}: {error.reason}") from None
    except ContentRefused as refused:
        raise BadTemplate(f"{where}: {refused}") from None
    return document


def _check(document: Mapping[str, Any]) -> None:
    """The rules of the wire, and that each channel's form of it compiles."""
    validate_intent({"to": "nobody", "topic": "none", "content": document})
    for channel in Channel:
        Content(document, channel)
        compile_chat(document, tracking="off", channel=channel)
