"""Names that (b) and (c) share with those who publish to them."""

from converge_producer.queues import KEY_PREFIX, lane_queue

NOTHING = "bench.nothing"
BY_HAND = "bench.send_mail"
KIND = "BENCH_CELERY"
"""The variable that says which application is meant: `ours` or `plain`."""
OURS = "ours"
PLAIN = "plain"
PREFIX = KEY_PREFIX
QUEUE = "bench"
IDLE = "idle"
# Two queues of ours that no other measurement uses.
QUEUE_OF_OURS = lane_queue("social", "bulk")
IDLE_OF_OURS = lane_queue("social", "normal")
