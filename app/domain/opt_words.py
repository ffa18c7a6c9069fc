"""Words by which people say to a machine what they want of it: stop, start, help, mute.

Sources: 47 CFR 64.1200(a)(10) (the words that always count, and that plain wording counts where a
reasonable person would read it so) and twilio.com/docs/messaging (START, YES, UNSTOP; HELP, INFO).

A message is read as a person would read it who must not miss a no: alone on its line a word counts
in any spelling, and so does a short sentence that says it plainly. A sentence that speaks of
something else ("stop by the shop at five", "don't stop", "cancel my order") is an ordinary message.
Where one is read as a no that was none, its sender is told so at once and how to take it back; a no
that was missed is a fault.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

LONGEST: Final = 640
"""Characters that are looked at: four texts. Whoever writes more says it at the beginning."""


class Word(StrEnum):
    """What was said."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    MUTE = "mute"
    UNMUTE = "unmute"


@dataclass(frozen=True, slots=True)
class Said:
    """A word. `surely` is false for what also answers other questions ("yes").

    `lasting` is how long a MUTE is wished for (None: for good).
    """

    word: Word
    surely: bool = True
    lasting: timedelta | None = None


def read_words(text: str) -> Said | None:
    """What a message says to the machine; None for all that is meant for people."""
    text = text[:LONGEST]
    whole = _plain(text)
    if not whole:
        return None
    for pattern, said in _WHOLE:
        if pattern.fullmatch(whole):
            return said
    mute = _MUTE.fullmatch(whole)
    if mute:
        return _muted(mute)
    # A no may stand beside other things: on its own line, as a sentence of its own, or, where it is
    # said by the word itself, as a part of one. What is quoted was said by somebody else, often us.
    unquoted = _QUOTED.sub(" ", text)
    for sentence in _SENTENCES.split(unquoted if _plain(unquoted) else text):
        if _STOP_ALONE.fullmatch(_plain(sentence)):
            return STOPPED
        if any(_STOP_FIRMLY.fullmatch(_plain(part)) for part in _PARTS.split(sentence)):
            return STOPPED
    return None


STOPPED: Final = Said(Word.STOP)

_QUOTED: Final = re.compile(
    r"[\"\u201c\u201e\u00ab][^\"\u201c\u201d\u00bb]{20,}[\"\u201c\u201d\u00bb]"
)
_PARTS: Final = re.compile(r"[,:/&]+")
_SENTENCES: Final = re.compile(r"[.!?;\n\r\u2026]+|\s+[-\u2013\u2014]+\s+")
_APOSTROPHES: Final = re.compile(r"['\u2018\u2019\u02bc`\u00b4]")
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
_SPELLED: Final = re.compile(r"\w(?: \w){2,}")


def _plain(text: str) -> str:
    """Lower-case words with one space between them: no accents, punctuation or pictures."""
    text = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", text.casefold()))
    text = "".join(one for one in text if not unicodedata.combining(one))
    text = _NOT_LETTERS.sub(" ", text).strip()
    return text.replace(" ", "") if _SPELLED.fullmatch(text) else text  # s.t.o.p


def _phrase(pattern: str) -> re.Pattern[str]:
    """A pattern in which a space stands for one space, and `_` for a space or nothing."""
    return re.compile(pattern.replace("_", " ?"))


# What a polite or an angry person puts around it.
_BEFORE: Final = (
    r"(?:(?:please|pls|plz|ok|okay|hi|hello|hey|no|just|kindly|now|and|then|sorry|bitte|hallo"
    r"|can you|could you|would you|will you|i said|i want you to|i would like you to|id like you to"
    r"|i ask you to|i am asking you to|im asking you to|konnen sie|konntest du|kannst du"
    r"|konnt ihr) )*"
)
_AFTER: Final = (
    r"(?: (?:please|pls|plz|now|thanks|thank you|thx|asap|immediately|at once|already|today|ok"
    r"|right now|right away|any_more|ever again|ever|again|forever|for good|sofort|bitte|danke"
    r"|jetzt|endlich|mehr))*"
)
# And what angry people threaten. "Stop or I will be late" is none.
_OR_ELSE: Final = (
    r"(?: or (?:else|(?:i|we|ill|well|im|i am|i have)(?: (?:will|shall|am|going|gonna|have|to))*"
    r" (?:report|reporting|sue|block|blocking|complain|file|call the|call my|take legal)"
    r"(?: \w+){0,8})"
    r"|(?: (?:oder|sonst))+(?: (?:ich|wir|werde|werden|euch|sie|dich))*"
    r" (?:zeigen?|anzeigen?|melden?|verklagen?|beschweren?|blockieren?|sperren?)(?: \w+){0,8})?"
)
# What people say before it who were not asked.
_PREAMBLE: Final = (
    r"(?:(?:who is this|whos this|who are you|(?:you have (?:the )?)?wrong number|no thanks"
    r"|no thank you|not interested|im not interested|i am not interested|i (?:do not|dont) know you"
    r"|i (?:did not|didnt|never) (?:sign|signed) up(?: for (?:this|these))?"
    r"|wer ist (?:das|da)|falsche nummer|kein interesse|nein danke|danke nein) )*"
)
# What can be stopped: what we send, and nothing else in the world.
_OURS: Final = (
    r"(?:text_messages?|texts?|sms|messages?|messaging|msgs?|emails?|e_mails?|mails?|spam"
    r"|advertising|alerts?|notifications?|newsletters?|subscription|list)"
)
_WHICH: Final = (
    r"(?:(?:all|any|more|further|the|these|those|this|your|my|such|sending|getting|receiving|me|us"
    r"|of|future|daily|marketing|promo|promotional|unwanted|annoying|stupid|damn|spam) )*"
)
_ADS: Final = r"ads?|advertisements?|promos?|promotions?|offers?|marketing"
# As nobody calls what they ordered.
_JUNK: Final = r"crap|shit|bullshit|junk|garbage|rubbish|trash|nonsense"
_NUMBER: Final = (
    r"(?:this|my) (?:phone|number|phone number|cell|cell phone|cell number|mobile|mobile number"
    r"|device|email|email address)"
)
_FROM_YOU: Final = (
    rf"(?: (?:from (?:you|this number|your company)|(?:to|at|on) {_NUMBER}|to (?:me|us)))*"
)
_MESSAGES: Final = rf"{_WHICH}(?:{_OURS}|{_ADS}|{_JUNK}){_FROM_YOU}"
# "It" is ours where it is to be stopped; what is not wanted, needed or to be sent may be anything.
_MESSAGES_OR_IT: Final = rf"{_WHICH}(?:{_OURS}|{_ADS}|{_JUNK}|stuff|this|it|these){_FROM_YOU}"
_DOING: Final = (
    r"(?:texting|messaging|contacting|emailing|mailing|writing|bothering|spamming|harassing"
    r"|calling|sending|annoying|pestering|bugging)"
)
_ANGRILY: Final = r"(?:(?:ever|fucking|fuckin|freaking|bloody|damn|goddamn) )?"
_DONE: Final = r"(?:texted|messaged|contacted|emailed|mailed|bothered|spammed|called)"
_DO: Final = (
    r"(?:text|message|contact|email|mail|write|write to|bother|spam|call|annoy|sms|msg|bug)"
)
_DO_ALONE: Final = r"(?:text|message|contact|bother|spam|sms|msg)"  # "don't call" has other uses
_NEVER: Final = r"(?:do not|dont|never|you may not|no longer)"
_AGAIN: Final = r"(?:any_more|again|ever again|ever)"
_ME: Final = rf" (?:(?:to )?(?:me|us|{_NUMBER}|here)(?: (?:at|on) {_NUMBER})?|(?:at|on) {_NUMBER})"
_OF_LIST: Final = (
    r" (?:from|off|of|on|out of)(?: (?:the|this|your|that|all|any|mailing|text|texting|sms|email"
    r"|marketing|contact|contacts|call|calling))* (?:lists?|database|system|messages|texts|emails"
    r"|contacts)"
)
_ANYTHING: Final = r"(?:anything|nothing)(?: (?:more|else|further))?"
_TO_GET: Final = r"(?: to)?(?: (?:get|receive|have|see|read|hear))?"
_MINE: Final = (
    r"(?:me|this (?:number|phone number)"
    r"|my (?:number|phone|name|email|address|phone number|email address))"
)
_I_WANT_TO: Final = (
    r"(?:(?:i (?:really )?(?:want|wish|need|would like) to|id like to|how (?:do|can) i|can i) )?"
)
_WORD: Final = r"(?:stop+(?:_all)?|unsub|unsubscribe|opt_out)"
_STOPS_FIRM: Final = (
    # The words themselves: what holds them is a no also in the middle of a sentence.
    rf"{_WORD}(?: (?:{_WORD}|end|quit|cancel|remove))*|stop everything|unsuscribe|unsubcribe",
    r"opt(?:ing)?_out|i opt_out|unsubscribing",
    (
        rf"{_I_WANT_TO}(?:unsubscribe(?: me)?|opt_out|opt_me_out)"
        rf"(?: (?:from|of) (?:all|everything|you|this|these|{_MESSAGES}))?"
    ),
    r"unsubscribe (?:me|all)",
    rf"{_I_WANT_TO}(?:stop|quit|cease) {_MESSAGES}",
    rf"(?:stop|quit|cease) {_ANGRILY}{_DOING}(?:{_ME})?(?: (?:(?:with|about) )?{_MESSAGES_OR_IT})?",
)
_STOPS: Final = (
    # Each of these stands for itself wherever it stands alone.
    *_STOPS_FIRM,
    rf"(?:stop|quit|cease)(?: with)? {_MESSAGES_OR_IT}",
    rf"no more {_MESSAGES}",
    rf"(?:cancel|end)(?: (?:all|my|the|these|your))* {_OURS}",  # "cancel it" may be an order
    rf"{_NEVER} {_ANGRILY}(?:{_DO_ALONE}|{_DO}(?:{_ME}| {_AGAIN}))(?: {_MESSAGES})?",
    rf"{_NEVER} (?:{_DO}|send)(?:{_ME})? {_MESSAGES}",
    # To whom is part of it: "don't send anything" may be about an order.
    rf"{_NEVER} {_ANGRILY}send{_ME} {_ANYTHING}(?: from you)?",
    rf"{_NEVER} {_ANGRILY}send {_ANYTHING}{_ME}",
    rf"i(?: really)? (?:do not|dont|no longer) want{_TO_GET} {_ANYTHING} from you",
    (
        r"i(?: really)? (?:do not|dont|no longer|never) (?:want|wish|wanted|need)"
        rf"(?:{_TO_GET}(?: {_MESSAGES}| from you)| to be {_DONE}(?: by you)?)"
    ),
    (
        rf"(?:remove|delete|erase|unsubscribe) {_MINE}"
        rf"(?: from (?:this|these)|(?: off)?(?:{_OF_LIST})?)"
    ),
    rf"(?:take|get) {_MINE}(?: off(?: (?:this|these))?|(?: off)?{_OF_LIST})",
    r"leave me alone|go away|get lost|(?:fuck|piss|bugger) off|lose my number|forget my number",
    r"(?:i )?(?:revoke|withdraw)(?: my)? consent",
)
_GERMAN: Final = r"(?:sms|nachrichten|nachricht|mails|e_mails|emails|werbung|texte|newsletter)"
_ICH: Final = r"(?:ich (?:mochte|will|wunsche|wurde gerne?|brauche) (?:bitte )?)?"
_MIST: Final = r"mist|scheiss|scheisse|mull|schrott|quatsch|blodsinn"
_DIESE_NUMMER: Final = (
    r"(?: (?:unter|auf|an) (?:diese[mrs]?|meine[mr]?|mein) (?:nummer|handynummer|telefonnummer"
    r"|handy|telefon|adresse|mailadresse))?"
)
# "Hört auf" alone says it; what goes on with anything but writing to them does not.
_ZU_SCHREIBEN: Final = (
    r"(?: (?:mir|uns|mich))?"
    r"(?: (?:weitere|weiterhin|immer|standig|solchen?|diesen?|euren?|ihren?))*"
    rf"(?: (?:{_GERMAN}|{_MIST}))?{_DIESE_NUMMER}"
    r" zu (?:schreiben|schicken|senden|texten|simsen|mailen|spammen|kontaktieren"
    r"|belastigen|nerven|storen)|(?: (?:mich|uns))? anzuschreiben"
)
_STOPS_GERMAN: Final = (
    r"halt|stoppen|abmelden|abbestellen|austragen",
    rf"(?:aufhoren|hor(?:t|en sie)?(?: bitte)? auf)(?: damit|{_ZU_SCHREIBEN})?",
    rf"{_ICH}mich (?:bitte )?(?:abmelden|austragen|loschen)",
    r"(?:melden sie|meldet|melde) mich (?:bitte )?ab",
    r"widerruf|ich widerrufe(?: meine einwilligung)?",
    (
        rf"{_ICH}(?:keine?|nie wieder|nie mehr)(?: (?:weiteren|weitere|mehr|solche|eure|ihre))*"
        rf" {_GERMAN}(?: mehr)?{_DIESE_NUMMER}(?: (?:schicken|senden|erhalten|bekommen|haben))?"
    ),
    (
        rf"{_ICH}(?:(?:alle|den|die|diese|diesen|eure|euren|ihre|ihren|meinen) )?{_GERMAN}"
        r" (?:abbestellen|stoppen|kundigen|abmelden|beenden|einstellen)"
    ),
    (
        r"(?:schreib|schreibt|schreiben sie|schick|schickt|schicken sie|sende|senden sie) mir"
        rf"{_DIESE_NUMMER}(?: bitte)?(?: (?:nicht|nichts|keine(?: {_GERMAN})?)"
        rf"|(?: (?:diesen|solchen|euren|ihren|den))? (?:{_MIST}) nicht)(?: mehr)?{_DIESE_NUMMER}"
    ),
    (
        r"(?:ich )?(?:mochte|will|wunsche) nichts mehr von (?:euch|ihnen|dir)"
        r"(?: (?:bekommen|erhalten|horen|lesen))?"
    ),
    rf"(?:bitte )?nicht mehr{_DIESE_NUMMER} (?:schreiben|anschreiben|kontaktieren|texten|storen)",
    rf"{_ICH}(?:nicht|nie) (?:mehr|wieder) (?:kontaktiert|angeschrieben|belastigt) werden",
    r"(?:lasst?|lassen sie) mich in ruhe|meine nummer loschen",
    r"(?:loschen sie|losch|loscht|losche) (?:mich|meine nummer)",
)
_STOP_ALONE: Final = _phrase(
    f"{_BEFORE}{_PREAMBLE}{_BEFORE}(?:{'|'.join((*_STOPS, *_STOPS_GERMAN))}){_AFTER}{_OR_ELSE}"
)
_STOP_FIRMLY: Final = _phrase(f"{_BEFORE}(?:{'|'.join(_STOPS_FIRM)}){_AFTER}{_OR_ELSE}")
# These say no only where nothing else was said: a conversation, or what it quotes, has other uses
# for them.
_STOP_WHOLE: Final = _phrase(
    f"{_BEFORE}(?:quit|end|revoke|cancel|remove|block|cease|ende|kundigen|loschen"
    r"|(?:cancel|end|quit|cease) all"
    rf"|(?:(?:text|txt|reply|send|sms) )?stop (?:2|to) (?:end|stop|cancel|quit|opt_out|unsubscribe)"
    rf"|(?:text|txt|reply|send|sms) stop){_AFTER}"
)
_START: Final = _phrase(
    f"{_BEFORE}(?:start|unstop|un stop|resume|restart|opt_in|opt me in|subscribe|resubscribe"
    rf"|start again|anmelden|weiter){_AFTER}"
)
_YES: Final = _phrase(rf"(?:yes|yes please|ja|ja bitte){_AFTER}")
_HELP: Final = _phrase(
    r"(?:(?:please|pls|plz|bitte) )?(?:help|info|information|hilfe)(?: (?:please|pls|plz|bitte))?"
)
_UNMUTE: Final = _phrase(rf"{_BEFORE}(?:un_mute|laut|nicht mehr stumm){_AFTER}")
_MUTE: Final = re.compile(
    r"(?:please |bitte )?(?:mute|stumm|stummschalten)"
    r"(?: (?:all|everything|alle|alles))?(?: (?:for|fur))?"
    r"(?: (?:(?P<ever>good|ever|forever|immer|always)"
    r"|(?:(?P<count>\d{1,3}|an?|one|eine?n?) ?)?(?P<unit>mins?|minuten?|minutes?|h|hours?|hrs?"
    r"|stunden?|std|d|days?|tage?|w|weeks?|wochen?|months?|monate?)))?"
)
_WHOLE: Final = (
    (_STOP_ALONE, STOPPED),
    (_STOP_WHOLE, STOPPED),
    (_START, Said(Word.START)),
    (_YES, Said(Word.START, surely=False)),
    (_HELP, Said(Word.HELP)),
    (_UNMUTE, Said(Word.UNMUTE)),
)
_UNITS: Final = {
    "mi": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "s": timedelta(hours=1),
    "d": timedelta(days=1),
    "t": timedelta(days=1),
    "w": timedelta(weeks=1),
    "mo": timedelta(days=30),
}
"""How long the units are, by how their names begin."""


def _muted(mute: re.Match[str]) -> Said:
    unit, count = mute["unit"], mute["count"]
    if unit is None:
        return Said(Word.MUTE)
    times = int(count) if count and count.isdigit() else 1
    lasts = next(length for begins, length in _UNITS.items() if unit.startswith(begins))
    return Said(Word.MUTE, lasting=max(1, times) * lasts)
