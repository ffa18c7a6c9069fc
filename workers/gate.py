"""The gate before every task of this process: while a worker drains, none begins."""

import threading

from celery.exceptions import Reject


class Gate:
    """Open, until somebody shuts it. Safe over threads."""

    def __init__(self) -> None:
        self._shut = threading.Event()

    def shut(self) -> None:
        """Let no task begin any more."""
        self._shut.set()

    def open(self) -> None:
        """Let tasks begin again."""
        self._shut.clear()

    def enter(self) -> None:
        """Begin a task; raises `Reject`, which hands its message back, while the gate is shut."""
        if self._shut.is_set():
            raise Reject("this worker drains", requeue=True)


gate = Gate()
