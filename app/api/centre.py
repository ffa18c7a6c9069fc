"""The preference centre: a page on which a person says what may reach them, how and when.

Its token names the customer and is the credential: there are no cookies, so nobody else's page can
act for them. One from a message, which may be passed on, has the rights to choose alone; the page
then masks addresses, and sends the link with all rights to one of them. To come here changes
nothing (scanners follow links); only POST acts, and then leads back to the same page, so that a
page that is loaded again does not act again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

import anyio.to_thread
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from app.api.centre_view import Trouble, View
from app.api.description import PAGE_CODES, RESPONSES, page_doc
from app.api.pages import page, sorry
from app.api.parts import parts
from app.api.schemas import EXPORT, text
from app.content.speech import Speech, accepted, speech
from app.domain.tokens import BadToken, Claims, ExpiredToken, Purpose, Rights
from app.domain.vocabulary import Channel
from app.usecases.consent.inviting import send_link, ways_of_link
from app.usecases.consent.picture import Picture
from app.usecases.consent.preferences import (
    change_preferences,
    correct_address,
    look,
    mean_address,
    take_back,
)
from app.usecases.consent.voices import BadPreference, NoSuchCustomer, Voice
from app.usecases.people.correcting import AddressChange
from app.usecases.people.erasing import erase
from app.usecases.people.exporting import export
from app.usecases.runtime import Runtime

_log = structlog.get_logger(__name__)
router = APIRouter(tags=["tracking"])

IN_PERSON: Final = Voice("preferences", own=True, actor="customer")
MAX_FIELDS: Final = 500
_FOR: Final[Mapping[str, timedelta | None]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
    "good": None,
}
_SECTIONS: Final = (
    "pause", "topics", "senders", "off", "channels", "quiet", "addresses", "link",
)  # fmt: skip
_FORM: Final = {
    "requestBody": {
        "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
    }
}
_ACTED: Final = page_doc("", 303, (*PAGE_CODES, 403, 422))
_ACTED[RESPONSES]["200"] = {
    "description": "A page that asks again or says that it is done, or the data as a file",
    "content": {"text/html": {"schema": text()}, "application/json": {"schema": EXPORT}},
}
_AS_A_FILE: Final = {"Content-Disposition": 'attachment; filename="my-data.json"'}
Form = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Visit:
    """One request of a person whose token is good."""

    runtime: Runtime
    customer_id: int
    full: bool
    token: str
    accept_language: str

    def look(self) -> Picture:
        """Their preferences as they stand."""
        return look(self.runtime, self.customer_id)

    def words(self, picture: Picture) -> Speech:
        """Their language; else their browser's; else the brand's."""
        wishes = (picture.person.locale, *accepted(self.accept_language))
        return speech(*wishes, picture.brand.default_locale)

    def view(self, picture: Picture) -> View:
        """What they see of it, in their language."""
        ways = () if self.full else ways_of_link(self.runtime, picture)
        return View(picture, self.words(picture), full=self.full, ways=ways)


@router.head("/p/{token}", include_in_schema=False)
@router.get(
    "/p/{token}", summary="Preferences", openapi_extra=page_doc("text/html", 200, PAGE_CODES)
)
async def show(request: Request, token: str, done: str = "") -> Response:
    """The page; to come here changes nothing."""
    section = done if done in _SECTIONS else ""
    return await _answered(request, token, lambda visit: _page(visit, done=section))


@router.post(
    "/p/{token}",
    summary="Change preferences",
    openapi_extra={**_ACTED, **_FORM},
)
async def act(request: Request, token: str) -> Response:
    """Take one of the page's forms. 422: the same page, which says what is wrong.

    403: the link may choose alone, and this is more.
    """
    body = await request.body()
    return await _answered(request, token, lambda visit: _act(visit, _read(body)))


async def _answered(request: Request, token: str, answer: Callable[[_Visit], Response]) -> Response:
    """Answer whoever has a good token, and tell others that they have none, in no detail."""
    runtime = parts(request).runtime
    language = request.headers.get("accept-language", "")

    def told() -> Response:
        try:
            claims = runtime.words.signer.read(token, Purpose.PREFERENCES, datetime.now(UTC))
            return answer(_Visit(runtime, claims.id, _is_full(claims), token, language))
        except _MayNot:
            status = 403
        except NoSuchCustomer:  # there was one: the token is ours
            return sorry(language, 410, erased=True)
        except ExpiredToken:
            status = 410
        except BadToken:
            status = 404
        except SQLAlchemyError as error:
            _log.warning("preferences_not_read", exc_info=error)
            status = 503
        return sorry(language, status)

    return await anyio.to_thread.run_sync(told)


class _MayNot(Exception):
    """The link may choose alone, and this is more."""


def _is_full(claims: Claims) -> bool:
    try:
        return Rights(claims.index) is Rights.FULL
    except ValueError as error:
        raise BadToken("gives rights that there are not") from error


def _page(visit: _Visit, *, done: str = "", problem: Trouble | None = None) -> Response:
    picture = visit.look()
    words = visit.words(picture)
    values = visit.view(picture).values(done=done, problem=problem)
    return page("centre.html", words, 422 if problem else 200, action=visit.token, **values)


def _act(visit: _Visit, form: Form) -> Response:
    do = _one(form, "do")
    act = _ACTS.get(do)
    if act is None:
        return _page(visit, problem=Trouble("", "unknown"))
    if not (visit.full or do in _CHOICES):
        raise _MayNot
    try:
        done = act(visit, form)
    except BadPreference as bad:
        return _page(visit, problem=_trouble(bad, visit, form))
    if isinstance(done, Response):
        return done
    # Relative, so that it is right under whatever address the page was reached.
    return RedirectResponse(f"{visit.token}?done={done}#{done}", status_code=303)


def _topics(visit: _Visit, form: Form) -> str:
    """Only what the person changed on their page counts: all else may have changed meanwhile."""
    wanted: dict[str, Any] = {"topics": {}}
    for name in form:
        value = _one(form, name)
        if value not in ("yes", "no") or value == _one(form, f"was.{name}"):
            continue
        if name == "marketing":
            wanted["marketing"] = value == "yes"
        elif name.startswith("topic."):
            wanted["topics"][name.removeprefix("topic.")] = value == "yes"
    change_preferences(visit.runtime, visit.customer_id, wanted, IN_PERSON)
    return "topics"


def _pause(visit: _Visit, form: Form) -> str:
    wanted = {"everything": _mute(_one(form, "for"))}
    change_preferences(visit.runtime, visit.customer_id, wanted, IN_PERSON)
    return "pause"


def _mute_sender(visit: _Visit, form: Form) -> str:
    wanted = {"senders": {_one(form, "sender"): _mute(_one(form, "for"))}}
    change_preferences(visit.runtime, visit.customer_id, wanted, IN_PERSON)
    return "senders"


def _mute(lasts: str) -> dict[str, Any]:
    if lasts == "end":
        return {"muted": False}
    if lasts not in _FOR:
        raise BadPreference("for", "is no length of time")
    length = _FOR[lasts]
    until = None if length is None else (datetime.now(UTC) + length).isoformat()
    return {"muted": True, "until": until}


def _channels(visit: _Visit, form: Form) -> str:
    order = list(dict.fromkeys(filter(None, form.get("channel", ()))))
    change_preferences(visit.runtime, visit.customer_id, {"channels": order}, IN_PERSON)
    return "channels"


def _quiet(visit: _Visit, form: Form) -> str:
    times = {name: _one(form, name) for name in ("from", "to")}
    none = _one(form, "quiet") == "none" or not any(times.values())
    wanted: dict[str, Any] = {"quiet_hours": None if none else times}
    if "zone" in form:
        wanted["timezone"] = _one(form, "zone") or None
    change_preferences(visit.runtime, visit.customer_id, wanted, IN_PERSON)
    return "quiet"


def _correct(visit: _Visit, form: Form) -> str:
    address = _one(form, "address").strip()
    if not address:
        raise BadPreference("addresses.address", "must not be empty")
    change = AddressChange(_id(form), address)
    correct_address(visit.runtime, visit.customer_id, change, IN_PERSON)
    return "addresses"


def _ask_to_remove(visit: _Visit, form: Form) -> Response:
    picture = visit.look()
    words = visit.words(picture)
    shown = visit.view(picture).values(done="", problem=None)["addresses"]
    mine = [one for one in shown if one["id"] == _id(form)]
    if not mine:
        raise BadPreference("addresses", "there is no such address any more")
    return page(
        "remove.html",
        words,
        action=visit.token,
        fields={"do": "remove-surely", "id": mine[0]["id"]},
        address=mine[0]["address"],
    )


def _remove(visit: _Visit, form: Form) -> str:
    correct_address(visit.runtime, visit.customer_id, AddressChange(_id(form)), IN_PERSON)
    return "addresses"


def _allow(visit: _Visit, form: Form) -> str:
    take_back(visit.runtime, visit.customer_id, _id(form), IN_PERSON)
    return "off"


def _mean(visit: _Visit, form: Form) -> str:
    mean_address(visit.runtime, visit.customer_id, _id(form), IN_PERSON)
    return "addresses"


def _send_link(visit: _Visit, form: Form) -> str:
    if not send_link(visit.runtime, visit.customer_id, _id(form)):
        raise BadPreference("link", "cannot be sent there now")
    return "link"


def _download(visit: _Visit, _: Form) -> Response:
    person = visit.look().person
    pieces = export(visit.runtime, person.brand_id, person.ref, IN_PERSON.actor)
    if pieces is None:  # erased at this moment
        raise NoSuchCustomer
    return StreamingResponse(pieces, media_type="application/json", headers=_AS_A_FILE)


def _ask_to_erase(visit: _Visit, _: Form) -> Response:
    words = visit.words(visit.look())
    return page("erase.html", words, action=visit.token, fields={"do": "erase-surely"})


def _erase(visit: _Visit, _: Form) -> Response:
    """Answered at once with the last page: there is none any more to be led back to."""
    picture = visit.look()
    words = visit.words(picture)
    erase(visit.runtime, picture.person.brand_id, picture.person.ref, IN_PERSON.actor)
    return page("erased.html", words)


_ACTS: Final[Mapping[str, Callable[[_Visit, Form], str | Response]]] = {
    "topics": _topics,
    "pause": _pause,
    "mute": _mute_sender,
    "allow": _allow,
    "channels": _channels,
    "quiet": _quiet,
    "correct": _correct,
    "remove": _ask_to_remove,
    "remove-surely": _remove,
    "mean": _mean,
    "send-link": _send_link,
    "download": _download,
    "erase": _ask_to_erase,
    "erase-surely": _erase,
}
_CHOICES: Final = frozenset(("topics", "pause", "mute", "allow", "channels", "quiet", "send-link"))
"""What a link does that has the rights to choose alone."""
_SECTION_OF: Final = {
    "mute": "senders",
    "allow": "off",
    "correct": "addresses",
    "remove": "addresses",
    "remove-surely": "addresses",
    "mean": "addresses",
    "send-link": "link",
}
_KIND_OF: Final = {"addresses": "gone", "link": "link"}


def _trouble(bad: BadPreference, visit: _Visit, form: Form) -> Trouble:
    """What is wrong with a form, in the page's own terms."""
    do = _one(form, "do")
    section = _SECTION_OF.get(do, do)
    if section == "quiet":
        typed = {name: _one(form, name) for name in ("from", "to", "zone")}
        if bad.field == "timezone":
            return Trouble(section, "zone", ("zone",), typed)
        return Trouble(section, "times", ("from", "to"), typed)
    if do == "correct" and bad.field.endswith(".address"):
        key = _id(form)
        channels = {one.id: one.channel for one in visit.look().addresses}
        kind = channels[key].value if channels.get(key) in (Channel.EMAIL, Channel.SMS) else ""
        return Trouble(section, kind, (key,), {"address": _one(form, "address")})
    return Trouble(section, _KIND_OF.get(section, "unknown"))


def _read(body: bytes) -> Form:
    try:
        return parse_qs(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:  # too many fields
        return {}


def _one(form: Form, name: str) -> str:
    return form.get(name, [""])[-1]


def _id(form: Form) -> int:
    text = _one(form, "id")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
