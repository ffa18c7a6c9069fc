"""A worker's presence in the ledger, and how it drains when an operator asks.

The pulse's thread beats; all that touches the broker happens on the thread of Celery's event loop,
which `Consumer.call_soon` reaches from any thread. A worker that drains

- stops consuming its queues, also over a new connection to the broker (Celery's own
  `cancel_task_queue`);
- gives back what it has fetched and not begun, so that another worker gets it at once;
- finishes what runs, and then stays, idle, until it is stopped or the order is taken back.
"""

from typing import Any

import structlog
from celery import signals
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker.state import active_requests, reserved_requests

from app.usecases.operating.fleet import Member, Orders, Pulse, State
from app.usecases.runtime import Runtime
from workers.gate import gate

log = structlog.get_logger()


def begin(runtime: Runtime, consumer: Any) -> None:
    """Beat from now on for the worker of this Celery consumer, until it has ended."""
    drain = Drain(consumer)
    member = Member(consumer.hostname, queues_of(consumer))
    pulse = Pulse(runtime, member, lambda: drain.state, drain.obey)

    def ending(**_: Any) -> None:
        drain.end()

    def ended(**_: Any) -> None:
        pulse.stop()

    signals.worker_shutting_down.connect(ending, weak=False)
    signals.worker_shutdown.connect(ended, weak=False)
    pulse.start()


class Drain:
    """Carries orders out on one worker. `obey` is for any thread, the rest for the event loop's."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._queues = queues_of(consumer)
        self._ordered = False
        self._ending = False
        self.state: State = "running"

    def obey(self, orders: Orders) -> None:
        """Have done what is asked, soon."""
        self._ordered = orders.drain
        if orders.drain or self.state != "running":
            self._consumer.call_soon(self._act)

    def end(self) -> None:
        """The worker shuts down: Celery takes nothing new and finishes what runs."""
        self._ending = True
        self.state = "draining"

    def _act(self) -> None:
        if self._ending or self._consumer.task_consumer is None:
            return
        if self._ordered:
            self._stop_taking_work()
        elif self.state != "running":
            self._take_work_again()

    def _stop_taking_work(self) -> None:
        if self.state == "running":
            log.info("worker_drains")
            self.state = "draining"
        # Celery strikes a queue off before it asks the broker: where the connection breaks just
        # here, the next one comes up without it.
        for queue in queues_of(self._consumer):
            self._consumer.cancel_task_queue(queue)
        if not self._give_back() and self.state == "draining":
            self.state = "drained"
            log.info("worker_drained")

    def _give_back(self) -> bool:
        """Reject what was fetched and has not begun; say whether anything is in hand still."""
        try:
            if isinstance(self._consumer.pool, ThreadPool):
                # What is not active yet finds the gate shut. Prefork's children do not share our
                # memory, so there it cannot be told, and what was fetched is finished.
                gate.shut()
                for request in set(reserved_requests).difference(active_requests):
                    request.reject(requeue=True)  # does nothing the second time
            return bool(set(reserved_requests))
        except RuntimeError:  # a thread finished one while we looked: look again at the next beat
            return True

    def _take_work_again(self) -> None:
        gate.open()
        for queue in self._queues:
            self._consumer.add_task_queue(queue)
        self.state = "running"
        log.info("worker_takes_work_again")


def queues_of(consumer: Any) -> tuple[str, ...]:
    """The names of the queues that a worker takes from now."""
    return tuple(consumer.app.amqp.queues.consume_from)
