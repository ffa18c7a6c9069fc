"""For those who watch: whether this process lives, whether it can work, what is counted."""

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from app.api.description import doc
from app.api.parts import answer, parts
from app.api.schemas import HEALTHY, READY
from app.store.schema import WrongSchema, check
from app.usecases.runtime import Runtime

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Alive?", openapi_extra=doc({200: HEALTHY}, key=False))
async def alive() -> Response:
    """This process answers; nothing else is asked."""
    return answer({"status": "ok"})


@router.get("/readyz", summary="Ready?", openapi_extra=doc({200: READY, 503: READY}, key=False))
async def ready(request: Request) -> Response:
    """Whether intents can be taken: 503 when the ledger is away or on another schema.

    Redis only carries hints and limits, so without it intents are still taken, and wait.
    """
    checks = await anyio.to_thread.run_sync(_checks, parts(request).runtime)
    fit = checks["ledger"] == "ok" and checks["schema"] == "ok"
    return answer({"status": "ok" if fit else "unavailable", "checks": checks}, 200 if fit else 503)


@router.get(
    "/metrics",
    summary="Metrics",
    openapi_extra=doc({200: {"type": "string"}}, key=False, kind="text/plain"),
)
async def metrics(request: Request) -> Response:
    """What waits, and what all processes have counted, for Prometheus; every process says it."""
    return Response(await parts(request).scrape(), media_type=CONTENT_TYPE_LATEST)


def _checks(runtime: Runtime) -> dict[str, str]:
    checks = {"ledger": "ok", "schema": "ok", "redis": "ok"}
    try:
        with runtime.engine.begin() as connection:
            check(connection)
    except WrongSchema as error:
        checks["schema"] = str(error)
    except SQLAlchemyError as error:
        checks["ledger"] = f"away ({type(error).__name__})"
        checks["schema"] = "unknown"
    if not runtime.health.reachable():
        checks["redis"] = "away"
    return checks
