"""The console: pages on which operators see why a customer did, or did not, get something.

A browser signs in by HTTP Basic (RFC 7617) with an API key as the password, and sees what the key
reaches; the user name is free. The pages change nothing, run no scripts and set no cookies.
"""

import base64
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.api.callers import key_in_force
from app.api.intents import visible
from app.api.parts import Said, named, parts
from app.api.problems import Problem
from app.domain.masking import masked
from app.store.keys import Key
from app.usecases.consent.preferences import read_preferences
from app.usecases.consent.voices import NoSuchCustomer
from app.usecases.people.timelines import customer_timeline
from app.usecases.runtime import Runtime
from app.usecases.telling.inspect import BadFilter, list_intents
from app.usecases.telling.plain import end, left, statement, when

router = APIRouter(prefix="/console", include_in_schema=False)
PAGE: Final = 100
OPEN: Final = 20
"""Open intents that a customer's page lists."""
_STYLE: Final = resources.files("app.api").joinpath("templates/console/console.css").read_text()
CSP: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"
)
SIGN_IN: Final = 'Basic realm="Converge: an API key is the password", charset="UTF-8"'


async def _signed_in(request: Request) -> Key | None:
    """The key that the browser gave as its password."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        _, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except ValueError:  # not base64, or not UTF-8
        return None
    return await key_in_force(request, password)


Operator = Annotated[Key | None, Depends(_signed_in)]


@router.get("")
async def find(request: Request, key: Operator, find: str = "") -> Response:
    """Find an intent by its id or key, or a customer by their ref."""

    def found(runtime: Runtime, key: Key) -> Response:
        address = _find(runtime, key, find.strip()) if find.strip() else None
        if address is not None:
            return RedirectResponse(f"/console/{address}", 303)
        return _page("find.html", key, status=404 if find else 200, sought=find)

    return await _answer(request, key, found)


@router.get("/intents/{intent_id}")
async def intent(request: Request, key: Operator, intent_id: str) -> Response:
    """The story of one intent: what happened, what was considered, and what happens next."""

    def found(runtime: Runtime, key: Key) -> Response:
        return _page("intent.html", key, one=visible(runtime, key, intent_id))

    return await _answer(request, key, found, intent_id)


@router.get("/customers/{ref:path}")
async def customer(request: Request, key: Operator, ref: str, cursor: Said = None) -> Response:
    """Everything between the brand and one customer, over all channels."""

    def found(runtime: Runtime, key: Key) -> Response:
        whom = named(key, ref)
        items, older = customer_timeline(runtime, whom, limit=PAGE, cursor=cursor)
        chosen = read_preferences(runtime, whom)
        hidden = masked if key.reach.whole else str  # else they are masked already
        waiting, _ = list_intents(
            runtime,
            key.brand_id,
            customer=ref,
            state="open",
            senders=key.senders,
            test=True if key.test else None,
            limit=OPEN,
        )
        days = [(day, list(all_of)) for day, all_of in groupby(items, lambda one: one["at"].date())]
        return _page(
            "customer.html",
            key,
            ref=ref,
            addresses=[{**one, "address": hidden(one["address"])} for one in chosen["addresses"]],
            wishes=_wishes(chosen, hidden),
            waiting=[visible(runtime, key, str(one["id"])) for one in waiting],
            days=days,
            older=older,
            cursor=cursor,
        )

    return await _answer(request, key, found, ref)


async def _answer(
    request: Request, key: Key | None, work: Callable[[Runtime, Key], Response], sought: str = ""
) -> Response:
    """Answer whoever signed in; where what is `sought` is not found, say so."""
    if key is None:
        asked = _page("sign_in.html", None, status=401)
        asked.headers["WWW-Authenticate"] = SIGN_IN
        return asked
    try:
        return await anyio.to_thread.run_sync(work, parts(request).runtime, key)
    except BadFilter:  # a page of a list that goes on elsewhere
        sought = ""
    except NoSuchCustomer:
        pass
    except Problem as problem:
        if problem.status != 404:
            raise
    return _page("find.html", key, status=404, sought=sought)


def _find(runtime: Runtime, key: Key, sought: str) -> str | None:
    """The page, below the console, of what somebody looks for."""
    with suppress(ValueError, Problem):
        return f"intents/{visible(runtime, key, str(UUID(sought)))['id']}"
    with suppress(NoSuchCustomer):
        read_preferences(runtime, named(key, sought))
        return f"customers/{quote(sought, safe='')}"
    rows, _ = list_intents(
        runtime,
        key.brand_id,
        key=sought,
        senders=key.senders,
        test=True if key.test else None,
        limit=1,
    )
    return f"intents/{rows[0]['id']}" if rows else None


def _wishes(chosen: dict[str, Any], hidden: Callable[[str], str]) -> list[tuple[str, str]]:
    """What a customer allows and wishes, in words."""
    quiet = chosen["quiet_hours"]
    muted = {name: one for name, one in chosen["senders"].items() if one["muted"] is not False}
    refused = [name for name, allowed in chosen["topics"].items() if allowed is False]
    paused = chosen["everything"]["muted"] is not False
    everything = [_muted("everything", chosen["everything"])] if paused else []
    marketing = {True: "consented", False: "refused", None: "no consent given"}[chosen["marketing"]]
    told = [
        ("Muted", "; ".join(everything + [_muted(name, one) for name, one in muted.items()])),
        ("Marketing", marketing),
        ("Topics turned off", ", ".join(refused)),
        ("Other opt-outs", " ".join(_no(one, hidden) for one in chosen["off"])),
        ("Channels first", ", ".join(chosen["channels"])),
        ("Quiet hours", f"{quiet['from']} to {quiet['to']}" if quiet else ""),
        ("Time zone", chosen["timezone"] or "not known"),
    ]
    return [(name, value) for name, value in told if value]


def _muted(name: str, one: dict[str, Any]) -> str:
    told = f"{name} until {when(one['until'])}" if one["until"] else f"{name}, for good"
    return told if one["muted"] else f"{told}, in part"


def _no(one: dict[str, Any], hidden: Callable[[str], str]) -> str:
    address = one["scope"]["address"]
    scope = {**one["scope"], "address": hidden(address) if address else None}
    return statement({**one, "scope": scope, "allow": False})


def _page(template: str, key: Key | None, status: int = 200, **values: Any) -> Response:
    body = _environment().get_template(template).render(**values, key=key)
    return HTMLResponse(body, status, {"Content-Security-Policy": CSP})


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("app.api", "templates/console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["style"] = Markup(_STYLE)  # noqa: S704  # our own file
    made.filters |= {
        "end": end,
        "quoted": lambda ref: quote(ref, safe=""),
        "when": when,
    }
    made.globals["left"] = left
    return made
