"""The private Redis: written configuration, append-only file, never an eviction."""

import signal
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from app.embedded.process import ServerProcess

STOP_SIGNAL = signal.SIGTERM

_CONFIGURATION = """\
bind 127.0.0.1
protected-mode yes
daemonize no
dir "{folder}"
requirepass {password}
appendonly {append_only}
appendfsync everysec
save ""
maxmemory-policy noeviction
timeout 0
"""


def start(program: Path, data_dir: Path, port: int, password: str, safe: bool) -> ServerProcess:
    """Start the server on `port`; it is not yet said to answer. `safe=False` is for tests."""
    folder = data_dir / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    configuration = folder / "redis.conf"  # the password stays off the command line
    configuration.touch(mode=0o600)
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, password=password, append_only="yes" if safe else "no")
    )
    command: list[str | Path] = [program, configuration, "--port", str(port)]
    return ServerProcess.spawn(command, None, data_dir / "redis.log", port)


def url(port: int, password: str) -> str:
    """The address of database 0 on that server."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def ping(port: int, password: str) -> bool:
    """Whether it answers (it does not while it still loads its file)."""
    try:
        with Redis.from_url(url(port, password), socket_connect_timeout=2, socket_timeout=5) as db:
            return bool(db.ping())
    except RedisError:
        return False
