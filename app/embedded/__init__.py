"""Private Postgres and Redis for a machine that has neither configured.

`EmbeddedServers(data_dir)` starts both on loopback, keeps their data in one folder and ends exactly
the processes that it started. It imports nothing else of `app`.
"""

from app.embedded.binaries import ServerUnavailable, Source
from app.embedded.servers import DataFolderInUse, EmbeddedServers, Endpoints

__all__ = ["DataFolderInUse", "EmbeddedServers", "Endpoints", "ServerUnavailable", "Source"]
