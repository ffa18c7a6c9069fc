"""Pages for people, from templates in `templates/`: escaped, translated, and bound to their style.

They run no scripts and load nothing. Their one style sheet stands inline, allowed by its hash.
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any, Final

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.content.speech import LANGUAGES, Speech, accepted, speech

_STYLE: Final = resources.files("app.api").joinpath("templates", "page.css").read_text("utf-8")
CSP: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"
)


def page(template: str, words: Speech, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page in a language."""
    body = (
        environment(words.language)
        .get_template(template)
        .render(
            **values,
            language=words.language,
            style=Markup(_STYLE),  # noqa: S704  # our own file
        )
    )
    headers = {"Content-Security-Policy": CSP, "Content-Language": words.language}
    if status == 503:
        headers["Retry-After"] = "5"
    return HTMLResponse(body, status, headers)


def sorry(accept_language: str, status: int, *, erased: bool = False) -> HTMLResponse:
    """Say that a link leads to nothing, in the browser's language: no code, no token, no detail.

    `erased`: whose link it was is not known any more, so there will be no newer one.
    """
    words = speech(*accepted(accept_language))
    return page("sorry.html", words, status, code=status, erased=erased)


@cache
def environment(language: str = LANGUAGES[0]) -> Environment:
    """The templates in one language."""
    made = Environment(
        loader=PackageLoader("app.api", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_translations(  # type: ignore[attr-defined]  # the extension adds it
        speech(language).words, newstyle=True
    )
    return made
