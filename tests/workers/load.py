"""A service that goes on handing over intents, whatever happens meanwhile."""

import threading
from types import TracebackType
from typing import Any, Self

from converge_producer import NotTaken, Producer
from tests.workers.fleet import Fleet

BATCH = 25
PAUSE_S = 0.1


class Load:
    """Enqueues a campaign's intents steadily, from a thread of its own, while the block runs.

    What the broker did not take is handed over again under the same keys, as a service does.
    """

    def __init__(self, fleet: Fleet, campaign: str, **more: Any) -> None:
        self.campaign = campaign
        self.number = 0
        self.again = 0
        self._fleet = fleet
        self._more = more
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with Producer(self._fleet.settings.broker_url, brand="demo") as producer:
            while not self._over.wait(PAUSE_S):
                intents = self._fleet.intents(self.campaign, BATCH, first=self.number, **self._more)
                while True:
                    try:
                        producer.enqueue_many(intents)
                    except NotTaken:
                        self.again += 1
                        threading.Event().wait(PAUSE_S)
                    else:
                        break
                self.number += BATCH
