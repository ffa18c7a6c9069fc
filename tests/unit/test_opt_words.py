"""The words by which people say stop, start, help and mute; and what only looks like them."""

import time
import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.opt_words import LONGEST, Said, Word, read_words

STOPS = [
    "STOP",
    "stop",
    "Stop.",
    "stop!!!",
    "StOp 🛑",
    "S.T.O.P",
    "s t o p",
    "STOP STOP STOP",
    "Stop please",
    "please stop",
    "pls stop",
    "stopall",
    "stop all",
    "STOP ALL MESSAGES",
    "quit",
    "END",
    "revoke",
    "opt out",
    "opt-out",
    "optout",
    "OPTOUT.",
    "cancel",
    "unsubscribe",
    "Unsubscribe me",
    "please stop texting me",
    "Please stop texting me!",
    "don't message me any more",
    "don\u2019t text me anymore",
    "do not contact me again",
    "remove me",
    "remove me from your list",
    "take me off your list",
    "stop sending me texts",
    "stop sending me these messages",
    "no more texts",
    "No more messages please",
    "leave me alone",
    "I no longer wish to receive messages",
    "I don't want these messages",
    "I do not want to receive texts from you",
    "STOP\n\nSent from my phone",
    "Stop. Who is this?",
    "Who is this? Stop texting me.",
    "stóp",
    "\uff33\uff34\uff2f\uff30",
    "“STOP”",
    "stop it",
    "stop this",
    "can you stop texting me please",
    "I want to unsubscribe",
    "opt me out",
    "stopp",
    "Abmelden",
    "bitte abmelden",
    "keine SMS mehr",
    "Keine weiteren Nachrichten",
    "Schreiben Sie mir nicht mehr",
    "schreib mir bitte nicht mehr",
    "lass mich in Ruhe",
    "Hör auf",
    "Hört auf mir zu schreiben",
    "Hört auf, mir zu schreiben!",
    "Hören Sie bitte auf, mir Nachrichten zu schicken",
    "Hör auf mir ständig SMS zu schicken",
    "Bitte aufhören, mich anzuschreiben",
    "Könnt ihr bitte aufhören mir Werbung zu senden?",
    "aufhören!",
    "cancel subscription",
    "Cancel my subscription",
    "i revoke my consent",
    "delete my number",
    "stop emailing me",
    "never text me again",
    "Stop, please",
    "stop messages",
    "stop calling me",
    "keine werbung",
    "nie wieder SMS",
    "please remove my number from your list",
    "I don't want to hear from you",
    "quit texting me",
    "stop spamming me",
    "stop spam",
    "I want to stop receiving these messages",
    "I'd like to opt out",
    "I\u2019d like to unsubscribe",
    "opt out of texts",
    "unsubscribe from all",
    "I would like to unsubscribe from these messages",
    "How do I unsubscribe?",
    "I don't want to be contacted",
    "I no longer wish to be contacted",
    "I don't want to be texted anymore",
    "wrong number, stop texting",
    "not interested, stop",
    "No thanks, stop",
    "Stop, unsubscribe",
    "stop unsubscribe",
    "stop/unsubscribe",
    "Re: STOP",
    "please stop, this is not my order",
    "Stop, I have told you before",
    "Hello, unsubscribe me",
    "who is this stop texting me",
    "Who are you, stop texting me please",
    "STOP 2 END",
    "text STOP to cancel",
    "reply stop",
    "end all",
    "erase my number",
    "stop fucking texting me",
    "Don't ever text me again",
    "fuck off",
    "kein SMS mehr",
    "STOP calling, email is fine",
    "stoppp",
    "STOPPPP!!!",
    "take me off",
    "get me off this list",
    "take my number out of your system",
    "don't text",
    "do not contact",
    "don't call anymore",
    "don't call me",
    "don't send me these messages",
    "stop everything",
    "\u201cStop sending me these messages\u201d",
    "Ich m\u00f6chte keine SMS mehr",
    "Ich m\u00f6chte mich abmelden",
    "Melden Sie mich ab",
    "bitte stoppen",
    "Newsletter abbestellen",
    "Kein Interesse, stopp",
    "Falsche Nummer! Bitte nicht mehr schreiben",
    "Ich m\u00f6chte nicht mehr kontaktiert werden",
    "Ich m\u00f6chte den Newsletter abbestellen",
]

ORDINARY = [
    "Hört auf den Trainer",
    "Hört nicht auf mir zu schreiben",
    "Hör auf mir zu helfen",
    "Hört auf zu streiten",
    "Wann hört ihr auf, die Bestellung zu schicken?",
    "Ich kann nicht aufhören, euch zu schreiben",
    "",
    "don't stop",
    "do not stop",
    "stop by the shop at 5",
    "I can't stop laughing",
    "stop in at the store",
    "Can I cancel my order?",
    "cancel my order",
    "cancel order 991",
    "please cancel the appointment",
    "the end",
    "I will not be stopping by",
    "don't cancel",
    "bus stop",
    "Where is it?",
    "yes I'd like two",
    "stop the delivery to my old address",
    "never stop texting me lol",
    "unsubscribed from Netflix today",
    "is this the end of it",
    "weekend",
    "end of the day is fine",
    "help me find my order",
    "I need help",
    "info about order 1",
    "no",
    "ok",
    "stopped working",
    "the parcel stop is closed",
    "I don't want the blue one",
    "don't send the parcel to my old address",
    "do not call before 9",
    "remove the blue one",
    "text me when it is here",
    "please message me",
    "I quit my job",
    "mute the call",
    "bitte nicht stoppen",
    "ja das passt",
    "nicht mehr nötig",
    "take me to the shop",
    "contact me",
    "Stop at the gate and ring",
    "quit smoking",
    "no more milk please",
    "don't email the invoice, post it",
    "cancel it",
    "Cancel this",
    "end it",
    "remove the blue one please",
    "Get me!",
    "get my phone",
    "take me",
    "take my number",
    "get me at 5",
    "I don't need it",
    "I don't want it",
    "I don't want this",
    "I don't need these",
    "don't send it",
    "don't send it again",
    "Don't send!",
    "Don't call",
    "don't email",
    "no more this",
    "No thanks, cancel it",
    "haha, stop it",
    "If I am late, don't call me",
    "next time, cancel",
    "Stop by, please",
    "left at the lights, stop at the gate",
    "I want to stop at your shop",
    "I want to stop by",
    "can I opt for the blue one",
    "to stop them, reply STOP",
    "I want to end my lease",
    "unsubscribe my sister",
    "ich m\u00f6chte keine Bestellung mehr",
    "ich m\u00f6chte stoppen, wo es geht",
    "Melden Sie sich",
    'Liked "Demo: these messages are about your orders. STOP / HELP / INFO"',
    "Loved \u201cReply HELP for help, STOP, or call us.\u201d",
]

OTHERS = {
    "START": Said(Word.START),
    "start!": Said(Word.START),
    "Unstop": Said(Word.START),
    "opt in": Said(Word.START),
    "YES": Said(Word.START, surely=False),
    "yes please": Said(Word.START, surely=False),
    "Ja": Said(Word.START, surely=False),
    "HELP": Said(Word.HELP),
    "Please help": Said(Word.HELP),
    "Info please": Said(Word.HELP),
    "Bitte Hilfe": Said(Word.HELP),
    "mute 30 minutes": Said(Word.MUTE, lasting=timedelta(minutes=30)),
    "mute for 90 min": Said(Word.MUTE, lasting=timedelta(minutes=90)),
    "Stumm 15 Minuten": Said(Word.MUTE, lasting=timedelta(minutes=15)),
    "mute 2 months": Said(Word.MUTE, lasting=timedelta(days=60)),
    "mute all": Said(Word.MUTE),
    "info?": Said(Word.HELP),
    "Hilfe": Said(Word.HELP),
    "UNMUTE": Said(Word.UNMUTE),
    "MUTE": Said(Word.MUTE),
    "stumm": Said(Word.MUTE),
    "mute forever": Said(Word.MUTE),
    "Mute for an hour": Said(Word.MUTE, lasting=timedelta(hours=1)),
    "mute 1h": Said(Word.MUTE, lasting=timedelta(hours=1)),
    "MUTE 1 WEEK": Said(Word.MUTE, lasting=timedelta(weeks=1)),
    "mute week": Said(Word.MUTE, lasting=timedelta(weeks=1)),
    "Stumm f\u00fcr 2 Stunden": Said(Word.MUTE, lasting=timedelta(hours=2)),
    "stumm 1 Woche": Said(Word.MUTE, lasting=timedelta(weeks=1)),
    "mute 0 days": Said(Word.MUTE, lasting=timedelta(days=1)),
}
LAWFUL = ["stop", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe"]
"""47 CFR 64.1200(a)(10)."""


@pytest.mark.parametrize("text", STOPS)
def test_a_no_is_heard(text: str) -> None:
    assert read_words(text) == Said(Word.STOP)


@pytest.mark.parametrize("text", ORDINARY)
def test_what_speaks_of_something_else_is_an_ordinary_message(text: str) -> None:
    assert read_words(text) is None


@pytest.mark.parametrize(("text", "said"), OTHERS.items())
def test_other_words_are_heard(text: str, said: Said) -> None:
    assert read_words(text) == said


_DECORATION = st.text(" .!?-*_\n\t'\"\u201c\u201d\U0001f6d1\U0001f621\u2764\ufe0f", max_size=8)


@given(st.sampled_from(LAWFUL), st.data(), _DECORATION, _DECORATION)
def test_the_words_of_the_law_count_however_they_are_written(
    word: str, data: st.DataObject, before: str, after: str
) -> None:
    cases = [data.draw(st.booleans()) for _ in word]
    mixed = "".join(
        letter.upper() if up else letter for letter, up in zip(word, cases, strict=True)
    )
    for form in ("NFC", "NFKD"):
        accented = unicodedata.normalize(form, mixed.replace("o", "\u00f3"))
        for spelled in (mixed, accented):
            assert read_words(before + spelled + after) == Said(Word.STOP)


@given(st.text(max_size=2000))
def test_any_text_at_all_can_be_read(text: str) -> None:
    said = read_words(text)
    assert said is None or isinstance(said.word, Word)


@pytest.mark.parametrize(
    "text",
    [
        "please " * 3000,
        "stop all any more this " * 3000,
        "stop sending me the these those this " * 400 + "x",
        "don't text me " * 3000,
        "who is this no thanks " * 3000 + "x",
        "stop unsubscribe end " * 3000 + "x",
        "i want to stop receiving " * 3000,
        "stop, " * 3000,
        '"' * 3000,
        "mute for " * 3000,
        "s " * 9000,
        "'" * 9000,
        "\u0301" * 9000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.perf_counter()
    read_words(text)
    assert time.perf_counter() - began < 0.25


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert read_words("STOP\n" + "x" * 50_000) == Said(Word.STOP)
    assert read_words("x" * LONGEST + "\nSTOP") is None
