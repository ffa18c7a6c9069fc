"""Accounts for which we are too fast: they lose traffic by degrees, and keep no message."""

from collections import Counter
from dataclasses import replace

import pytest

from app.channels.registry import build_accounts
from app.limits.health import AccountHealth
from tests.contract.servers import Answer, Request, ScriptedHttp
from tests.store.conftest import House, intent

TEXTS = {"channel": "sms", "provider": "sandbox", "secret": "secret"}


def test_an_account_that_is_too_slow_for_us_keeps_nothing(house: House) -> None:
    asked: Counter[str] = Counter()

    def busy(_: Request) -> Answer:
        asked["a"] += 1
        return Answer(429, headers={"Retry-After": "3600"})

    def well(_: Request) -> Answer:
        asked["b"] += 1
        return Answer(200, b'{"ref": "r%d"}' % asked["b"])

    with ScriptedHttp(busy).running() as a, ScriptedHttp(well).running() as b:
        made = build_accounts({"a": {**TEXTS, "url": a.url}, "b": {**TEXTS, "url": b.url}})
        relay = house.runtime.accounts["relay"]
        # By chance `a` would get one of the last: a trickle is left to it.
        accounts = {"relay": relay, **made}
        house.runtime = replace(house.runtime, accounts=accounts, jitter=lambda: 0.0)
        people = [{"ref": f"c{n}", "phone": f"+120255501{n:02}"} for n in range(40)]
        house.accept(*(intent(one) for one in people))
        house.run()
        [soon] = house.rows(
            "SELECT max(due_at) < now() + interval '3 seconds' AS soon, count(*) AS n"
            " FROM deliveries WHERE state = 'planned' AND account = ''"
        )
        assert (soon.n, soon.soon) == (asked["a"], True)
        assert asked["b"] == 40 - asked["a"] < 40
        house.execute("UPDATE deliveries SET due_at = now() WHERE state = 'planned'")
        house.run()
        assert house.runtime.health.health(["a"])["a"].errors > 0.5
        house.execute("UPDATE deliveries SET due_at = now() WHERE state = 'planned'")
        house.run()
        for account in made.values():
            account.provider.close()
    assert asked["b"] == 40
    assert house.states() == {"sent": 40}


def test_it_loses_traffic_and_opens_no_breaker(house: House) -> None:
    health: AccountHealth = house.runtime.health

    def after(ok: int, limited: int, seconds: float) -> None:
        health.after_batch("texts", ok=ok, failed=0, limited=limited, seconds=seconds)

    for _ in range(10):
        after(0, 20, 0.01)
    known = health.health(["texts"])["texts"]
    assert known.errors > 0.9
    assert (known.open_until, known.pace_per_s, known.latency_s) == (None, None, None)
    after(5, 95, 1.0)
    known = health.health(["texts"])["texts"]
    assert known.pace_per_s == pytest.approx(5.0)
    assert known.latency_s == pytest.approx(0.64)
