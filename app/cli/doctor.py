"""`converge doctor`: what is wrong here, each with a way out."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import typer
from rich.text import Text

from app.channels.registry import Account, InvalidAccount, build_accounts
from app.cli import context
from app.cli.context import Json, declared
from app.cli.failures import FAILED, told
from app.cli.machine import answers
from app.cli.screen import out, plural, print_json
from app.cli.sight import blind, no_account, unserved
from app.content.templates import Templates
from app.limits.connection import connect, redis_errors
from app.store.schema import check
from app.store.session import make_engine
from app.usecases.operating.apply import Declared, difference
from app.usecases.runtime import Runtime
from app.usecases.telling.inspect import queue_state
from config.schema import DeclarationError, load_toml
from config.settings import Settings, SettingsError, load_settings

LATE_S = 30
"""Work that is due for longer, and held by nothing, is looked at by nobody."""
CONNECT_S = 3.0
_FAULTS = (SettingsError, DeclarationError, InvalidAccount)
"""Their texts have a line for each fault, which names its own way out."""
_MARGIN = 15


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `state`: ok, note (works, but mind it) or wrong."""

    what: str
    state: str
    text: str
    way_out: str = ""


def add_to(application: typer.Typer) -> None:
    """Add the command."""
    application.command(rich_help_panel="Look")(doctor)


def doctor(json: Json = False) -> None:
    """Check settings, servers, declarations and workers. Exit status 1 if something is wrong."""
    findings = []
    for finding in _findings():
        findings.append(finding)
        if not json:
            _show(finding)
    if json:
        print_json([asdict(finding) for finding in findings])
    wrong = sum(finding.state == "wrong" for finding in findings)
    if not json:
        out.print(f"\n{plural(wrong, 'thing')} to mend." if wrong else "\nAll is well.")
    if wrong:
        raise typer.Exit(FAILED)


def _show(finding: Finding) -> None:
    mark, style = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}[
        finding.state
    ]
    text = finding.text.replace("\n", "\n" + " " * _MARGIN)
    out.print(
        Text.assemble((f"{mark} ", style), (f"{finding.what:<13}", "bold"), text),
        soft_wrap=True,
    )
    if finding.way_out:
        out.print(Text(f"{'':{_MARGIN}}→ {finding.way_out}", style="cyan"), soft_wrap=True)


def _findings() -> Iterator[Finding]:
    """Everything that can be looked at; what rests on something that is wrong is left out."""
    settings: list[Settings] = []
    yield _look("settings", lambda: _settings(settings))
    if not settings:
        return
    of = settings[0]
    servers = []
    if not of.embedded:  # else they do not run, which is said already
        servers = [
            _look("ledger", lambda: _ledger(of)),
            _look("redis", lambda: _redis(of)),
            _look("broker", lambda: _broker(of)),
        ]
    yield from servers
    wishes: list[Declared] = []
    accounts: list[Account] = []
    yield _look("declarations", lambda: _declarations(of, wishes))
    yield _look("accounts", lambda: _accounts(of, accounts))
    yield _look("templates", lambda: _templates(of))
    if wishes and accounts:
        yield _look("policies", lambda: _policies(wishes[0], accounts))
        yield _look("channels", lambda: _channels(wishes[0], accounts))
    usable = bool(servers) and all(finding.state != "wrong" for finding in servers)
    if usable and accounts and wishes:
        runtime = context.runtime()
        yield _look("catalog", lambda: _catalog(runtime, wishes[0]))
        yield _look("health", lambda: _health(runtime))
        yield _look("workers", lambda: _workers(runtime))
    if servers:
        yield _look("api", lambda: _api(of, accounts))


def _look(what: str, at: Callable[[], Finding | str]) -> Finding:
    try:
        found = at()
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        if isinstance(error, _FAULTS):
            return Finding(what, "wrong", known[0])
        text, _, way_out = known[0].partition("\n")
        return Finding(what, "wrong", text, way_out)
    return found if isinstance(found, Finding) else Finding(what, "ok", found)


def _settings(found: list[Settings]) -> Finding | str:
    settings = load_settings()
    profile = "embedded" if settings.embedded else "configured"
    found.append(settings)
    settings = found[0] = context.settings()
    if not settings.secret:
        return Finding("settings", "wrong", "CONVERGE_SECRET is not set", _SECRET)
    return f"profile {profile}, declarations in {settings.config_dir}"


_SECRET = "Links in messages are signed with it; give the same one to every process."  # noqa: S105  # a sentence


def _ledger(of: Settings) -> str:
    engine = make_engine(of.database_url, pool_size=1)
    try:
        with engine.begin() as connection:
            check(connection)
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    finally:
        engine.dispose()
    return f"Postgres {str(version).split()[0]} answers, and its schema fits this release"


def _redis(of: Settings) -> Finding | str:
    with redis_errors():
        connection = connect(of.redis_url)
        version = connection.info("server")["redis_version"]
        policy = connection.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding(
            "redis",
            "note",
            f"Redis {version} may throw keys away (maxmemory-policy {policy})",
            "Set maxmemory-policy noeviction: hints and permits are kept there.",
        )
    return f"Redis {version} answers"


def _broker(of: Settings) -> Finding | str:
    url = urlsplit(of.broker_url)
    port = url.port or (5672 if url.scheme.startswith("amqp") else 6379)
    try:
        with socket.create_connection((url.hostname or "localhost", port), CONNECT_S):
            pass
    except OSError as error:
        return Finding(
            "broker",
            "wrong",
            f"nothing answers on {url.hostname}:{port} ({error.strerror or error})",
            "Look at CONVERGE_BROKER_URL, and whether the broker runs.",
        )
    return f"{url.scheme} on {url.hostname}:{port} answers"


def _declarations(of: Settings, found: list[Declared]) -> str:
    wishes = declared(of.config_dir)
    found.append(wishes)
    brands = plural(len(wishes.brands), "brand")
    return f"{brands}, {plural(len(wishes.policies), 'policy', 'policies')}"


def _accounts(of: Settings, found: list[Account]) -> Finding | str:
    accounts = list(build_accounts(load_toml(of.config_dir / "providers.toml")).values())
    found += accounts
    live = [account for account in accounts if not account.sandbox]
    if not accounts:
        return Finding("accounts", "wrong", "there are none", "Add one to providers.toml.")
    if not live:
        return Finding(
            "accounts",
            "note",
            f"{plural(len(accounts), 'account')}, all of them the sandbox's: nobody is reached",
            "Add a relay of your own to providers.toml when you mean it.",
        )
    return f"{plural(len(live), 'account')}: {', '.join(account.name for account in live)}"


def _templates(of: Settings) -> str:
    folder: Path = of.config_dir / "templates"
    return f"{plural(len(list(Templates(folder))), 'template')}, all of them compile"


def _policies(wishes: Declared, accounts: list[Account]) -> Finding | str:
    found = blind(wishes, accounts)
    if not found:
        return "each can see what it waits for"
    return Finding(
        "policies",
        "note",
        f"{', '.join(sorted(found))} wait for what can never be seen",
        "`converge policies check` tells why.",
    )


def _channels(wishes: Declared, accounts: list[Account]) -> Finding | str:
    found = unserved(wishes, accounts)
    if not found:
        return "every channel of a policy has an account"
    told, _, way_out = no_account(
        sorted({channel for channels in found.values() for channel in channels}), accounts
    ).partition("; ")
    return Finding(
        "channels",
        "note",
        f"{told}; named by {', '.join(sorted(found))}",
        f"{way_out.capitalize()}. Whoever has no other address is refused until then.",
    )


def _catalog(runtime: Runtime, wishes: Declared) -> Finding | str:
    changes = difference(runtime, wishes)
    if not changes:
        return "the ledger knows all that is declared"
    return Finding(
        "catalog",
        "wrong" if any(line.startswith("+") for line in changes) else "note",
        f"the ledger does not know {plural(len(changes), 'change')} ({changes[0]} …)",
        "Run `converge apply`.",
    )


def _health(runtime: Runtime) -> Finding | str:
    health = runtime.health.health(list(runtime.accounts), datetime.now(UTC))
    resting = [name for name, one in health.items() if one.open_until is not None]
    if not resting:
        return "no account is resting"
    return Finding(
        "health",
        "wrong",
        f"{', '.join(resting)} was refused or failed lately, and rests",
        "Look at its credentials; `converge failed list` and `converge queues` tell more.",
    )


def _workers(runtime: Runtime) -> Finding | str:
    state = queue_state(runtime)
    late = [
        f"{lane['channel']}.{lane['lane']}"
        for lane in state["lanes"]
        if (lane["oldest_due_s"] or 0) > LATE_S
    ]
    if not late:
        return "nothing waits for longer than it should"
    return Finding(
        "workers",
        "wrong",
        f"work is late in {', '.join(late)}",
        "Do beat, a core worker and that channel's fleet run? Flower shows who is there.",
    )


def _api(of: Settings, accounts: list[Account]) -> Finding | str:
    local = urlsplit(of.public_url).hostname in ("127.0.0.1", "localhost", "::1")
    if local and any(not account.sandbox for account in accounts):
        return Finding(
            "api",
            "wrong",
            f"links in messages lead to {of.public_url}, which only this machine can follow",
            "Set CONVERGE_PUBLIC_URL to the address that customers reach.",
        )
    if answers(f"{of.public_url}/healthz"):
        return f"{of.public_url} answers"
    return Finding(
        "api",
        "note",
        f"{of.public_url} does not answer from here",
        "Links in messages lead there; run `converge api` (or `converge up`) behind it.",
    )
