"""Opting out and in: what facts and people's words say about consent, written down with them.

In the transaction of the events that bring it, so that neither is there without the other. Every
word is heard, written down and answered with the same holders, brands and answers at hand: hence
the length of the class.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from app.content.notices import lasting, notice
from app.domain.consent import Consent, Scope, stands_in_person
from app.domain.opt_words import Said, Word
from app.store import optouts
from app.store.catalog import Brand
from app.store.consents import consents_of
from app.store.intents import ledger_now
from app.store.optouts import Holder
from app.usecases.consent.consents import Statement, say
from app.usecases.consent.noes import NoByFact, say_by_facts
from app.usecases.consent.suppressing import hash_of
from app.usecases.delivering.rendering import preferences_url
from app.usecases.hearing.answering import Answer, Stranger, answer, turn_of
from app.usecases.hearing.heard import Heard, concerned, identified
from app.usecases.runtime import Runtime

HELP_AGAIN_S = 60
"""One endpoint is told so seldom at most what changes nothing."""


@dataclass(frozen=True, slots=True)
class _Strange:
    """A word from an address that no customer has, to be answered; `former` is who had it once."""

    stranger: Stranger
    heard: Heard
    former: Holder | None


class Opting:
    """What one batch of feedback says about consent.

    Made before any intent is locked; `intents` are those to be locked before `act`.
    """

    def __init__(
        self,
        runtime: Runtime,
        connection: Connection,
        facts: Iterable[NoByFact],
        heard: Sequence[Heard],
    ) -> None:
        self._runtime = runtime
        self._connection = connection
        self._facts = list(facts)
        self._heard = heard
        self._brands = runtime.catalog().brands_by_id
        self._answers: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._strangers: list[_Strange] = []
        self._known: dict[int, Sequence[Consent]] = {}
        self._holders = self._find()
        brands = {one.brand_id for found in self._holders.values() for one in found}
        if not brands <= self._brands.keys():  # declared just now
            self._brands = runtime.catalog.anew(connection).brands_by_id
        people = {fact.spoken.customer_id for fact in self._facts}
        people |= {one.customer_id for found in self._holders.values() for one in found}
        self.intents = optouts.lock_people(connection, people) if people else []

    def act(self) -> Mapping[tuple[str, str], list[int]]:
        """Write down what was said; return the answers to hint at, by channel and account."""
        say_by_facts(self._connection, self._brands, self._facts)
        for n, one in enumerate(self._heard):
            if self._holders[n]:
                self._hear(one, self._holders[n])
            else:
                self._hear_stranger(one)
        # Each holds what others may wait for, so all hold it in one order.
        for strange in sorted(self._strangers, key=lambda each: each.stranger.place):
            self._answer_stranger(strange)
        return self._answers

    # -- who ---------------------------------------------------------------------------------------

    def _find(self) -> dict[int, list[Holder]]:
        """Who has the address of each word, at all brands that it may concern."""
        rows = [
            {
                "n": n,
                "brand_ids": concerned(self._brands, one),
                "channel": one.channel.value,
                "service": one.service,
                "address": one.address,
            }
            for n, one in enumerate(self._heard)
        ]
        if not rows:
            return {}
        stopped = {
            brand_id
            for one in self._heard
            if one.said.word is Word.STOP
            for brand_id in concerned(self._brands, one)
        }
        if stopped:
            # Closed already (see `facts`), unless what is answered is of a brand without the number
            # that was written to. Who is given the address at this very moment is found, too.
            optouts.close_gates(self._connection, stopped)
        return optouts.holders(self._connection, rows)

    def _unheld(self, one: Heard, holders: Sequence[Holder]) -> bool:
        """Whether a no of these says nothing for whichever live customer has the address later."""
        return all(holder.test for holder in holders) and not self._rehearsed(one, holders)

    def _rehearsed(self, one: Heard, holders: Sequence[Holder]) -> bool:
        """Whether it is test customers alone who speak, and through an account of theirs.

        They speak for themselves, and their numbers may be anybody's.
        """
        sandbox = self._runtime.accounts[one.account].sandbox
        return bool(holders) and sandbox and all(holder.test for holder in holders)

    # -- words -------------------------------------------------------------------------------------

    def _hear(self, one: Heard, holders: Sequence[Holder]) -> None:
        known = self._said_by(holders)
        now = ledger_now(self._connection)
        news = one.said.word is not Word.HELP
        match one.said.word:
            case Word.STOP:
                told = self._stop(one, holders, known, now)
            case Word.START:
                told = self._start(one, holders, known, now)
                if not told and one.said.surely:
                    told, news = list(holders), False
            case Word.MUTE | Word.UNMUTE:
                told = self._mute(one, holders, now)
            case Word.HELP:
                told = list(holders)
        if told and not one.answered:
            self._answer(one, told, now, news=news)

    def _said_by(self, holders: Sequence[Holder]) -> Mapping[int, Sequence[Consent]]:
        """What these said before; with the first, what all did of whom the batch is."""
        if not self._known:
            self._know({one.customer_id for found in self._holders.values() for one in found})
        mine = {one.customer_id for one in holders}
        self._know(mine - self._known.keys())
        return {key: self._known[key] for key in mine}

    def _know(self, customer_ids: set[int]) -> None:
        if customer_ids:
            said = consents_of(self._connection, customer_ids)
            self._known |= {key: said.get(key, []) for key in customer_ids}

    def _stop(
        self,
        one: Heard,
        holders: Sequence[Holder],
        known: Mapping[int, Sequence[Consent]],
        now: datetime,
    ) -> list[Holder]:
        """A no of everybody who has the address; the holders for whom it is new."""
        kept = self._unheld(one, holders) and self._suppress(one)
        new = []
        for holder in holders:
            scope = Scope(endpoint_id=holder.endpoint_id, sender_id=self._narrowed(one, holder))
            if not stands_in_person(known.get(holder.customer_id, ()), scope, now, whole=True):
                self._say(one, holder, scope, allow=False)
                new.append(holder)
        return new or (list(holders) if kept else [])

    def _hear_stranger(self, one: Heard) -> None:
        """A word from an address that nobody has: what it says is kept for whoever will have it
        (see `suppressing`), and what cannot be kept is answered with what can be said."""
        match one.said.word:
            case Word.STOP:
                told = self._suppress(one)
            case Word.START:
                told = one.said.surely and self._lift(one)
            case _:
                one, told = replace(one, said=Said(Word.HELP)), True
        if told:
            self._note_stranger(one, self._brand_of(one), None)

    def _brand_of(self, one: Heard) -> Brand | None:
        """The brand that a stranger wrote to, where there is no doubt about it."""
        brands = [self._brands[key] for key in concerned(self._brands, one)]
        if len(brands) == 1 or (brands and identified(brands[0], one) is not None):
            return brands[0]
        return None

    def _lift(self, one: Heard) -> bool:
        key = hash_of(self._runtime, one.channel, one.service, one.address)
        return optouts.lift(self._connection, concerned(self._brands, one), [key])

    def _suppress(self, one: Heard) -> bool:
        key = hash_of(self._runtime, one.channel, one.service, one.address)
        return optouts.suppress(
            self._connection,
            [
                {
                    "brand_id": brand_id,
                    "hash": key.hex(),
                    "channel": one.channel.value,
                    "kind": None,
                    "source": "text",
                }
                for brand_id in concerned(self._brands, one)
            ],
        )

    def _start(
        self,
        one: Heard,
        holders: Sequence[Holder],
        known: Mapping[int, Sequence[Consent]],
        now: datetime,
    ) -> list[Holder]:
        """A yes to each no of the address; return the holders who had said one.

        "Yes" also answers other questions, so it counts where there is a no to be taken back: one
        that keeps from this person what they answer. A no to a kind or a topic was said elsewhere,
        and a yes to it could be one to marketing.
        """
        lifted = []
        for holder in holders:
            said = known.get(holder.customer_id, ())
            spoken_to = (None, self._sender(one, holder))
            scopes = {
                no.scope: None
                for no in said
                if no.scope.endpoint_id == holder.endpoint_id
                and no.scope.kind is None
                and no.scope.topic_id is None
                and (one.said.surely or no.scope.sender_id in spoken_to)
                and not no.allow
                and stands_in_person(said, no.scope, now)
            }
            if scopes:
                lifted.append(holder)
            elif one.said.surely:
                scopes = {Scope(endpoint_id=holder.endpoint_id): None}
            for scope in scopes:
                self._say(one, holder, scope, allow=True)
        if (lifted or one.said.surely) and not self._rehearsed(one, holders):
            self._lift(one)
        return lifted

    def _mute(self, one: Heard, holders: Sequence[Holder], now: datetime) -> list[Holder]:
        """Silence, or bring back, the sender of what is answered, on every channel.

        Of whoever has the address now: who had it once gets nothing there, and elsewhere is not
        spoken for by whoever has it now.
        """
        told = []
        for holder in [each for each in holders if each.active] or holders:
            sender_id = self._sender(one, holder) or self._who_may_be_meant(holder)
            if sender_id is None:  # a brand without senders speaks to nobody
                continue
            self._say(
                one,
                holder,
                Scope(sender_id=sender_id),
                allow=one.said.word is Word.UNMUTE,
                until=now + one.said.lasting if one.said.lasting else None,
            )
            told.append(holder)
        return told

    def _say(
        self,
        one: Heard,
        holder: Holder,
        scope: Scope,
        *,
        allow: bool,
        until: datetime | None = None,
    ) -> None:
        # One by one: of two words in one batch the later one must be the later statement.
        said = Statement(
            customer_id=holder.customer_id,
            scope=scope,
            allow=allow,
            source="text",
            until=until,
            evidence=one.name,
            fact=f"{one.name}:{scope.endpoint_id or ''}:{scope.sender_id or ''}",
        )
        say(self._connection, holder.brand_id, [said])
        self._known.pop(holder.customer_id, None)

    def _sender(self, one: Heard, holder: Holder) -> int | None:
        """The sender that is spoken to: of the message answered, else who has that identity."""
        if one.spoken is not None:
            return one.spoken.sender_id
        return identified(self._brands[holder.brand_id], one)

    def _who_may_be_meant(self, holder: Holder) -> int | None:
        """Who spoke last to an address, however long ago; else whom the brand speaks by."""
        last = optouts.last_speaker(self._connection, holder)
        brand = self._brands[holder.brand_id]
        if last is not None or brand.default_sender is None:
            return last
        return brand.senders[brand.default_sender].id

    def _narrowed(self, one: Heard, holder: Holder) -> int | None:
        if self._brands[holder.brand_id].settings.get("opt_out") != "sender":
            return None
        return self._sender(one, holder)

    # -- answers -----------------------------------------------------------------------------------

    def _answer(
        self, one: Heard, told: Sequence[Holder], now: datetime, *, news: bool = True
    ) -> None:
        """Answer once, to the one who was written to, or else to the first who has the address.

        Who has it no longer has all the same written from there just now. `news`: it changed
        something.
        """
        mine = one.spoken.endpoint_id if one.spoken else None
        holder = next((each for each in told if each.endpoint_id == mine), told[0])
        if not holder.active:
            self._note_stranger(one, self._brands[holder.brand_id], holder)
            return
        key = one.name
        if not news:
            # Two machines that help each other shall not do so for ever.
            turn = int(now.timestamp()) // HELP_AGAIN_S
            key = f"{one.said.word.value}:{holder.endpoint_id}:{turn}"
        self._say_back(one, holder, key, holder, news=news)

    def _note_stranger(self, one: Heard, brand: Brand | None, former: Holder | None) -> None:
        if brand is not None and not one.answered:
            stranger = Stranger(brand.id, one.channel, one.service, one.address, one.at)
            self._strangers.append(_Strange(stranger, one, former))

    def _answer_stranger(self, strange: "_Strange") -> None:
        one = strange.heard
        found = turn_of(self._connection, strange.stranger, news=one.said.word is not Word.HELP)
        if found is not None:
            holder, turn = found
            self._say_back(one, holder, one.name, strange.former, turn.due)

    def _say_back(
        self,
        one: Heard,
        holder: Holder,
        key: str,
        said_by: Holder | None,
        due: datetime | None = None,
        *,
        news: bool = True,
    ) -> None:
        brand = self._brands[holder.brand_id]
        sender_id = self._sender(one, holder) or self._who_may_be_meant(holder)
        if sender_id is None:
            return
        text = self._text(one, said_by, brand, sender_id, news=news)
        may_choose = said_by is not None and said_by.active
        if one.said.word is Word.HELP and may_choose and not brand.settings.get("help_text"):
            link = preferences_url(self._runtime, holder.customer_id, ledger_now(self._connection))
            text += " " + notice("choices", holder.locale or brand.default_locale, link=link)
        self._known.pop(holder.customer_id, None)  # an answer may need a yes of its own
        number = answer(
            self._runtime,
            self._connection,
            Answer(holder, sender_id, one.account, key, one.name, text, one.at, due),
        )
        if number is not None:
            self._answers[holder.channel.value, one.account].append(number)

    def _text(
        self, one: Heard, said_by: Holder | None, brand: Brand, sender_id: int, *, news: bool
    ) -> str:
        own = brand.settings.get("help_text")
        if own and one.said.word is Word.HELP:
            return str(own)
        catalog = self._runtime.catalog.knowing(senders=[sender_id], connection=self._connection)
        sender = catalog.senders_by_id[sender_id]
        locale = (said_by.locale if said_by else None) or brand.default_locale
        return notice(
            self._notice(one, said_by, news=news),
            locale,
            brand=str(brand.settings.get("title") or brand.name),
            sender=str(sender.settings.get("name") or sender.name),
            lasting=lasting(one.said.lasting, locale) if one.said.lasting else "",
        )

    def _notice(self, one: Heard, said_by: Holder | None, *, news: bool) -> str:
        """The name of the notice that answers a word."""
        match one.said.word:
            case Word.STOP:
                narrowed = said_by is not None and self._narrowed(one, said_by) is not None
                return "stopped_sender" if narrowed else "stopped"
            case Word.START:
                return "started" if news else "starting"
            case Word.MUTE:
                return "muted_for" if one.said.lasting else "muted"
            case Word.UNMUTE:
                return "unmuted"
            case Word.HELP:
                stopped = said_by is not None and self._is_stopped(one, said_by)
                return "help_stopped" if stopped else "help"

    def _is_stopped(self, one: Heard, holder: Holder) -> bool:
        """Whether what an address said before, by STOP for one, keeps everything from it."""
        said = self._said_by([holder])[holder.customer_id]
        scope = Scope(endpoint_id=holder.endpoint_id, sender_id=self._narrowed(one, holder))
        return stands_in_person(said, scope, ledger_now(self._connection))
