"""Which worker serves which queues, with how many processes and threads.

Every worker runs on threads: our tasks wait for networks and databases. A process is one core.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import config
from app.supervisor import Command
from config.settings import Settings
from converge_producer.queues import CONTROL, DECISIONS, FEEDBACK, INTENTS, lane_queue
from converge_producer.wire import CHANNELS, LANES

URGENT_THREADS = 4
_CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "workers")


@dataclass(frozen=True, slots=True)
class Worker:
    """A kind of worker process: its name, its queues, threads in each process, processes."""

    name: str
    queues: tuple[str, ...]
    threads: int
    processes: int = 1

    def commands(self) -> list[Command]:
        """The command lines, one for each process."""
        return [
            Command(name, self._argv(name))
            for name in (f"{self.name}-{number}" for number in range(1, self.processes + 1))
        ]

    def _argv(self, name: str) -> tuple[str, ...]:
        options = ("-Q", ",".join(self.queues), "-P", "threads", "-c", str(self.threads))
        # Workers need not know of each other; gossip and mingle cost messages with each of them.
        quiet = ("--without-gossip", "--without-mingle")
        return (*_CELERY, "worker", *options, "-n", f"{name}@%h", *quiet)


def core(settings: Settings) -> list[Worker]:
    """Accept, decide, read feedback; ticks have a process alone, so that nothing starves them."""
    return [
        Worker("control", (CONTROL,), threads=2),
        Worker(
            "core", (DECISIONS, INTENTS, FEEDBACK), threads=2, processes=settings.worker_processes
        ),
    ]


def channel(name: str, *channels: str) -> Callable[[Settings], list[Worker]]:
    """A fleet of these channels: one process for the urgent lanes, others for what can wait."""
    urgent, *others = LANES

    def workers(settings: Settings) -> list[Worker]:
        waiting = tuple(lane_queue(each, lane) for each in channels for lane in others)
        return [
            Worker(
                f"{name}-{urgent}",
                tuple(lane_queue(each, urgent) for each in channels),
                # An urgent batch is small; what it waits for is its provider, not our processor.
                threads=settings.worker_threads * URGENT_THREADS,
            ),
            Worker(name, waiting, settings.worker_threads, settings.worker_processes),
        ]

    return workers


def one_machine(settings: Settings) -> list[Worker]:
    """All queues on one machine: the channels that carry least share their processes."""
    phone = tuple(each for each in CHANNELS if each != "email")
    return [
        *core(settings),
        *channel("email", "email")(settings),
        *channel("phone", *phone)(settings),
    ]


FLEETS: dict[str, Callable[[Settings], list[Worker]]] = {
    "core": core,
    **{each: channel(each, each) for each in CHANNELS},
    "all": one_machine,
}
BEAT = Command("beat", (*_CELERY, "beat"))


def fleet_commands(name: str, settings: Settings) -> list[Command]:
    """The command lines of a fleet; raises `KeyError` for a name that is none."""
    return [command for worker in FLEETS[name](settings) for command in worker.commands()]


def flower_command() -> Command:
    """The command line of Flower; what it needs to know is in `config/flowerconfig.py`.

    That is code of ours: it does not move where CONVERGE_CONFIG_DIR puts the declarations.
    """
    configuration = Path(config.__file__).with_name("flowerconfig.py").resolve()
    return Command("flower", (*_CELERY, "flower", f"--conf={configuration}", "--logging=warning"))
