"""Matrix on a real homeserver: rooms, receipts and answers, over the wire both ways."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.api import create
from app.bootstrap import build
from app.channels.chat.matrix import MatrixProvider
from app.channels.contract import Accepted, Blame, ChatBody, Message, Outcome, Rejected, Retryable
from app.domain.vocabulary import Channel
from app.usecases.hearing.feedback import read_feedback
from app.usecases.operating.apply import Declared, apply
from config.settings import Settings
from tests.contract.servers import free_port
from tests.contract.synapse import AS_TOKEN, HS_TOKEN, SERVER, Person, Synapse, wait_for
from tests.e2e.api import MAX_BYTES, serving
from tests.store.conftest import DECLARED, SECRET, House, KeptHints, intent, policy
from tests.store.conftest import sink as sink

# Installing Synapse takes its time, once.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

PROVIDERS = f"""
[matrix]
channel = "chat"
provider = "matrix"
url = "{{url}}"
user = "@converge:{SERVER}"
as_token = "{AS_TOKEN}"
hs_token = "{HS_TOKEN}"
room_secret = "a secret of the tests"
"""
CHAT_ALONE = policy("chat-only", (["chat"], None))


@dataclass
class World:
    """Converge, its API, and the homeserver between it and its customers."""

    house: House
    synapse: Synapse

    def tell(self, person: Person, key: str) -> None:
        """Send an order's message to a customer, by way of the ledger."""
        to = {"ref": person.user[1:4], "chat": [f"matrix:{person.user}"]}
        self.house.accept(intent(to, key=key, policy="chat-only"))
        self.house.run()

    def told(self) -> dict[str, int]:
        return read_feedback(self.house.runtime)

    def one(self, query: str) -> Any:
        """The first row of a query, once there is one; what was pushed meanwhile is read."""

        def look() -> Any:
            self.told()
            return next(iter(self.house.rows(query)), None)

        return wait_for(look, query)


@pytest.fixture
def world(database_url: str, redis_url: str, sink: Any, tmp_path: Path) -> Iterator[World]:
    port = free_port()
    (tmp_path / "providers.toml").write_text(PROVIDERS.format(url=f"http://127.0.0.1:{port}"))
    settings = Settings(
        database_url=database_url,
        redis_url=redis_url,
        secret=(SECRET,),
        public_url="https://converge.example",
        config_dir=tmp_path,
    )
    hints = KeptHints()
    runtime = replace(build(settings), hints=hints)
    apply(runtime, Declared(DECLARED.brands, {**DECLARED.policies, "chat-only": CHAT_ALONE}))
    with serving(create(runtime, max_bytes=MAX_BYTES)) as url:
        synapse = Synapse(tmp_path, port, f"{url}/hooks/matrix")
        synapse.configure()
        try:
            synapse.start()
            yield World(House(runtime, hints, sink), synapse)
        finally:
            synapse.stop()
    for account in runtime.accounts.values():
        account.provider.close()
    runtime.engine.dispose()


def _provider(synapse: Synapse, **own: Any) -> MatrixProvider:
    settings = {
        "url": synapse.url,
        "user": f"@converge:{SERVER}",
        "as_token": AS_TOKEN,
        "hs_token": HS_TOKEN,
        "room_secret": "a secret of the tests",
        **own,
    }
    return MatrixProvider("matrix", Channel.CHAT, MatrixProvider.Settings.model_validate(settings))


def _message(user: str, number: int = 1) -> Message:
    return Message(number, f"key-{number}", user, "Store", ChatBody("Hi", "<p>Hi</p>"), "matrix")


def _send(provider: MatrixProvider, *messages: Message) -> list[Outcome]:
    return provider.send(messages, time.monotonic() + 60)


def test_what_is_sent_is_read_and_answered(world: World) -> None:
    ada = world.synapse.register("ada")
    world.tell(ada, "order-991")
    assert world.house.states() == {"sent": 1}

    room = ada.accept_invitation()
    [event] = ada.messages(room)
    assert event["sender"] == f"@converge:{SERVER}"
    assert event["content"]["body"] == "Your order 991 is on its way."
    assert "<strong>order</strong>" in event["content"]["formatted_body"]
    [sent] = world.house.rows("SELECT provider_ref FROM deliveries")
    assert sent.provider_ref == event["event_id"]

    ada.read(room, event["event_id"])
    seen = world.one("SELECT seen_as FROM intents WHERE state = 'seen'")
    assert seen.seen_as == "read"

    answer = ada.write(room, "Thanks! When?", answers=event["event_id"])
    kept = world.one("SELECT * FROM inbound_messages")
    assert (kept.account, kept.external_id, kept.service) == ("matrix", answer, "matrix")
    assert (kept.from_address, kept.to_identity) == (ada.user, f"@converge:{SERVER}")
    assert kept.text == "Thanks! When?"
    assert kept.customer_id is not None
    assert kept.delivery_id is not None

    # What is read is read with all that came before it.
    world.tell(ada, "order-992")
    world.tell(ada, "order-993")
    *_, last = ada.messages(room)
    ada.read(room, last["event_id"])
    world.one("SELECT 1 FROM intents HAVING count(*) FILTER (WHERE state = 'seen') = 3")


def test_rooms_outlive_processes_and_people_who_leave(world: World) -> None:
    bob = world.synapse.register("bob")
    providers = [_provider(world.synapse) for _ in range(2)]
    together: list[list[Outcome]] = []
    threads = [
        threading.Thread(
            target=lambda p=provider, n=number: together.append(
                _send(p, *[_message(bob.user, n * 10 + one) for one in range(3)])
            )
        )
        for number, provider in enumerate(providers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Who comes while the room is being made may have to come again.
    outcomes = [outcome for each in together for outcome in each]
    assert len(outcomes) == 6
    assert all(isinstance(one, Accepted | Retryable) for one in outcomes), outcomes
    assert any(isinstance(one, Accepted) for one in outcomes), outcomes
    room = bob.accept_invitation()

    again = _send(providers[0], _message(bob.user, 100))
    assert again == _send(providers[1], _message(bob.user, 100))
    accepted = {one.ref for one in [*outcomes, *again] if isinstance(one, Accepted)}
    assert {one["event_id"] for one in bob.messages(room)} == accepted

    # The room is theirs and ours alone, and stays readable.
    encrypted = {"algorithm": "m.megolm.v1.aes-sha2"}
    third = {"user_id": f"@third:{SERVER}"}
    for attempt in (
        bob.attempt("PUT", f"rooms/{room}/state/m.room.encryption", encrypted),
        bob.attempt("POST", f"rooms/{room}/invite", third),
        bob.attempt("POST", f"rooms/{room}/kick", {"user_id": f"@converge:{SERVER}"}),
    ):
        assert attempt.status_code == 403, attempt.text

    bob.call("POST", f"rooms/{room}/leave", {})
    late = _provider(world.synapse)
    [outcome] = _send(late, _message(bob.user, 101))
    assert isinstance(outcome, Accepted)
    assert bob.accept_invitation() == room
    assert bob.messages(room)[-1]["event_id"] == outcome.ref

    nobody = _message(f"@nobody:{SERVER}", 102)
    assert _send(late, nobody) == [Rejected("matrix_no_such_user", Blame.RECIPIENT)]
    huge = _message(bob.user, 103)._replace(body=ChatBody("x" * 70_000, ""))
    assert _send(late, huge) == [Rejected("matrix_too_large", Blame.CONTENT)]
    stranger = _provider(world.synapse, as_token="another")
    assert _send(stranger, _message(bob.user, 104)) == [
        Rejected("matrix_unknown_token", Blame.ACCOUNT)
    ]
    for provider in (*providers, late, stranger):
        provider.close()


def test_with_a_device_a_repeat_is_known_after_a_restart(world: World) -> None:
    eve = world.synapse.register("eve")
    us = world.synapse.us_as_person()
    login = {"type": "m.login.application_service", "device_id": "CONVERGE"}
    us.call(
        "POST", "register", {"type": login["type"], "username": "converge", "inhibit_login": True}
    )
    us.call("POST", "login", {**login, "identifier": {"type": "m.id.user", "user": us.user}})
    us.call("PUT", f"profile/{us.user}/displayname", {"displayname": "Example Store"})
    provider = _provider(world.synapse, device="CONVERGE")
    first = _send(provider, _message(eve.user))
    assert isinstance(first[0], Accepted)
    world.synapse.stop()
    assert _send(provider, _message(eve.user, 2)) == [Retryable("http_connect_failed")]
    world.synapse.start()
    assert _send(provider, _message(eve.user)) == first
    unknown = _provider(world.synapse, device="NONE")
    assert _send(unknown, _message(eve.user)) == [Rejected("matrix_unknown_device", Blame.ACCOUNT)]
    room = eve.accept_invitation()
    assert len(eve.messages(room)) == 1
    provider.close()
    unknown.close()
