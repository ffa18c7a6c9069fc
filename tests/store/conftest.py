"""A runtime on real Postgres, Redis and SMTP, whose hints are kept instead of published."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from app.bootstrap import build
from app.domain.states import DELIVERY_MOVES, INTENT_MOVES
from app.sandbox.mailsink import MailSink
from app.usecases.deciding.decide import decide_intents
from app.usecases.delivering.deliver import Hand, deliver
from app.usecases.delivering.dispatch import dispatch
from app.usecases.hints import Hints
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission, Verdict
from app.usecases.operating.apply import BrandWish, Declared, apply
from app.usecases.runtime import Runtime
from config.settings import Settings

PROVIDERS = """
[relay]
channel = "email"
provider = "smtp"
host = "127.0.0.1"
port = {port}
tls = "none"

[texts]
channel = "sms"
provider = "sandbox"
url = "http://127.0.0.1:9"
secret = "secret"
"""
SECRET = "a secret of the tests alone, long enough"


def policy(name: str, *steps: tuple[Sequence[str], float | None], expires: float = 3600) -> Any:
    """A policy in the ledger's form: (channels, unless seen within seconds) a step."""
    return {
        "name": name,
        "expires_after_s": expires,
        "seen_at": "opened",
        "steps": [{"channels": list(c), "unless_seen_within_s": w} for c, w in steps],
    }


DECLARED = Declared(
    brands={
        "demo": BrandWish(
            settings={"title": "Demo", "default_locale": "en", "default_sender": "store"},
            senders={
                "store": {"name": "Demo Store", "email": "store@shop.example", "tracking": "all"},
                "billing": {"name": "Billing", "email": "bills@shop.example", "tracking": "all"},
            },
            topics={"orders": "Your orders"},
        )
    },
    policies={
        one["name"]: one
        for one in (
            policy("notify", (["email"], 1800), (["chat", "sms"], 7200), (["sms"], None)),
            policy("email-only", (["email"], None)),
        )
    },
)


class KeptHints(Hints):
    """Hints as lists: what would have been published."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[str, str, str, list[int]]] = []
        self.decisions: list[UUID] = []
        self.inbox = 0
        self.in_broker: dict[str, int] | None = None

    def depths(self) -> dict[str, int] | None:
        return self.in_broker

    def deliver(self, channel: str, lane: str, batches: Any) -> None:
        self.deliveries += [(channel, lane, account, list(ids)) for account, ids in batches]

    def decide(self, intents: Sequence[UUID]) -> None:
        self.decisions += intents

    def feedback(self) -> None:
        self.inbox += 1


@dataclass
class House:
    """The runtime, its hints, its mail sink, and short words for what tests do all the time."""

    runtime: Runtime
    hints: KeptHints
    sink: MailSink
    chunk: UUID = field(default_factory=uuid4)

    def accept(self, *documents: dict[str, Any], **submission: Any) -> list[Verdict]:
        return accept(self.runtime, Submission("demo", uuid4(), **submission), list(documents))

    def tick(self) -> dict[str, int]:
        return dispatch(self.runtime)

    def work(self) -> dict[str, int]:
        """Do all that was hinted, decisions first, until nothing is hinted any more."""
        counts: dict[str, int] = {}
        while self.hints.decisions or self.hints.deliveries:
            decisions, self.hints.decisions = self.hints.decisions, []
            if decisions:
                decide_intents(self.runtime, decisions)
            deliveries, self.hints.deliveries = self.hints.deliveries, []
            for _, _, account, ids in deliveries:
                for word, count in deliver(self.runtime, account, ids, Hand(uuid4())).items():
                    counts[word] = counts.get(word, 0) + count
        return counts

    def run(self) -> dict[str, int]:
        """A tick, and the work that it releases."""
        self.tick()
        return self.work()

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.runtime.engine.begin() as connection:
            return list(connection.execute(text(query), parameters).all())

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.runtime.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def states(self) -> dict[str, int]:
        rows = self.rows("SELECT state, count(*) FROM deliveries GROUP BY 1")
        return {row[0]: row[1] for row in rows}


def intent(to: Any = "ada", **more: Any) -> dict[str, Any]:
    """An intent's document; the least that is real."""
    return {
        "to": to,
        "topic": "orders",
        "content": {"subject": "Order 991", "text": "Your **order** 991 is on its way."},
        **more,
    }


def customer(ref: str = "ada", **more: Any) -> dict[str, Any]:
    return {"ref": ref, "email": f"{ref}@example.com", **more}


def hold_to_the_tables(engine: Engine) -> None:
    """Let the ledger raise at a move that the domain's tables do not know."""
    for table, moves in (("deliveries", DELIVERY_MOVES), ("intents", INTENT_MOVES)):
        allowed = " ".join(f"{old}>{new}" for old, news in moves.items() for new in news)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"""
                CREATE FUNCTION moved_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NOT old.state || '>' || new.state = ANY(string_to_array('{allowed}', ' '))
                    THEN RAISE 'no such move: %% to %%', old.state, new.state; END IF;
                    RETURN new;
                END $$;
                CREATE TRIGGER moved BEFORE UPDATE ON {table} FOR EACH ROW
                  WHEN (old.state <> new.state) EXECUTE FUNCTION moved_{table}()""")


@pytest.fixture
def sink() -> Iterator[MailSink]:
    with MailSink().running() as sink:
        yield sink


@pytest.fixture
def house(database_url: str, redis_url: str, sink: MailSink, tmp_path: Path) -> Iterator[House]:
    (tmp_path / "providers.toml").write_text(PROVIDERS.format(port=sink.port))
    settings = Settings(
        database_url=database_url,
        redis_url=redis_url,
        secret=(SECRET,),
        public_url="https://converge.example",
        config_dir=tmp_path,
    )
    hints = KeptHints()
    runtime = replace(build(settings), hints=hints)
    hold_to_the_tables(runtime.engine)
    apply(runtime, DECLARED)
    yield House(runtime, hints, sink)
    for account in runtime.accounts.values():
        account.provider.close()
    runtime.engine.dispose()
