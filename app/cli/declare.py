"""`converge migrate`, `apply` and `policies check`: the ledger's form, and what files declare."""

import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from app.channels.registry import build_accounts
from app.cli.context import Json, declared, runtime, settings
from app.cli.failures import FAILED, USAGE, Problem
from app.cli.screen import out, plural, print_json
from app.cli.sight import complaints
from app.usecases.operating import apply as applying
from config.schema import load_toml
from config.settings import load_settings

policies = typer.Typer(no_args_is_help=True, help="Look at escalation policies.")
_SIGNS = {"+": "green", "-": "red", "~": "yellow"}


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    application.command(rich_help_panel="Set up")(migrate)
    application.command("apply", rich_help_panel="Set up")(apply)
    policies.command("check")(check_policies)
    application.add_typer(policies, name="policies", rich_help_panel="Set up")


def migrate() -> None:
    """Bring the ledger to the schema of this release. Safe to repeat, and from many machines."""
    from app.store.migrate import upgrade  # brings Alembic, which no other command needs

    done = upgrade(settings().database_url)
    if done.new:
        out.print(
            f"Done: {plural(len(done.new), 'migration')} ({', '.join(done.new)}); "
            f"the ledger is at schema {done.now}."
        )
    elif done.now == done.release:
        out.print(f"Nothing to do: the ledger is at schema {done.now}.")
    else:
        out.print(
            f"Nothing to do: the ledger is at schema {done.now}, ahead of this release "
            f"({done.release}), which works on it."
        )


def apply(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference alone.")] = False,
) -> None:
    """Load brands, senders, topics and policies from the configuration.

    The difference is shown first. What is not declared any more is retired: nothing new is
    accepted for it, and what is on its way goes on.
    """
    wishes = declared(settings().config_dir)
    changes = applying.difference(runtime(), wishes)
    for line in changes:
        out.print(Text(line, style=_SIGNS.get(line[:1], "")), soft_wrap=True)
    if not changes:
        out.print("Nothing to do: the ledger knows all that is declared.")
    elif dry_run:
        out.print(f"{plural(len(changes), 'change')} to make; nothing was changed.")
    elif yes or _agreed(len(changes)):
        done = applying.apply(runtime(), wishes)
        out.print(f"Done: {plural(len(done), 'change')}.")


def _agreed(changes: int) -> bool:
    if not sys.stdin.isatty():
        raise Problem("Nobody is there to ask. Say --yes to apply, or --dry-run.", USAGE)
    return typer.confirm(f"Make {plural(changes, 'this change', 'these changes')}?", abort=True)


def check_policies(json: Json = False) -> None:
    """Check that every policy is valid, and that each step can be seen to have been seen.

    A step whose channel nobody serves, or whose tracking is off, can never give the evidence that
    the policy waits for: then every message climbs the whole ladder. Exit status 1 if any is so.
    """
    of = load_settings()
    wishes = declared(of.config_dir)
    accounts = build_accounts(load_toml(of.config_dir / "providers.toml"))
    found = complaints(wishes, list(accounts.values()))
    rows: list[dict[str, Any]] = [
        {"policy": name, "ok": name not in found, "problems": found.get(name, [])}
        for name in sorted(wishes.policies)
    ]
    if json:
        print_json(rows)
    for row in () if json else rows:
        out.print(Text("ok  ", style="green") if row["ok"] else Text("bad ", style="red"), end="")
        out.print(Text(row["policy"]))
        for problem in row["problems"]:
            out.print(Text(f"    {problem}"), soft_wrap=True)
    if found:
        raise typer.Exit(FAILED)
