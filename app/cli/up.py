"""`converge up`: everything on this machine, until it is stopped."""

from collections.abc import Generator
from itertools import zip_longest

import typer
from rich.panel import Panel
from rich.status import Status
from rich.table import Table

from app.cli.context import DEFAULT_BRAND, declared
from app.cli.failures import Problem
from app.cli.machine import Machine, ended_by_signals, one_machine
from app.cli.screen import activation, err, out
from app.usecases.operating.apply import difference
from app.usecases.operating.keys import check_key, create_key
from config.settings import Settings, load_settings

_Steps = Generator[None, None, None]
KEY_FILE = "api-key"


def add_to(application: typer.Typer) -> None:
    """Add the command."""
    application.command("up", rich_help_panel="Run")(up)


def up() -> None:
    """Start everything on this machine and keep it running until Ctrl-C.

    Without CONVERGE_DATABASE_URL it brings its own Postgres and Redis, with their data in
    .converge (CONVERGE_DATA_DIR), declares what config/ says and makes an API key.
    """
    settings = load_settings()
    try:
        with ended_by_signals():
            _run(settings)
    except KeyboardInterrupt:  # before everything ran
        err.print("Stopped.")


def _run(settings: Settings) -> None:
    begin = "Starting Postgres and Redis …" if settings.embedded else "Starting …"
    with err.status(begin) as status, one_machine(settings) as machine:
        key = _api_key(machine, settings) if settings.embedded else None
        ended = machine.run(_until_stopped(machine, status, key))
        if ended:
            raise Problem(machine.why_it_ended())
    where = f" Its data is in {settings.data_dir}." if settings.embedded else ""
    err.print(f"Stopped.{where}")


def _until_stopped(machine: Machine, status: Status, key: str | None) -> _Steps:
    for waiting in machine.wait_until_ready():
        status.update(f"Waiting for {waiting} …")
        yield
    status.stop()
    out.print(_panel(machine))
    if key is not None:
        # On a line of its own: a key that is folded into a frame cannot be copied.
        out.print(f"API key  [bold]{key}[/bold]", soft_wrap=True, highlight=False)
    for line in machine.moved:
        out.print(f"Note: {line}.", style="yellow")
    if key is None:
        _advise(machine)
    try:
        while True:
            yield
    finally:
        status.update("Stopping: what is being sent is finished first …")
        status.start()


def _panel(machine: Machine) -> Panel:
    of = machine.settings
    user, _, password = of.flower_credentials.partition(":")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold")
    lines.add_column(overflow="fold")
    lines.add_row("API", machine.api_url)
    lines.add_row("Flower", f"{machine.flower_url}  (user {user}, password {password})")
    if machine.has_sandbox:
        lines.add_row("Sandbox", f"{of.sandbox_url}  (what the people of the sandbox see)")
    lines.add_row("Log", str(machine.log))
    lines.add_row("")
    tries = [
        "converge customers import examples/customers.csv",
        "converge enqueue examples/intents.jsonl",
        "converge queues",
    ]
    first = activation()
    for head, command in zip_longest(["Try"], [first, *tries] if first else tries):
        lines.add_row(head or "", command)
    return Panel(
        lines,
        title="Converge is running",
        subtitle="Ctrl-C stops it",
        title_align="left",
        subtitle_align="left",
        border_style="green",
        expand=False,
        padding=(1, 2),
    )


def _api_key(machine: Machine, settings: Settings) -> str:
    """The key of this data folder, made once and kept beside the data for its owner alone."""
    file = settings.data_dir / KEY_FILE
    known = file.read_text().strip() if file.exists() else ""
    if known and check_key(machine.runtime, known):
        return known
    brands = machine.runtime.catalog().brands
    brand = DEFAULT_BRAND if DEFAULT_BRAND in brands else next(iter(brands))
    key = create_key(machine.runtime, brand, label="converge up", actor="converge up")
    file.touch(mode=0o600)
    file.write_text(key + "\n")
    return key


def _advise(machine: Machine) -> None:
    if difference(machine.runtime, declared(machine.settings.config_dir)):
        out.print("Note: config/ was changed; `converge apply` shows and loads it.", style="yellow")
