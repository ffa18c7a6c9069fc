"""`python -m app.api.server`: the API with uvicorn, as the settings say.

No access log: addresses of requests hold tokens and refs. What is worth knowing is in /metrics,
and faults are logged by route.
"""

import sys

import uvicorn

from app.api.connection import BoundedHttp
from app.bootstrap import SettingsError, running_settings, runtime
from app.observe.logging import configure_logging
from app.store.schema import WrongSchema

KEEP_ALIVE_S = 30
GRACE_S = 15


def serve() -> int:
    """Serve until a signal comes; return the exit status."""
    try:
        settings = running_settings()
        configure_logging(settings.log_level, settings.log_format)
        runtime()
    except (SettingsError, WrongSchema) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    uvicorn.run(
        "app.api.main:app",
        http=BoundedHttp,
        host=settings.api_host,
        port=settings.api_port,
        workers=settings.api_processes,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(serve())
