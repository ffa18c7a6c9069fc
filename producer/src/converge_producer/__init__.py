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
from converge_producer.wire import fingerprint, intent_id, validate_intent

__all__ = [
    "BrokerUnreachable",
    "ConvergeError",
    "Customer",
    "InvalidIntent",
    "NotTaken",
    "Refusal",
    "Refused",
    "Unreachable",
    "fingerprint",
    "intent_id",
    "validate_intent",
]
