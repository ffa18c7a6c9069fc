"""Suppressions: an address that said no keeps its no, also where another customer gets it.

Consent belongs to a person at an address, so a yes never passes to whoever has the address next.
A no does, by caution: nobody can tell whether it is another person, and a message too few is mended
by the word START, where a message too many breaks the law. Of an address that nobody has, a keyed
hash is kept; what was said from one that somebody has, or had, is in the ledger.
"""

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from app.domain.consent import Consent, Scope
from app.domain.sealing import new_key, seal, unseal
from app.domain.suppression import lasting_noes, of_both
from app.domain.vocabulary import Channel
from app.store import optouts
from app.store.consents import consents_of
from app.store.intents import ledger_now
from app.store.keyring import seal_anew, sealed_key
from app.store.optouts import NewEndpoint
from app.usecases.consent.consents import Statement, say
from app.usecases.runtime import Runtime


def address_key(connection: Connection, secrets: Sequence[bytes]) -> bytes:
    """The key of the hashes, which a ledger has from its first process on.

    It is sealed by one of the secrets; where that is no longer the first, it is sealed anew, so
    that suppressions outlive the secret. Raises `WrongSecret`.
    """
    sealed = sealed_key(connection, seal(new_key(), secrets[0]))
    key, place = unseal(sealed, secrets)
    if place:
        seal_anew(connection, sealed, seal(key, secrets[0]))
    return key


def hash_of(runtime: Runtime, channel: str, service: str, address: str) -> bytes:
    """The hash (32 bytes) under which an address is kept.

    Whoever has the ledger but not the secret cannot try which address it is.
    """
    said = f"{channel}\0{service}\0{address.casefold()}"
    return hmac.digest(runtime.address_key, said.encode(), "sha256")


def heed(runtime: Runtime, connection: Connection, brand_id: int, refs: Collection[str]) -> bool:
    """Let addresses that this transaction gave to customers keep the no that they said before,
    while nobody had them or somebody else; say whether there was any.

    What the customer themselves said no to there, and still stands, is not said again. Its
    `enter_gate` must have come before the addresses.
    """
    new = {one.id: one for one in optouts.new_endpoints(connection, brand_id, refs)}
    if not new:
        return False
    noes = _noes_before(runtime, connection, brand_id, new)
    if not noes:
        return False
    say(
        connection,
        brand_id,
        [
            Statement(
                customer_id=new[key].customer_id,
                scope=replace(scope, endpoint_id=key),
                allow=False,
                source=no.source,
                own=no.own,
                until=no.until,
                evidence="the address said so before",
                fact=f"suppressed:{key}:{scope.sender_id}:{scope.topic_id}:{scope.kind}"
                f":{new[key].given_at.isoformat()}",
            )
            for (key, scope), no in noes.items()
        ],
    )
    return True


def _noes_before(
    runtime: Runtime, connection: Connection, brand_id: int, new: Mapping[int, NewEndpoint]
) -> dict[tuple[int, Scope], Consent]:
    """What new endpoints said no to, but for the address itself, and what each no was; none that
    their customers say themselves."""
    hashes = {
        one.id: hash_of(runtime, one.channel, one.service, one.address) for one in new.values()
    }
    known = optouts.suppressed(connection, brand_id, hashes.values())
    now = ledger_now(connection)
    found = {
        (key, scope): Consent(scope, False, now, no.until, own=no.own, source=no.source)
        for key, digest in hashes.items()
        for no in known.get(digest, ())
        for scope in [Scope(sender_id=no.sender_id, topic_id=no.topic_id, kind=no.kind)]
    }
    others = optouts.others_with(connection, new)
    people = {customer_id for _, _, customer_id in others}
    consents = consents_of(connection, people | {one.customer_id for one in new.values()})
    for key, endpoint_id, customer_id in others:
        # What they said of themselves is theirs; what they said of the address stays with it.
        said = [
            one
            for one in consents.get(customer_id, ())
            if one.allow or (one.own and one.scope.endpoint_id == endpoint_id)
        ]
        channel = Channel(new[key].channel)
        for scope, no in lasting_noes(said, channel, endpoint_id, now).items():
            before = found.get((key, scope))
            found[key, scope] = of_both(before, no) if before else no
    for one in new.values():
        said = consents.get(one.customer_id, [])
        for scope, mine in lasting_noes(said, Channel(one.channel), one.id, now).items():
            again = found.get((one.id, scope))
            if again is None or any(yes.lifts(mine) for yes in said):
                continue
            both = of_both(mine, again)
            if (both.until, both.own) == (mine.until, mine.own):
                del found[one.id, scope]
    return found
