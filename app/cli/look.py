"""`converge status`, `why`, `queues`, `failed` and `refused`: what became of what, and why."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text

from app.cli.context import (
    MOST_ID,
    Json,
    Limit,
    brand_called,
    id_of,
    runtime,
    since_moment,
)
from app.cli.control import actor
from app.cli.failures import FAILED, USAGE, Problem
from app.cli.queues import show_queues
from app.cli.screen import cell, err, out, plural, print_json, print_table
from app.cli.story import show_intent, show_next, timeline
from app.domain.vocabulary import IntentState
from app.usecases.operating.control import Operator, replay
from app.usecases.telling import inspect

failed = typer.Typer(no_args_is_help=True, help="Deliveries that failed for good.")
refused = typer.Typer(no_args_is_help=True, help="Intents that were not taken.")
AnyBrand = Annotated[
    str | None, typer.Option("--brand", metavar="BRAND", help="Of this brand alone.")
]


def add_to(application: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, why, queues):
        application.command(rich_help_panel="Look")(command)
    failed.command("list")(failed_list)
    failed.command("show")(failed_show)
    failed.command("replay")(failed_replay)
    refused.command("list")(refused_list)
    application.add_typer(failed, name="failed", rich_help_panel="Look")
    application.add_typer(refused, name="refused", rich_help_panel="Look")


def status(
    intent: Annotated[str | None, typer.Argument(metavar="INTENT", help="Its id.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="UUID", help="A Celery task, as Flower has it.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what became of an intent, or of the messages of a Celery task."""
    if (intent is None) == (task is None):
        raise Problem("Name an intent by its id, or a task with --task UUID.", USAGE)
    if task is not None:
        _show_task(id_of(task), json)
        return
    assert intent is not None  # noqa: S101  # one of the two was given
    found = inspect.show_intent(runtime(), id_of(intent))
    if found is None:
        raise Problem(
            f"There is no intent {intent}. `converge why CUSTOMER` finds those of a customer; "
            "`converge refused list` those that were not taken."
        )
    if json:
        print_json(found)
    else:
        show_intent(found)


def why(
    who: Annotated[
        str, typer.Argument(metavar="CUSTOMER|ADDRESS", help="A ref, or any address of theirs.")
    ],
    key: Annotated[str | None, typer.Option("--key", help="The intent with this key.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="T", help='Such as "2h", "3d", or a date.')
    ] = None,
    brand: AnyBrand = None,
    json: Json = False,
) -> None:
    """Say why a customer did, or did not, get what was meant for them.

    Everything between them and the brand, in the order of time: messages out and in, what came
    back, decisions, what they allowed and forbade. With --key the story of one intent.
    """
    begin = since_moment(since, datetime.now(UTC))
    found = inspect.why(runtime(), who, brand=brand, key=key, since=begin)
    if json:
        print_json(found)
        return
    if not found["customers"]:
        raise Problem(f"Nobody is known by the ref or address {found['who']}.")
    for customer in found["customers"]:
        _show_customer(customer)
    for intent in found["intents"]:
        if key is not None:
            show_intent(intent)
        elif intent["state"] == IntentState.OPEN:
            show_next(intent)
    if found["refusals"]:
        _show_refusals(found["refusals"], title="Not taken")
    if not found["intents"] and not found["refusals"]:
        out.print("Nothing was meant for them" + (" in that time." if since else "."))
    if found["more"]:
        out.print("There is more; narrow it with --key or --since.", style="bright_black")


def queues(json: Json = False) -> None:
    """Show what waits and who takes it: lanes, what is held and why, workers, accounts, limits.

    hinted: told to the workers and not in one's hands yet. workers: processes that take from the
    lane's queue now.
    """
    state = inspect.queue_state(runtime())
    if json:
        print_json(state)
        return
    show_queues(state)


def failed_list(brand: AnyBrand = None, limit: Limit = 50, json: Json = False) -> None:
    """List deliveries that failed for good, newest first."""
    rows, more = inspect.failed(runtime(), _brand_id(brand), limit)
    if json:
        print_json(rows)
        return
    columns = ("id#", "customer", "channel", "account", "tries#", "reason", "at", "replay")
    shown = [
        (
            Text(str(row["id"])),
            row["customer"],
            row["channel"],
            row["account"],
            row["attempts"],
            row["reason"],
            row["failed_at"],
            row["replayable"],
        )
        for row in rows
    ]
    print_table(columns, shown, nothing="Nothing failed.")
    _tell_more(more)


def failed_show(
    delivery: Annotated[
        int, typer.Argument(metavar="ID", help="As `failed list` has it.", min=1, max=MOST_ID)
    ],
    json: Json = False,
) -> None:
    """Show one failed delivery and each of its attempts."""
    found = inspect.failed_one(runtime(), delivery)
    if found is None:
        raise Problem(f"No delivery {delivery} has failed.")
    if json:
        print_json(found)
        return
    tries = found.pop("tries")
    found["id"] = str(found["id"])
    for name, value in found.items():
        out.print(Text(f"{name.replace('_', ' '):<14}", style="bright_black"), end="")
        out.print(cell(value), soft_wrap=True)
    out.print()
    columns = ("try#", "account", "outcome", "reason", "at", "worker", "task")
    print_table(columns, [_try(one) for one in tries], title="Attempts")


def failed_replay(
    deliveries: Annotated[
        list[int], typer.Argument(metavar="ID...", help="Which.", min=1, max=MOST_ID)
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")] = "",
    json: Json = False,
) -> None:
    """Try failed deliveries again, where their intent was neither seen, cancelled nor expired."""
    planned = replay(runtime(), deliveries, Operator(actor(), reason))
    left = [one for one in deliveries if one not in planned]
    if json:
        print_json({"planned": planned, "not_planned": left})
    else:
        out.print(f"{plural(len(planned), 'delivery', 'deliveries')} will be tried again.")
        _tell_left(left)
    if left:
        raise typer.Exit(FAILED)


def _tell_left(deliveries: list[int]) -> None:
    failed = [one for one in deliveries if inspect.failed_one(runtime(), one) is not None]
    for one in deliveries:
        if one not in failed:
            err.print(f"No delivery {one} has failed.")
    if failed:
        told = ", ".join(map(str, failed))
        err.print(f"Not tried again: {told} (seen, cancelled or expired since).")


def refused_list(brand: AnyBrand = None, limit: Limit = 50, json: Json = False) -> None:
    """List intents that were refused where nobody waited for the answer, newest first."""
    rows, more = inspect.refused(runtime(), _brand_id(brand), limit)
    if json:
        print_json(rows)
        return
    _show_refusals(rows)
    _tell_more(more)


def _show_task(task: UUID, json: bool) -> None:
    rows = inspect.by_task(runtime(), task)
    if json:
        print_json(rows)
        return
    if not rows:
        raise Problem(f"No message was tried by a task {task}: it sent nothing, or is none.")
    columns = ("intent", "channel", "address", "outcome", "reason", "now", "at")
    shown = [
        (
            row["intent"],
            row["channel"],
            row["address"],
            row["outcome"],
            row["reason"],
            row["state"],
            row["started_at"],
        )
        for row in rows
    ]
    print_table(columns, shown, title=f"{plural(len(rows), 'message')} of this task")


def _show_customer(customer: dict[str, Any]) -> None:
    out.print(Text(customer["ref"], style="bold"), f"of brand {customer['brand']}")
    columns = ("channel", "service", "address", "state", "reason")
    rows = [[one[name] for name in columns] for one in customer["endpoints"]]
    print_table(columns, rows, nothing="No channel reaches them.")
    out.print()
    if customer["timeline"]:
        out.print(timeline(reversed(customer["timeline"])))
        out.print()


def _show_refusals(rows: list[dict[str, Any]], title: str = "") -> None:
    columns = ("at", "brand", "sender", "key", "field", "reason")
    shown = [
        (row["refused_at"], row["brand"], row["sender"], row["key"], row["field"], row["reason"])
        for row in rows
    ]
    print_table(columns, shown, title=title, nothing="Nothing was refused.")


def _tell_more(more: str | None) -> None:
    if more:
        out.print("There are more: --limit shows them.", style="bright_black")


def _try(one: dict[str, Any]) -> tuple[Any, ...]:
    names = ("number", "account", "outcome", "reason", "started_at", "worker", "task")
    return tuple(one[name] for name in names)


def _brand_id(name: str | None) -> int | None:
    return None if name is None else brand_called(name).id
