"""Which state may follow which, and why.

Feedback asks `may_become`. The store's other compare-and-sets spell states in their SQL, which
their partial indexes need; tests and chaos hold every move in the ledger against these tables.

A state never goes back. The moves that look odd each say why they exist.
"""

from collections.abc import Mapping

from app.domain.vocabulary import DeliveryState as D
from app.domain.vocabulary import IntentState as I

INTENT_MOVES: Mapping[I, frozenset[I]] = {
    I.OPEN: frozenset({I.SEEN, I.EXHAUSTED, I.EXPIRED, I.CANCELLED}),
    I.SEEN: frozenset(),
    # exhausted -> open: an operator replays what had failed.
    I.EXHAUSTED: frozenset({I.OPEN}),
    I.EXPIRED: frozenset(),
    I.CANCELLED: frozenset(),
}

DELIVERY_MOVES: Mapping[D, frozenset[D]] = {
    # planned, queued -> sent, failed: it was to be tried again, and its slow worker spoke at last,
    # or its provider told of the try of which no verdict had come.
    D.PLANNED: frozenset({D.QUEUED, D.SENT, D.FAILED, D.CANCELLED, D.EXPIRED}),
    # queued -> planned: the hint was lost, or its account is not configured any more.
    # queued -> planned: its customer said something, and is asked again when it is claimed.
    D.QUEUED: frozenset({D.SENDING, D.PLANNED, D.SENT, D.FAILED, D.CANCELLED, D.EXPIRED}),
    # sending -> planned, at once: its work was paused after it was hinted.
    # sending -> planned: proven not accepted, so it is tried again.
    # sending -> sent, at the end of its lease: its provider told of it, and its worker did not.
    # sending -> delivered: the receipt overtook our own settle.
    # sending -> cancelled: its intent was seen meanwhile and the attempt did not go through.
    D.SENDING: frozenset(
        {D.SENT, D.DELIVERED, D.PLANNED, D.FAILED, D.UNKNOWN, D.CANCELLED, D.EXPIRED}
    ),
    # unknown -> sent, delivered, failed: a slow worker's settle or a receipt tells what happened.
    # unknown -> planned: nothing told, and its kind says to send again.
    D.UNKNOWN: frozenset({D.SENT, D.DELIVERED, D.PLANNED, D.FAILED, D.CANCELLED, D.EXPIRED}),
    # sent -> failed: accepted first and bounced later.
    D.SENT: frozenset({D.DELIVERED, D.FAILED}),
    # delivered -> failed: some vendors report a delivery to the next hop that then bounces.
    D.DELIVERED: frozenset({D.FAILED}),
    # failed -> planned: an operator replays it.
    # failed -> sent: it was given up for want of a verdict, and its slow worker spoke at last.
    # failed -> delivered: carriers send "undelivered" and then "delivered" for the same message.
    D.FAILED: frozenset({D.PLANNED, D.SENT, D.DELIVERED}),
    # cancelled -> planned, queued: it was withdrawn untried, and may be said after all.
    D.CANCELLED: frozenset({D.PLANNED, D.QUEUED}),
    D.EXPIRED: frozenset(),
}


def may_become(state: D) -> list[str]:
    """The delivery states from which `state` may be reached, as the ledger spells them."""
    return sorted(source.value for source, targets in DELIVERY_MOVES.items() if state in targets)
