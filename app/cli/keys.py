"""`converge keys`: API keys made, listed and revoked."""

from typing import Annotated, Any

import typer

from app.cli.context import DEFAULT_BRAND, BrandName, Json, brand_called, runtime
from app.cli.control import actor
from app.cli.failures import Problem
from app.cli.screen import err, out, print_json, print_table
from app.usecases.operating import keys as keys_of

keys = typer.Typer(no_args_is_help=True, help="API keys.")


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    keys.command("create")(create)
    keys.command("list")(list_all)
    keys.command("revoke")(revoke)
    application.add_typer(keys, name="keys", rich_help_panel="Set up")


def create(
    brand: BrandName = DEFAULT_BRAND,
    sender: Annotated[
        list[str] | None,
        typer.Option("--sender", help="For this sender alone; may be given several times."),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Sends to the sandbox, never out.")] = False,
    label: Annotated[str, typer.Option("--label", help="What it is for.")] = "",
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Intents a second that it may enqueue."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    brand_called(brand)
    made = keys_of.create_key(
        runtime(),
        brand,
        senders=sender or None,
        test=test,
        label=label,
        per_second=rate,
        actor=actor(),
    )
    if json:
        print_json(
            {"key": made, "prefix": made.split("_")[2], "brand": brand, "test": test, "rate": rate}
        )
        return
    out.print(made, soft_wrap=True)
    err.print("Keep it safe: it cannot be shown again.", style="bright_black")


def list_all(json: Json = False) -> None:
    """List all keys, without their secrets."""
    rows: list[dict[str, Any]] = [
        {
            "prefix": key.prefix,
            "brand": key.brand,
            "senders": None if key.senders is None else list(key.senders),
            "test": key.test,
            "rate": key.per_second,
            "label": key.label,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        for key in keys_of.all_keys(runtime())
    ]
    if json:
        print_json(rows)
        return
    columns = ("prefix", "brand", "senders", "test", "rate", "label", "created_at", "revoked_at")
    heads = tuple(column.removesuffix("_at") for column in columns)
    print_table(
        heads,
        [[_shown(name, row[name]) for name in columns] for row in rows],
        nothing="There are no keys; `converge keys create` makes one.",
    )


def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX|KEY", help="As `keys list` has it.")],
) -> None:
    """Revoke a key: nothing is taken under it any more."""
    parts = prefix.split("_")
    name = parts[2] if len(parts) > 3 else prefix  # a whole key does as well
    if not keys_of.revoke(runtime(), name, actor()):
        raise Problem(f"No key in force begins so: {name[:16]}. `converge keys list` shows them.")
    out.print(f"Revoked {name}.")


def _shown(name: str, value: Any) -> Any:
    if name == "senders" and value is None:
        return "all"
    if name == "rate":
        return "" if value is None else f"{value:g}/s"
    return ", ".join(value) if isinstance(value, list) else value
