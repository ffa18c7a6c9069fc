"""What Converge itself says to customers in messages, in one place: answers to words such as STOP.

None of it may advertise anything (47 CFR 64.1200(a)(12)).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

NOTICES: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "stopped": "{brand}: you will get no more messages from us here. "
        "To get them again, reply START.",
        "stopped_sender": "{brand}: you will get no more messages from {sender} here. "
        "To get them again, reply START.",
        "started": "{brand}: you will get our messages here again. To stop them, reply STOP.",
        "starting": "{brand}: you get our messages here. To stop them, reply STOP.",
        "muted": "{brand}: {sender} is muted for good. To undo this, reply UNMUTE.",
        "muted_for": "{brand}: {sender} is muted for {lasting}. To undo this, reply UNMUTE.",
        "unmuted": "{brand}: {sender} is no longer muted. To stop all messages, reply STOP.",
        "help": "{brand}: these messages are about what you have to do with us. "
        "To stop them, reply STOP. To get them again, reply START.",
        "help_stopped": "{brand}: our messages are about what you have to do with us. "
        "They are stopped here. To get them again, reply START.",
        "choices": "All your choices: {link}",
        "link": "{brand}: your preferences and your data, for an hour: {link} "
        "If you did not ask for this, you need do nothing.",
    },
    "de": {
        "stopped": "{brand}: Sie erhalten hier keine Nachrichten mehr von uns. "
        "Um wieder welche zu erhalten, antworten Sie START.",
        "stopped_sender": "{brand}: Sie erhalten hier keine Nachrichten mehr von {sender}. "
        "Um wieder welche zu erhalten, antworten Sie START.",
        "started": "{brand}: Sie erhalten hier wieder Nachrichten von uns. "
        "Um sie zu beenden, antworten Sie STOP.",
        "starting": "{brand}: Sie erhalten hier Nachrichten von uns. "
        "Um sie zu beenden, antworten Sie STOP.",
        "muted": "{brand}: {sender} ist auf Dauer stumm. Um das aufzuheben, antworten Sie UNMUTE.",
        "muted_for": "{brand}: {sender} ist für {lasting} stumm. "
        "Um das aufzuheben, antworten Sie UNMUTE.",
        "unmuted": "{brand}: {sender} ist nicht mehr stumm. "
        "Um alle Nachrichten zu beenden, antworten Sie STOP.",
        "help": "{brand}: Diese Nachrichten betreffen, was Sie mit uns zu tun haben. "
        "Um sie zu beenden, antworten Sie STOP. Um wieder welche zu erhalten, START.",
        "help_stopped": "{brand}: Unsere Nachrichten betreffen, was Sie mit uns zu tun haben. "
        "Sie sind hier beendet. Um sie wieder zu erhalten, antworten Sie START.",
        "choices": "Alle Einstellungen: {link}",
        "link": "{brand}: Ihre Einstellungen und Ihre Daten, für eine Stunde: {link} "
        "Wenn Sie nicht darum gebeten haben, brauchen Sie nichts zu tun.",
    },
}
_LENGTHS: Final = (
    (timedelta(weeks=1), {"en": ("week", "weeks"), "de": ("Woche", "Wochen")}),
    (timedelta(days=1), {"en": ("day", "days"), "de": ("Tag", "Tage")}),
    (timedelta(hours=1), {"en": ("hour", "hours"), "de": ("Stunde", "Stunden")}),
    (timedelta(minutes=1), {"en": ("minute", "minutes"), "de": ("Minute", "Minuten")}),
)


def notice(name: str, locale: str | None, **filled: str) -> str:
    """One notice in a language that we have: the locale's, else English."""
    return NOTICES[_language(locale)][name].format(**filled)


def lasting(length: timedelta, locale: str | None) -> str:
    """A length of whole minutes in the language of a notice: `1 week`, `90 minutes`."""
    unit, names = next(
        ((unit, names) for unit, names in _LENGTHS if not length % unit), _LENGTHS[-1]
    )
    count = length // unit
    return f"{count} {names[_language(locale)][count != 1]}"


def _language(locale: str | None) -> str:
    language = (locale or "").replace("_", "-").partition("-")[0].lower()
    return language if language in NOTICES else "en"
