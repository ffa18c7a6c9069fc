"""What preferences and consents look like, as OpenAPI says it."""

from typing import Any, Final

from app.api.schemas import Schema, listed, maybe, said, shape, text
from app.domain.vocabulary import Channel, Kind
from app.usecases.consent.inviting import LASTS_H, MOST_H
from app.usecases.consent.statements import MOST

_TIME: Final = text(format="date-time")
_FLAG: Final[Schema] = {"type": "boolean"}
_YES_OR_NO: Final = {
    **maybe(_FLAG),
    "description": "null: nothing was said, or part of a no was taken back; in PUT: stays",
}
_NUMBER: Final[Schema] = {"type": "integer"}
_CHANNEL: Final = text(enum=list(Channel))
_KIND: Final = text(enum=list(Kind))
_BY: Final = text(enum=["customer", "brand"], description="whose word it is")
_ANYTHING: Final[Schema] = {"description": "shown by GET; ignored here"}
_CLOCK: Final = text(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$", description="as in 21:00")

_MUTED: Final = {
    **maybe(_FLAG),
    "description": "null: muted, but part of it was allowed again since; in PUT: stays",
}
_MUTE: Final = shape({"muted": _MUTED, "until": maybe(_TIME)}, required=("muted",))
_MUTE_SHOWN: Final = shape(_MUTE["properties"])
_QUIET: Final = maybe(
    {
        **shape({"from": _CLOCK, "to": _CLOCK}),
        "description": "hours in which nothing is sent, by the customer's own clock; "
        "urgent transactional messages pass",
    }
)
_SCOPE_SHOWN: Final = shape(
    {
        "channel": maybe(_CHANNEL),
        "sender": maybe(text()),
        "topic": maybe(text()),
        "kind": maybe(_KIND),
        "address": maybe(text()),
    }
)
_SCOPE: Final = {
    **shape(
        {
            "channel": maybe(_CHANNEL),
            "sender": maybe(said(63)),
            "topic": maybe(said(63)),
            "kind": maybe(_KIND),
            "address": maybe(said(288, description="one that the customer has")),
        },
        required=(),
    ),
    "description": "what it speaks of: everything that fits all that is given",
}


def _by_name(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


_CHOSEN: Final[dict[str, Schema]] = {
    "everything": _MUTE_SHOWN,
    "topics": _by_name(_YES_OR_NO),
    "marketing": _YES_OR_NO,
    "senders": _by_name(_MUTE_SHOWN),
    "channels": {
        **listed(_CHANNEL, len(Channel)),
        "uniqueItems": True,
        "description": "those wished first, in this order",
    },
    "quiet_hours": _QUIET,
    "timezone": maybe(text(description="of the IANA database, such as Europe/Berlin")),
}
_NO: Final[dict[str, Schema]] = {
    "id": _NUMBER,
    "scope": _SCOPE_SHOWN,
    "until": maybe(_TIME),
    "at": _TIME,
    "source": text(),
    "by": _BY,
}
PREFERENCES: Final = shape(
    {
        "customer": text(),
        **_CHOSEN,
        "addresses": listed(
            shape(
                {
                    "id": _NUMBER,
                    "channel": _CHANNEL,
                    "service": text(),
                    "address": text(),
                    "verified": _FLAG,
                    "state": text(enum=["active", "invalid"]),
                    "reason": maybe(text()),
                    "meant": {
                        **_FLAG,
                        "description": "false: marketing was agreed to before this address came, "
                        "and does not go there until it is verified or agreed to again",
                    },
                }
            )
        ),
        "off": listed(shape(_NO)),
        "now": listed(
            shape(
                {
                    "topic": text(),
                    "channel": _CHANNEL,
                    "allowed": _FLAG,
                    "marketing": _FLAG,
                    "until": maybe(_TIME),
                }
            )
        ),
    }
)
PREFERENCES_WISHED: Final = {
    **shape(
        {
            **_CHOSEN,
            "everything": _MUTE,
            "senders": _by_name(_MUTE),
            "timezone": maybe(said(64)),
            "addresses": {
                **listed(
                    shape(
                        {
                            "id": maybe(_NUMBER),
                            "channel": maybe(_CHANNEL),
                            "service": maybe(text(32)),
                            "address": said(288),
                            "verified": maybe(_FLAG),
                            "state": _ANYTHING,
                            "reason": _ANYTHING,
                            "meant": _ANYTHING,
                        },
                        required=("address",),
                    ),
                    80,
                ),
                "description": "all that there are to be: with the id of a known one it is "
                "corrected, without it is new, and what is left out is removed",
            },
            "by": maybe(_BY),
            "evidence": maybe(said(200, description="what proves it: a form, a call")),
            "customer": _ANYTHING,
            "off": _ANYTHING,
            "now": _ANYTHING,
        },
        required=(),
    ),
    "examples": [
        {
            "marketing": True,
            "channels": ["email", "sms"],
            "quiet_hours": {"from": "21:00", "to": "08:00"},
            "timezone": "Europe/Berlin",
        }
    ],
}

_STATEMENT: Final[dict[str, Any]] = {
    **shape(
        {
            "scope": _SCOPE,
            "allow": _FLAG,
            "until": maybe(_TIME),
            "by": maybe(_BY),
            "evidence": maybe(said(200, description="what proves it: a form, a call")),
            "key": maybe(said(100, description="the same key says nothing new")),
        },
        required=("scope", "allow"),
    ),
    "examples": [
        {
            "scope": {"kind": "marketing"},
            "allow": True,
            "by": "customer",
            "evidence": "sign-up form of 2026-03",
        }
    ],
}
STATEMENTS: Final[Schema] = {
    "anyOf": [_STATEMENT, {**listed(_STATEMENT, MOST), "minItems": 1}],
    "examples": _STATEMENT["examples"],
}
_CONSENT: Final = shape(
    {
        "id": _NUMBER,
        "allow": _FLAG,
        "scope": _SCOPE_SHOWN,
        "until": maybe(_TIME),
        "at": _TIME,
        "source": text(),
        "by": text(enum=["customer", "brand", "law"], description="whose word it is"),
        "actor": text(),
        "evidence": text(),
        "in_force": _FLAG,
    }
)
STATEMENTS_KEPT: Final = shape({"consents": listed(_CONSENT)})
CONSENT_LIST: Final = shape(
    {
        "customer": text(),
        "consents": listed(_CONSENT),
        "next": maybe(text(description="give it as `cursor` for the following page")),
    }
)
LINK_WISHED: Final = {
    **shape(
        {
            "hours": maybe(
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_H,
                    "description": f"how long it is good, {LASTS_H} unless said, to the minute",
                }
            )
        },
        required=(),
    ),
    "examples": [{"hours": LASTS_H}],
}
LINK: Final = shape({"url": text(format="uri"), "expires_at": _TIME})
