"""Say what a customer should learn and forget it: the thin producer of Converge."""

from converge_producer.customer import Customer
from converge_producer.errors import (
    BrokerUnreachable,
    ConvergeError,
    InvalidIntent,
    NotTaken,
    Refusal,
    Refused,
    Unreachable,
)
from converge_producer.intent import Intent, from_document, to_document
from converge_producer.producer import Producer
from converge_producer.wire import intent_id, validate_intent

__all__ = [
    "BrokerUnreachable",
    "ConvergeError",
    "Customer",
    "Intent",
    "InvalidIntent",
    "NotTaken",
    "Producer",
    "Refusal",
    "Refused",
    "Unreachable",
    "from_document",
    "intent_id",
    "to_document",
    "validate_intent",
]
