"""Webhooks: what is signed is kept once and answered after its commit; no other leaves a row."""

import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import text
from structlog.testing import capture_logs

from app.api import create
from app.api.door import HOOK_FACTOR
from app.channels.contract import (
    BadSignature,
    HookRequest,
    Message,
    Receipt,
    Traits,
    WebhookReader,
)
from app.channels.registry import PROVIDERS, Account, build_accounts
from app.domain.vocabulary import Channel
from app.store.session import make_engine
from tests.e2e.api import MAX_BYTES, Site, intent, serving
from tests.e2e.conftest import wait_for

SECRET = b"secret"


def signed(body: bytes, secret: bytes = SECRET, age: int = 0) -> dict[str, str]:
    stamp = str(int(time.time()) - age)
    v1 = hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"X-Converge-Signature": f"t={stamp},v1={v1}", "Content-Type": "application/json"}


def report(number: int = 1) -> bytes:
    return json.dumps(
        {"id": f"e{number}", "ref": "r1", "event": "delivered", "at": "2026-01-01T00:00:00+00:00"}
    ).encode()


def hook(site: Site, body: Any, headers: dict[str, str], account: str = "texts") -> Any:
    return site.call("POST", f"/hooks/{account}", key="", data=body, headers=headers)


def kept(site: Site) -> int:
    return int(site.house.rows("SELECT count(*) FROM inbox")[0][0])


def test_a_signed_report_is_kept_once_and_read(site: Site) -> None:
    site.post("/v1/intents", intent())
    site.house.execute(
        "UPDATE deliveries SET state = 'sent', account = 'texts', provider_ref = 'r1'"
    )
    for _ in range(2):
        answer = hook(site, report(), signed(report()))
        assert (answer.status_code, answer.content) == (204, b"")
    [row] = site.house.rows("SELECT source, body, headers FROM inbox")
    assert (row.source, bytes(row.body)) == ("texts", report())
    assert row.headers == {"content-type": "application/json"}
    wait_for(lambda: site.house.hints.inbox == 1, "the hint follows the answer")
    assert site.read_feedback()["delivered"] == 1
    assert site.house.states() == {"delivered": 1}


def test_what_the_provider_did_not_sign_is_not_kept(site: Site) -> None:
    body = b'{"id": "e1"}'
    for headers in ({}, signed(body, b"guess"), signed(b"other"), signed(body, age=3600)):
        site.problem(hook(site, body, headers), 403, None)
    for account in ("relay", "nobody", "nobody/at/all", "%2e%2e"):  # a relay reads no webhooks
        site.problem(hook(site, body, signed(body), account), 404, None)
    assert kept(site) == 0


def test_what_is_signed_and_makes_no_sense_is_kept_with_the_reason(site: Site) -> None:
    for body in (b"<html><body>Bad Gateway</body></html>", b"\x00\xff", b"", b"[" * 100_000):
        assert hook(site, body, signed(body)).status_code == 204
    assert site.read_feedback() == {"unread": 4}
    problems = [row[0] for row in site.house.rows("SELECT problem FROM inbox")]
    assert len(problems) == 4
    assert all(one.startswith("not a receipt") for one in problems)


def test_a_report_may_be_longer_than_other_bodies(site: Site) -> None:
    """A homeserver repeats what is refused before all that comes after it."""
    long = b"x" * (HOOK_FACTOR * MAX_BYTES)
    assert hook(site, long, signed(long)).status_code == 204
    longer = long + b"x"
    site.problem(hook(site, longer, signed(longer)), 413, "body")
    site.problem(hook(site, iter([longer]), signed(longer)), 413, "body")
    assert kept(site) == 1


def test_the_door_refuses_without_asking_the_ledger(site: Site) -> None:
    away = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with serving(create(replace(site.house.runtime, engine=away))) as url, capture_logs() as logs:
        broken = replace(site, url=url)
        site.problem(hook(broken, b"x", {}), 403, None)
        site.problem(hook(broken, b"x", signed(b"x"), "nobody"), 404, None)
        assert [log for log in logs if log["event"] != "pulse_lost"] == []
        answer = hook(broken, b"x", signed(b"x"))
        site.problem(answer, 503, None)
        assert answer.headers["Retry-After"]
    away.dispose()


# -- by the thousand -----------------------------------------------------------------------------


def request(body: bytes, headers: dict[str, str], account: str = "texts") -> bytes:
    lines = [f"POST /hooks/{account} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(site: Site, requests: Sequence[bytes]) -> Counter[int]:
    """Send all of them over a few connections that stay open; return how many of each status."""
    rest = iter(requests)
    found: Counter[int] = Counter()

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for one in rest:
            writer.write(one)
            head = await reader.readuntil(b"\r\n\r\n")
            found[int(head.split(None, 2)[1])] += 1
            for line in head.lower().splitlines():
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
        writer.close()
        await writer.wait_closed()

    async def all_of_them() -> None:
        await asyncio.gather(*(client(int(site.url.rpartition(":")[2])) for _ in range(32)))

    asyncio.run(all_of_them())
    return found


def test_thousands_of_forged_skewed_and_replayed_reports_leave_one_row(site: Site) -> None:
    forged = [request(report(n), signed(report(n), b"guess")) for n in range(1_000)]
    skewed = [
        request(report(n), signed(report(n), age=301 if n % 2 else -3_600)) for n in range(1_000)
    ]
    strange = [request(report(n), signed(report(n)), f"nobody{n}") for n in range(500)]
    replayed = [request(report(), signed(report()))] * 1_000
    assert answers(site, forged + skewed) == {403: 2_000}
    assert answers(site, strange) == {404: 500}
    assert kept(site) == 0
    assert answers(site, replayed) == {204: 1_000}
    assert kept(site) == 1


ACCOUNTS = {
    "texts": {
        "channel": "sms",
        "provider": "sandbox",
        "url": "http://127.0.0.1:9",
        "secret": "secret",
    },
    "twilio-1": {
        "channel": "sms",
        "provider": "twilio",
        "account_sid": "AC" + "0" * 32,
        "auth_token": "a-token-of-the-tests",
        "from_number": "+15550100",
        "public_url": "https://converge.example",
        "url": "http://127.0.0.1:9",
    },
    "rooms": {
        "channel": "chat",
        "provider": "matrix",
        "url": "http://127.0.0.1:9",
        "user": "@converge:example.org",
        "as_token": "a",
        "hs_token": "h",
        "room_secret": "a-secret-of-the-tests",
    },
}
BODIES = (b"", b"{}", b"a=1&b=2", b"<html>", b"\xff\xfe", b"%ff=%00&%", b"&" * 500, b"[" * 500)
QUERIES = ("", "?", "?bodySHA256=x", "?bodySHA256=%ff&bodySHA256=", "?%00ff=%e9", "?a=[&//[")
MARKS = (b"", b"t=1,v1=", b"t=\xb2,v1=\xe9", b"Bearer", b"Bearer \xff", b"=,=,=", b"AAAA" * 500)


def garbage(account: str, number: int) -> bytes:
    """A request as nobody who has the secret would make it; each number is another."""
    rest, body = divmod(number, len(BODIES))
    rest, query = divmod(rest, len(QUERIES))
    mark = MARKS[rest % len(MARKS)]
    method = ("POST", "PUT")[number % 3 == 0]
    path = f"/hooks/{account}{('', '/', '/_matrix/app/v1/transactions/%2F')[number % 3]}"
    head = f"{method} {path}{QUERIES[query]} HTTP/1.1\r\nHost: x\r\n".encode("latin-1")
    names = (b"X-Converge-Signature", b"X-Twilio-Signature", b"Authorization", b"Content-Type")
    marks = b"".join(name + b": " + mark + b"\r\n" for name in names)
    length = f"Content-Length: {len(BODIES[body])}\r\n\r\n".encode()
    return head + marks + length + BODIES[body]


def test_garbage_by_the_thousand_is_refused_by_every_provider(site: Site) -> None:
    accounts = build_accounts(ACCOUNTS, {})
    readers = {one for one, kind in PROVIDERS.items() if issubclass(kind, WebhookReader)}
    assert {str(one["provider"]) for one in ACCOUNTS.values()} == readers
    with serving(create(replace(site.house.runtime, accounts=accounts))) as url:
        here = replace(site, url=url)
        for account in accounts:
            found = answers(here, [garbage(account, number) for number in range(700)])
            assert found.total() == 700
            assert set(found) <= {400, 403}, (account, found)  # 400: NUL in the address
            assert found[403] > 500
    for one in accounts.values():
        one.provider.close()
    assert kept(site) == 0


# -- kept together -------------------------------------------------------------------------------


@contextmanager
def gathered(site: Site, bodies: Sequence[bytes]) -> Iterator[tuple[list[Future[Any]], Any]]:
    """Post all bodies at once while the inbox is locked; unlocked when the block ends.

    Yields the answers to come and the locked connection. The first body is being committed, the
    others have gathered behind it.
    """
    app: FastAPI = create(site.house.runtime)
    keeper = app.state.parts.keeper
    engine = site.house.runtime.engine
    with serving(app) as url, ThreadPoolExecutor(len(bodies)) as pool, engine.connect() as locked:
        locked.execute(text("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE"))
        here = replace(site, url=url)
        coming = [pool.submit(hook, here, bodies[0], signed(bodies[0]))]
        wait_for(lambda: keeper._work is not None and not keeper._waiting, "the first is taken")
        coming += [pool.submit(hook, here, body, signed(body)) for body in bodies[1:]]
        wait_for(lambda: len(keeper._waiting) == len(bodies) - 1, "the others gather")
        yield coming, locked
        locked.rollback()
        for one in coming:
            one.result()


def test_what_arrives_during_a_commit_is_kept_by_the_next_one(site: Site) -> None:
    with gathered(site, [report(n) for n in range(20)]) as (coming, locked):
        assert not any(one.done() for one in coming)  # nobody is answered before the commit
        locked.rollback()
        assert {one.result().status_code for one in coming} == {204}
    assert kept(site) == 20
    assert site.house.rows("SELECT count(DISTINCT xmin::text) FROM inbox")[0][0] == 2


def test_one_that_cannot_be_kept_spoils_no_other(site: Site) -> None:
    site.house.execute("ALTER TABLE inbox ADD CHECK (body <> 'poison'::bytea)")
    with gathered(site, [report(0), report(1), b"poison", report(2)]) as (coming, locked):
        locked.rollback()
        assert [one.result().status_code for one in coming] == [204, 204, 503, 204]
    assert kept(site) == 3


def test_a_commit_that_fails_is_said_to_each_of_its_batch(site: Site) -> None:
    cut = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    bodies = [report(n) for n in range(10)]
    with gathered(site, bodies) as (coming, _):
        for done in (1, 10):  # the first commit, then the one of all others
            wait_for(lambda: site.house.rows(cut), "a connection is cut")
            wait_for(lambda n=done: sum(one.done() for one in coming) == n, "they are told")
        for one in coming:
            site.problem(one.result(), 503, None)
    assert kept(site) == 0
    assert {hook(site, body, signed(body)).status_code for body in bodies} == {204}
    assert kept(site) == 10


# -- what a provider is told ---------------------------------------------------------------------


class NoSettings(BaseModel):
    pass


@dataclass
class Listening:
    """A provider that signs the method and the URL, and answers in its vendor's form."""

    heard: list[HookRequest]
    traits: ClassVar[Traits] = Traits(channels=frozenset({Channel.CHAT}), receipts=True)
    Settings: ClassVar[type[BaseModel]] = NoSettings

    def send(self, _batch: Sequence[Message], _deadline: float) -> list[Any]:
        raise AssertionError

    def close(self) -> None:
        pass

    def verify(self, request: HookRequest) -> None:
        self.heard.append(request)
        said = f"{request.method} {request.url}".encode()
        expected = hmac.new(SECRET, said, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(request.headers.get("x-signed", ""), expected):
            raise BadSignature

    def read(self, _request: HookRequest) -> list[Receipt]:
        return []

    def answer(self, _request: HookRequest) -> bytes:
        return b"{}"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/hooks/rooms", ""),
        ("/hooks/rooms/", "/"),
        ("/hooks/rooms?b=1&a=%20x+y&a=2", ""),
        ("/hooks/rooms/_matrix/app/v1/transactions/17?q=%2F", "/_matrix/app/v1/transactions/17"),
        ("/hooks/rooms/a%2Fb%20c", "/a/b c"),
    ],
)
def test_a_provider_sees_the_public_address_as_it_was_called(
    site: Site, method: str, address: str, path: str
) -> None:
    provider = Listening([])
    account = replace(
        next(iter(site.house.runtime.accounts.values())),
        name="rooms",
        channel=Channel.CHAT,
        provider=provider,
    )
    accounts: dict[str, Account] = {"rooms": account}
    with serving(create(replace(site.house.runtime, accounts=accounts))) as url:
        here = replace(site, url=url)
        public = f"https://converge.example{address}"
        mark = hmac.new(SECRET, f"{method} {public}".encode(), hashlib.sha256).hexdigest()
        answer = here.call(method, address, key="", data=b"x", headers={"X-Signed": mark})
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["Content-Type"] == "application/json"
        wrong = here.call(method, address, key="", data=b"x", headers={"X-Signed": mark[::-1]})
        here.problem(wrong, 403, None)
    assert (provider.heard[0].method, provider.heard[0].path) == (method, path)
    [row] = site.house.rows("SELECT headers FROM inbox")
    assert row.headers == ({":path": path} if path else {})
