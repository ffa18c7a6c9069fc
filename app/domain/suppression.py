"""What is left of a person's word once the person is erased: the noes that their addresses said."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from app.domain.consent import Consent, Scope, in_effect
from app.domain.vocabulary import Channel


def lasting_noes(
    consents: Iterable[Consent], channel: Channel, endpoint_id: int, now: datetime
) -> dict[Scope, Consent]:
    """The noes in force that speak of an address, as wide as they were said but for the address
    itself, each with the statement behind it. Of several the one that lasts longest, as the
    person's own where any of them is: nobody else takes that back while it lasts.
    """
    said = in_effect(consents, now)
    yeses = [one for one in said if one.allow]
    found: dict[Scope, Consent] = {}
    for no in said:
        if no.allow:
            continue
        if no.scope.channel not in (None, channel):
            continue
        if no.scope.endpoint_id not in (None, endpoint_id):
            continue
        here = replace(no.scope, channel=channel, endpoint_id=endpoint_id)
        if not any(yes.lifts(no) and here.within(yes.scope) for yes in yeses):
            bare = replace(here, channel=None, endpoint_id=None)
            found[bare] = of_both(found[bare], no) if bare in found else no
    return found


def of_both(one: Consent, other: Consent) -> Consent:
    """The one that lasts longer, as the person's own where either is."""
    longest = max(one, other, key=lambda no: (no.until is None, no.until or no.at, no.own))
    return replace(longest, own=one.own or other.own)
