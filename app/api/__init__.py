"""The HTTP side: intake, reading, tracking, webhooks. `create` makes the application."""

from app.api.application import create

__all__ = ["create"]
