"""Limits and health that all worker processes share through Redis."""

from app.limits.connection import LimitsUnavailable, RedisClient, connect
from app.limits.health import AccountHealth, BreakerSettings, Health
from app.limits.rate import Grant, Limit, RateLimits

__all__ = [
    "AccountHealth",
    "BreakerSettings",
    "Grant",
    "Health",
    "Limit",
    "LimitsUnavailable",
    "RateLimits",
    "RedisClient",
    "connect",
]
