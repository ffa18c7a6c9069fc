"""`converge demo`: a few hundred messages find their people, in a world of its own.

It has servers, data and declarations of its own in a temporary folder, and accounts of the sandbox
alone: whatever is configured on this machine is neither read nor touched.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import typer

from app.cli.demo_view import Progress, Watcher, print_report
from app.cli.failures import Problem
from app.cli.lines import customer_records, json_records, opened
from app.cli.machine import Machine, ended_by_signals, one_machine
from app.cli.screen import err, out
from app.usecases.intake.accept import accept
from app.usecases.intake.submission import Submission
from app.usecases.people.customers import put_customers
from app.usecases.telling.inspect import list_intents, queue_state, show_intents, summary
from config.settings import PREFIX, Settings, load_settings

INTERRUPTED = 130
LONGEST_S = 100.0
"""Counted from the start; the ladders of the examples have ended long before."""
CHUNK = 30
LOOK_S = 0.5
_KEPT = f"{PREFIX}EMBEDDED_SOURCE"
_CONFIG: Path = Settings.model_fields["config_dir"].default
_EXAMPLES = _CONFIG.parent / "examples"
_ACCOUNTS = """\
[relay-1]
channel = "email"
provider = "smtp"
sandbox = true
host = "env:CONVERGE_SANDBOX_SMTP_HOST:127.0.0.1"
port = "env:CONVERGE_SANDBOX_SMTP_PORT"
tls = "none"
rate = 40

[texts-1]
channel = "sms"
provider = "sandbox"
sandbox = true
url = "env:CONVERGE_SANDBOX_URL"
secret = "env:CONVERGE_SANDBOX_SECRET"
rate = 15

[chat-1]
channel = "chat"
provider = "sandbox"
sandbox = true
url = "env:CONVERGE_SANDBOX_URL"
secret = "env:CONVERGE_SANDBOX_SECRET"
"""

_Steps = Generator[None, None, None]


def add_to(application: typer.Typer) -> None:
    """Add the command."""
    application.command("demo", rich_help_panel="Run")(demo)


def demo() -> None:
    """Watch a few hundred messages find their people; ends by itself within two minutes.

    Mail goes out by SMTP, texts and chat over HTTP, to people of the sandbox: some open, some
    click, some ignore. Who does not look is reached on the next channel.
    """
    if not (_EXAMPLES / "intents.jsonl").exists():
        raise Problem(f"The examples are not in {_EXAMPLES}; run the demo from the repository.")
    try:
        with _own_world() as folder, ended_by_signals():
            _run(folder)
    except KeyboardInterrupt:
        err.print("Interrupted. Everything was stopped and removed.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _own_world() -> Iterator[Path]:
    """A temporary folder with declarations, and an environment that names nothing else."""
    for name in [name for name in os.environ if name.startswith(PREFIX) and name != _KEPT]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="converge-demo-"))
    try:
        folder.chmod(0o711)  # as root, Postgres runs as another user, who passes through
        config = folder / "config"
        config.mkdir()
        for name in ("brands.toml", "policies.toml"):
            shutil.copy(_CONFIG / name, config)
        shutil.copytree(_CONFIG / "templates", config / "templates")
        (config / "providers.toml").write_text(_ACCOUNTS)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path) -> None:
    settings = load_settings(
        data_dir=folder / "data",
        config_dir=folder / "config",
        worker_processes=1,
        log_level="info",
        dispatch_seconds=0.5,
    )
    habits = ("--seed", "7", "--speed", "1.5")
    began = time.monotonic()
    out.print("[bold]Converge[/bold] starts its own Postgres, Redis, workers and sandbox …")
    with one_machine(settings, habits=habits, safe=False) as machine, Watcher() as watcher:
        progress = Progress(began)
        ended = machine.run(_scenario(machine, watcher, progress))
        if ended:
            raise Problem(machine.why_it_ended())
        if not progress.finished:
            raise KeyboardInterrupt


def _scenario(machine: Machine, watcher: Watcher, progress: Progress) -> _Steps:
    for waiting in machine.wait_until_ready():
        watcher.waits(waiting)
        yield
    runtime = machine.runtime
    brand = runtime.catalog().brands["demo"]
    with opened(_EXAMPLES / "customers.csv") as source:
        people = [record.document or {} for record in customer_records(source)]
    put_customers(runtime, brand.id, people)
    watcher.begins(machine, len(people))
    progress.enqueued_at = time.monotonic()
    with opened(_EXAMPLES / "intents.jsonl") as source:
        documents = (record.document or {} for record in json_records(source))
        while chunk := list(islice(documents, CHUNK)):
            verdicts = accept(runtime, Submission("demo", uuid4()), chunk)
            progress.refused += [one for one in verdicts if one.status == "refused"]
            yield from _look(machine, watcher, progress, brand.id)
    while progress.open and time.monotonic() - progress.began < LONGEST_S:
        yield from _look(machine, watcher, progress, brand.id)
    progress.story = _story(machine, brand.id)
    progress.finished = True
    watcher.ends(progress)
    limits = ", ".join(
        f"{account.rate:.0f} {account.channel} a second"
        for account in runtime.accounts.values()
        if account.rate
    )
    print_report(progress, len(people), limits)


def _look(machine: Machine, watcher: Watcher, progress: Progress, brand_id: int) -> _Steps:
    """Take the figures, show them, and pass a moment."""
    progress.take(summary(machine.runtime, brand_id), queue_state(machine.runtime)["lanes"])
    watcher.shows(progress)
    until = time.monotonic() + LOOK_S
    while time.monotonic() < until:
        yield


def _story(machine: Machine, brand_id: int) -> dict[str, Any] | None:
    """Somebody who did not look at the first message and was reached by the next."""
    rows, _ = list_intents(machine.runtime, brand_id, state="seen", limit=200)
    intents = show_intents(machine.runtime, [row["id"] for row in rows])
    climbed = [one for one in intents if one["seen_on"] != one["deliveries"][0]["channel"]]
    climbed.sort(key=lambda one: (len(one["deliveries"]) != 2, len(one["timeline"])))
    return climbed[0] if climbed else None
