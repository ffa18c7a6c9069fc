"""`uvicorn app.api.main:app`: the application of this process, made when it is first asked for."""

from functools import cache

from fastapi import FastAPI

from app.api.application import create
from app.bootstrap import running_settings, runtime
from app.observe.logging import configure_logging


@cache
def _app() -> FastAPI:
    settings = running_settings()
    configure_logging(settings.log_level, settings.log_format)
    return create(runtime(), max_bytes=settings.api_max_bytes, rate=settings.api_rate)


def __getattr__(name: str) -> FastAPI:
    if name == "app":
        return _app()
    raise AttributeError(name)
