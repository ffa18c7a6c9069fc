"""Run the sandbox: mail by SMTP, everything else by HTTP, and people before the screens.

Prints one JSON line, `{"smtp_port": …, "http_port": …}`, once both answer, and runs until SIGINT
or SIGTERM.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from app.sandbox.mailsink import Envelope, Faults, MailSink
from app.sandbox.outside import Home, Outside
from app.sandbox.people import Habits, Nature, nature_of
from app.sandbox.wire import create_app
from app.sandbox.world import World

NO_SUCH_USER = "550 5.1.1 No such user here"


class _NoSuchUsers(dict[str, str]):
    """The recipients that the sink refuses: whoever is named so, `bounce+anything@` included."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def get(self, address: str, default: Any = None) -> Any:
        if nature_of(address) is not Nature.BOUNCES:
            return default
        self._world.refuse("email")
        return NO_SUCH_USER


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.sandbox", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--smtp-port", type=int, default=1025, help="0: any free port")
    parser.add_argument("--http-port", type=int, default=8025, help="0: any free port")
    parser.add_argument("--public-url", default="http://127.0.0.1:8000", help="how links begin")
    parser.add_argument("--reach-url", default="", help="where Converge answers, if elsewhere")
    parser.add_argument(
        "--secret-file", type=Path, help="shared secret, if not in CONVERGE_SANDBOX_SECRET"
    )
    parser.add_argument("--speed", type=float, default=1.0, help="divides everybody's pauses")
    parser.add_argument("--patience", type=float, default=4.0, help="seconds before any open")
    parser.add_argument("--seed", type=int, default=0, help="other people, other deeds")
    parser.add_argument("--decide", choices=("people", "none"), default="people")
    return parser.parse_args(argv)


def _secret(path: Path | None) -> str:
    """Return the secret; as an argument everybody on the machine would see it."""
    if path:
        return path.read_text(encoding="utf-8").strip()
    secret = os.environ.get("CONVERGE_SANDBOX_SECRET")
    if not secret:
        sys.exit("Set CONVERGE_SANDBOX_SECRET, or give --secret-file: the accounts' own secret.")
    return secret


async def run(arguments: argparse.Namespace) -> None:
    """Serve until uvicorn has been told to stop."""
    secret = _secret(arguments.secret_file)
    habits = Habits(
        seed=arguments.seed,
        speed=arguments.speed,
        patience_s=arguments.patience,
        acts=arguments.decide == "people",
    )
    outside = Outside(Home(arguments.public_url, secret, arguments.reach_url))
    world = World(habits, outside)

    def on_message(envelope: Envelope) -> None:
        for recipient in envelope.recipients:
            world.take_mail(envelope.sender, recipient, envelope.mime)

    sink = MailSink(faults=Faults(refuse=_NoSuchUsers(world)), on_message=on_message)
    with socket.create_server((arguments.host, arguments.http_port)) as listener:
        config = uvicorn.Config(create_app(world, secret), log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        # uvicorn takes these signals while it serves, then raises them again: let it end there.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        smtp_port = await sink.start(arguments.host, arguments.smtp_port)
        ready = {"smtp_port": smtp_port, "http_port": listener.getsockname()[1]}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        try:
            await server.serve(sockets=[listener])
        finally:
            world.close()
            await sink.stop()
            await asyncio.to_thread(outside.close)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sandbox until SIGINT or SIGTERM; then end with status 0."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(run(_arguments(argv)))


if __name__ == "__main__":
    main()
