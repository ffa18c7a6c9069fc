"""`python -m workers NAME`: run a fleet (core, email, sms, chat, social, all), beat or flower.

Everything else is a setting. With `--print` it shows the command lines instead.
"""

import os
import shlex
import sys

from app.observe.logging import configure_logging
from app.supervisor import Command, Supervisor
from config.settings import Settings, SettingsError
from workers.fleets import BEAT, FLEETS, fleet_commands, flower_command
from workers.settings import running_settings

# What is asked to end has this long beyond its running tasks.
GRACE_BEYOND_S = 10


def main(arguments: list[str]) -> int:
    """Run what is named until a signal comes; return the exit status."""
    names = [*FLEETS, BEAT.name, "flower"]
    wanted = [argument for argument in arguments if argument != "--print"]
    if len(wanted) != 1 or wanted[0] not in names:
        return _refuse(f"Name one of: {', '.join(names)}")
    try:
        settings = running_settings()
    except SettingsError as error:
        return _refuse(str(error))
    commands = _commands(wanted[0], settings)
    if "--print" in arguments:
        sys.stdout.writelines(shlex.join(command.argv) + "\n" for command in commands)
        return 0
    configure_logging(settings.log_level, settings.log_format)
    os.environ.update(settings.environment())
    if len(commands) == 1:
        os.execv(commands[0].argv[0], commands[0].argv)  # noqa: S606  # nothing to supervise
    return Supervisor(commands, grace_s=settings.soft_shutdown_seconds + GRACE_BEYOND_S).run()


def _commands(name: str, settings: Settings) -> list[Command]:
    if name == BEAT.name:
        return [BEAT]
    if name == "flower":
        return [flower_command(settings)]
    return fleet_commands(name, settings)


def _refuse(reason: str) -> int:
    sys.stderr.write(reason + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
