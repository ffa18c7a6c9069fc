"""The look of mails and hosted messages: one quiet column that reads well in light and dark.

Mail programs drop style sheets and know little CSS, so a mail's styles stand inline and its columns
are tables; its one `<style>` only adds what may be lost (dark mode, small screens). Everything here
returns marked HTML.
"""

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Final

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:14px"
_RIGHT_TO_LEFT = ("ar", "fa", "he", "ur")

STYLES: Final = {
    "p": "margin:0 0 16px",
    "a": "color:#1d4ed8",
    "h1": "margin:0 0 16px;font-size:24px;line-height:1.25",
    "h2": "margin:24px 0 12px;font-size:20px;line-height:1.3",
    "h3": "margin:20px 0 8px;font-size:17px;line-height:1.4",
    "ul": "margin:0 0 16px;padding:0 24px",
    "ol": "margin:0 0 16px;padding:0 24px",
    "li": "margin:0 0 6px",
    "blockquote": "margin:0 0 16px;padding:0 16px;border-left:3px solid #cbd5e1",
    "code": _MONO,
    "pre": f"margin:0 0 16px;white-space:pre-wrap;{_MONO}",
    "hr": "border:0;border-top:1px solid #e2e8f0;margin:24px 0",
    "img": "max-width:100%;height:auto;border:0",
}

_MAIL_CSS = (
    "@media(prefers-color-scheme:dark){"
    ".bg{background:#0f172a!important}.card{background:#1e293b!important}"
    ".card,.card *{color:#e2e8f0!important;border-color:#475569!important}"
    ".card a{color:#93c5fd!important}"
    ".card a.btn{color:#0f172a!important;background:#93c5fd!important}"
    ".foot,.foot a{color:#94a3b8!important}}"
    "@media(max-width:480px){.card{padding:24px 20px!important}"
    ".btn{display:block!important;text-align:center}}"
)
_PAGE_CSS = (
    ":root{color-scheme:light dark;--bg:#f1f5f9;--card:#fff;--ink:#0f172a;--soft:#526077;"
    "--line:#e2e8f0;--link:#1d4ed8;--on:#fff}"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f172a;--card:#1e293b;--ink:#e2e8f0;"
    "--soft:#94a3b8;--line:#475569;--link:#93c5fd;--on:#0f172a}}"
    "body{margin:0;padding:32px 16px;background:var(--bg);color:var(--ink);"
    f"{_FONT};font-size:17px;line-height:1.6}}"
    "main,header,footer{max-width:600px;margin:0 auto}"
    "header,footer{color:var(--soft);font-size:14px;padding:0 8px 12px}footer{padding-top:16px}"
    "main{background:var(--card);border-radius:12px;padding:32px;box-sizing:border-box;"
    "overflow-wrap:anywhere}h1{font-size:24px;line-height:1.25;margin:0 0 20px}"
    "a{color:var(--link)}img{max-width:100%;height:auto}pre{white-space:pre-wrap}"
    "blockquote{margin:0 0 16px;padding:0 16px;border-left:3px solid var(--line)}"
    "hr{border:0;border-top:1px solid var(--line)}"
    ".btn{display:inline-block;margin:8px 8px 0 0;padding:12px 22px;border-radius:8px;"
    "background:var(--link);color:var(--on);font-weight:600;text-decoration:none}"
)
# The hosted page runs nothing and loads only the images of its message.
PAGE_CSP: Final = (
    "default-src 'none'; img-src https: http:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_PAGE_CSS.encode()).digest()).decode()
    + "'"
)

_PHRASES = {
    "en": ("View in browser", "Unsubscribe", "Preferences", "Sent by {}"),
    "de": ("Im Browser ansehen", "Abbestellen", "Einstellungen", "Gesendet von {}"),
}


def phrases(locale: str) -> tuple[str, str, str, str]:
    """Our own words in a mail: view in browser, unsubscribe, preferences, sent by."""
    return _PHRASES.get(locale.replace("_", "-").partition("-")[0].lower(), _PHRASES["en"])


def _language(locale: str) -> str:
    tag = locale.replace("_", "-") or "en"
    direction = "rtl" if tag.partition("-")[0].lower() in _RIGHT_TO_LEFT else "ltr"
    return f'lang="{html.escape(tag)}" dir="{direction}"'


def mail_buttons(actions: Sequence[tuple[str, str]]) -> str:
    """Actions (label, href; both HTML) as buttons; the first is the one that stands out."""
    strong = "background:#1d4ed8;color:#ffffff"
    quiet = "background:#e0e7ff;color:#1e3a8a"
    return "".join(
        f'<a class="btn" href="{href}" style="display:inline-block;margin:8px 8px 0 0;'
        f"padding:12px 22px;border-radius:8px;{quiet if place else strong};font-weight:600;"
        f'text-decoration:none">{label}</a>\n'
        for place, (label, href) in enumerate(actions)
    )


def mail(
    *, locale: str, title: str, preheader: str, sender: str, body: str, buttons: str, footer: str
) -> str:
    """A mail's HTML; every argument but `locale` is (marked) HTML."""
    return (
        f'<!DOCTYPE html>\n<html {_language(locale)}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="supported-color-schemes" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_MAIL_CSS}</style></head>\n"
        '<body class="bg" style="margin:0;padding:0;background:#f1f5f9">\n'
        '<div style="display:none;max-height:0;overflow:hidden;opacity:0">'
        f"{preheader}</div>\n"
        '<table role="presentation" class="bg" width="100%" cellpadding="0" cellspacing="0" '
        'style="background:#f1f5f9"><tr><td align="center" style="padding:24px 12px">\n'
        '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" '
        'style="max-width:600px">\n'
        f'<tr><td class="foot" style="padding:0 8px 12px;{_FONT};font-size:14px;font-weight:600;'
        f'color:#526077">{sender}</td></tr>\n'
        '<tr><td class="card" style="padding:32px;background:#ffffff;border-radius:12px;'
        f'{_FONT};font-size:16px;line-height:1.6;color:#0f172a;overflow-wrap:anywhere">\n'
        f"{body}{buttons}</td></tr>\n"
        f'<tr><td class="foot" style="padding:16px 8px;{_FONT};font-size:13px;line-height:1.5;'
        f'color:#526077">{footer}</td></tr>\n</table></td></tr></table>\n'
    )


MAIL_END: Final = "</body></html>\n"


def pixel(href: str) -> str:
    """The image whose loading says that the mail was opened."""
    return f'<img src="{href}" width="1" height="1" alt="" style="display:block;border:0">'


def footer_link(href: str, words: str) -> str:
    """A quiet link below the message."""
    return f'<a href="{href}" style="color:#526077">{words}</a>'


def page(
    *,
    locale: str,
    title: str,
    sender: str,
    body: str,
    actions: Sequence[tuple[str, str]],
    preferences: str,
) -> str:
    """A hosted message as a page for `PAGE_CSP`; every argument but `locale` is HTML."""
    buttons = "".join(f'<a class="btn" href="{href}">{label}</a>\n' for label, href in actions)
    heading = f"<h1>{title}</h1>\n" if title else ""
    return (
        f'<!DOCTYPE html>\n<html {_language(locale)}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
        f"<title>{title or sender}</title><style>{_PAGE_CSS}</style></head>\n"
        f"<body><header>{sender}</header>\n<main>{heading}{body}{buttons}</main>\n"
        f'<footer><a href="{preferences}">{phrases(locale)[2]}</a></footer></body></html>\n'
    )
