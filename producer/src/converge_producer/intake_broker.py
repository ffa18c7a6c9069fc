"""Handing intents over by the broker: one `intents.accept` task for each chunk."""

from uuid import uuid4

from converge_producer.errors import Refusal
from converge_producer.intake import Chunk
from converge_producer.publishing import Publisher
from converge_producer.queues import INTENTS, TASK_ACCEPT
from converge_producer.tracing import traceparent
from converge_producer.wire import WIRE_VERSION, encode


class BrokerIntake:
    """Publishes chunks; refusals show up later, in `converge refused list`."""

    def __init__(self, url: str, brand: str, *, test: bool) -> None:
        self._publisher = Publisher(url)
        self._brand = brand
        self._test = test

    def take(self, chunk: Chunk) -> list[Refusal]:
        """Publish one chunk; raises `BrokerUnreachable` within 5 s."""
        trace = traceparent()
        head = encode(
            {"v": WIRE_VERSION, "chunk": str(uuid4()), "brand": self._brand, "test": self._test}
            | ({"traceparent": trace} if trace else {})
        )
        # The intents are JSON already: writing them out once is half of the producer's cost.
        payload = f'{head[:-1]},"intents":[{",".join(chunk.packed)}]}}'
        self._publisher.publish(
            TASK_ACCEPT, payload, INTENTS, f"<{len(chunk.ids)} intents, {self._brand}>"
        )
        return []

    def close(self) -> None:
        """Close the publisher's connections."""
        self._publisher.close()
