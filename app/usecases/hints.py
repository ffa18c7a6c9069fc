"""Hints: broker messages that say "look at these ids", published after the commit.

A hint that cannot be published is no loss: its rows come due again. So nothing here raises.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import structlog

from converge_producer import BrokerUnreachable
from converge_producer.publishing import Message, Publisher
from converge_producer.queues import (
    DECISIONS,
    FEEDBACK,
    TASK_DECIDE,
    TASK_FEEDBACK,
    deliver_task,
    lane_queue,
)
from converge_producer.wire import WIRE_VERSION

_log = structlog.get_logger(__name__)
DECIDE_BATCH = 500


class Hints:
    """Publishes hints through the producer's publisher; safe over threads."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def deliver(
        self, channel: str, lane: str, batches: Iterable[tuple[str, Sequence[int]]]
    ) -> None:
        """Say to a channel's workers which deliveries to look at: (account, ids) a batch."""
        self._publish(
            Message(
                task=deliver_task(channel),
                payload={"v": WIRE_VERSION, "account": account, "ids": list(ids)},
                queue=lane_queue(channel, lane),
                argsrepr=f"<{len(ids)} {channel} deliveries, {account}>",
            )
            for account, ids in batches
        )

    def decide(self, intents: Sequence[UUID]) -> None:
        """Say that intents wait for their next decision."""
        self._publish(
            Message(
                task=TASK_DECIDE,
                payload={"v": WIRE_VERSION, "intents": [str(key) for key in part]},
                queue=DECISIONS,
                argsrepr=f"<{len(part)} intents>",
            )
            for part in _parts(intents, DECIDE_BATCH)
        )

    def feedback(self) -> None:
        """Say that the inbox holds something to read."""
        self._publish(
            [
                Message(
                    task=TASK_FEEDBACK,
                    payload={"v": WIRE_VERSION},
                    queue=FEEDBACK,
                    argsrepr="<inbox>",
                )
            ]
        )

    def depths(self) -> dict[str, int] | None:
        """How much waits in each queue of the broker; None while it is away."""
        try:
            return self._publisher.depths()
        except BrokerUnreachable as error:
            _log.warning("queues_not_counted", reason=str(error))
            return None

    def decisions_waiting(self) -> int | None:
        """How many hints wait to be decided; None where that cannot be told."""
        depths = self.depths()
        return None if depths is None else depths.get(DECISIONS, 0)

    def close(self) -> None:
        """Close what is open to the broker; a further hint opens it anew."""
        self._publisher.close()

    def _publish(self, messages: Iterable[Message]) -> None:
        try:
            self._publisher.publish_many(messages)
        except BrokerUnreachable as error:
            _log.warning("hints_not_published", reason=str(error))


def _parts(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
