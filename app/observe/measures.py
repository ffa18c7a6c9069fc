"""What processes count, by name: the one list that tallies, /metrics, rules and dashboards share.

Names follow prometheus.io/docs/practices/naming. A label's values are configured names (accounts,
routes) or words of ours, so that they are few; never anything of a customer's.
"""

from dataclasses import dataclass
from typing import Final

SHORT: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is counted; with `buckets` (upper bounds in seconds) a histogram.

    `words` are the values that a label besides `account` may have, where they are but a few: such a
    count is told from 0 on, for a rate misses the burst with which a series begins.
    """

    name: str
    told: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    words: tuple[str, ...] = ()


MEASURES: Final = (
    Measure(
        "converge_intents_total",
        "Intents handed in, by verdict.",
        ("verdict",),
        words=("accepted", "exists", "refused", "conflict"),
    ),
    Measure("converge_refusals_total", "Intents refused, by the reason's code.", ("code",)),
    Measure("converge_intents_seen_total", "Intents whose customer was shown to have seen them."),
    Measure("converge_decisions_total", "Decisions, by verdict.", ("verdict",)),
    Measure(
        "converge_claims_total",
        "Hinted deliveries by what their claim came to: claimed, rejected (somebody else has it, "
        "or its intent has ended), paused or barred (the customer, the law or a cap says no).",
        ("account", "result"),
        words=("claimed", "rejected", "paused", "barred"),
    ),
    Measure(
        "converge_attempts_total",
        "Tries at providers: accepted, retryable, rate_limited, rejected or ambiguous.",
        ("account", "outcome"),
        words=("accepted", "retryable", "rate_limited", "rejected", "ambiguous"),
    ),
    Measure(
        "converge_provider_seconds",
        "Time that one call of a provider (a batch, or a slice of it) took.",
        ("account",),
        SHORT,
    ),
    Measure(
        "converge_permit_wait_seconds",
        "Time that a batch waited for its last permit.",
        ("account",),
        SHORT,
    ),
    Measure(
        "converge_permits_denied_total",
        "Deliveries put back because no permit was near.",
        ("account",),
    ),
    Measure(
        "converge_settle_retries_total",
        "Settlements that had to wait for the ledger.",
        ("account",),
    ),
    Measure("converge_dispatch_ticks_total", "Ticks of the dispatcher that were done."),
    Measure("converge_hints_repeated_total", "Hints that nobody claimed in time, given again."),
    Measure("converge_failures_total", "Deliveries that failed for good."),
    Measure("converge_leases_ended_total", "Deliveries whose worker was not heard of in time."),
    Measure(
        "converge_inbox_kept_total", "What came back and is kept; repeats count too.", ("source",)
    ),
    Measure(
        "converge_inbox_read_total",
        "What was looked at in the inbox: read, again (later), not_ours or unreadable.",
        ("result",),
        words=("read", "again", "not_ours", "unreadable"),
    ),
    Measure("converge_events_total", "Facts that came back, by sort.", ("event",)),
    Measure(
        "converge_api_requests_total",
        "Requests by route, method and status.",
        ("route", "method", "status"),
    ),
    Measure("converge_api_request_seconds", "Time to answer, by route.", ("route",), SHORT),
)
BY_NAME: Final = {measure.name: measure for measure in MEASURES}

_LANE: Final = ("channel", "lane")
GAUGES: Final = (
    Measure("converge_ledger_up", "Whether the ledger answers; without it, this is all there is."),
    Measure("converge_redis_up", "Whether the Redis of limits and health answers."),
    Measure("converge_deliveries_due", "Deliveries whose time has come; 10000: or more.", _LANE),
    Measure(
        "converge_deliveries_held", "Due deliveries that a pause holds; 10000: or more.", _LANE
    ),
    Measure("converge_deliveries_hinted", "Deliveries given to workers, not claimed yet.", _LANE),
    Measure("converge_deliveries_sending", "Deliveries in a worker's hands.", _LANE),
    Measure(
        "converge_deliveries_oldest_due_seconds",
        "For how long the oldest delivery that nothing holds has been due, hinted or not.",
        _LANE,
    ),
    Measure("converge_deliveries_failed", "Failed deliveries that may be replayed; bounded."),
    Measure("converge_intents_due", "Intents whose next decision is due; 10000: or more."),
    Measure("converge_inbox_waiting", "What came back and is due to be read; 10000: or more."),
    Measure("converge_inbox_oldest_seconds", "For how long the oldest of it has been due."),
    Measure("converge_inbox_unreadable", "What came back and could not be read; 10000: or more."),
    Measure(
        "converge_queue_messages",
        "Messages in a queue of the broker; none at all while it is away.",
        ("queue",),
    ),
    Measure("converge_consumers", "Worker processes that serve a queue.", ("queue",)),
    Measure(
        "converge_account_breaker_open",
        "1 while an account's breaker is open.",
        ("account", "channel"),
    ),
    Measure(
        "converge_account_error_ratio",
        "Share of messages that failed lately (0 to 1).",
        ("account", "channel"),
    ),
    Measure(
        "converge_account_limit_per_second", "The rate limit in force.", ("account", "channel")
    ),
    Measure("converge_pauses", "Pauses in force."),
)
