"""`python -m workers NAME`: run a fleet (core, email, sms, chat, social, all), beat or flower.

Everything else is a setting. `--print` shows the command lines instead; `--ping` asks whether what
runs under that name on this machine is alive, and answers by its exit status (for health checks).
`python -m workers revive` puts back the chunks that RabbitMQ has put aside.
"""

import os
import shlex
import sys
import time

from app.observe.logging import configure_logging
from app.supervisor import Command, Supervisor
from config.running import running_settings
from config.settings import Settings, SettingsError
from converge_producer.queues import is_redis
from workers.fleets import BEAT, FLEETS, fleet_commands, flower_command
from workers.rabbitmq import revive

# What is asked to end has this long beyond its running tasks.
GRACE_BEYOND_S = 10
PING_TIMEOUT_S = 3
PULSE_AGE_S = 30


def main(arguments: list[str]) -> int:
    """Run what is named until a signal comes; return the exit status."""
    names = [*FLEETS, BEAT.name, "flower", "revive"]
    options = {argument for argument in arguments if argument in ("--print", "--ping")}
    wanted = [argument for argument in arguments if argument not in options]
    if len(wanted) != 1 or wanted[0] not in names:
        return _refuse(f"Name one of: {', '.join(names)}")
    try:
        settings = running_settings()
    except SettingsError as error:
        return _refuse(str(error))
    if wanted[0] == "revive":
        return _revive(settings.broker_url)
    commands = _commands(wanted[0], settings)
    if "--print" in options:
        sys.stdout.writelines(shlex.join(command.argv) + "\n" for command in commands)
        return 0
    if "--ping" in options:
        return 0 if _alive(wanted[0], commands) else 1
    configure_logging(settings.log_level, settings.log_format)
    os.environ.update(settings.environment())
    if len(commands) == 1:
        os.execv(commands[0].argv[0], commands[0].argv)  # noqa: S606  # nothing to supervise
    return Supervisor(commands, grace_s=settings.soft_shutdown_seconds + GRACE_BEYOND_S).run()


def _commands(name: str, settings: Settings) -> list[Command]:
    if name == BEAT.name:
        return [BEAT]
    if name == "flower":
        return [flower_command()]
    return fleet_commands(name, settings)


def _alive(name: str, commands: list[Command]) -> bool:
    from celery.utils.nodenames import gethostname, nodename

    from workers.celery import app, settings
    from workers.signals import beat_pulse

    if name == BEAT.name:
        pulse = beat_pulse(settings)
        return pulse.exists() and time.time() - pulse.stat().st_mtime < PULSE_AGE_S
    asked = {nodename(command.name, gethostname()) for command in commands}
    replies = app.control.ping(destination=list(asked), timeout=PING_TIMEOUT_S, limit=len(asked))
    return asked == {worker for reply in replies for worker in reply}


def _revive(broker_url: str) -> int:
    if is_redis(broker_url):
        return _refuse("There is nothing to revive: Redis puts nothing aside.")
    sys.stdout.write(f"Put back: {revive(broker_url)} chunks.\n")
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(reason + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
