"""The ports of one machine: the usual ones where they are free, and the same again next time."""

import json
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from app.cli.failures import Problem
from config.settings import Settings, load_settings

ADDRESSES = "addresses.json"
"""Kept in the data folder: sent links lead to these ports, so a second start takes them again."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_NAMES = {
    "api_port": "the API",
    "flower_port": "Flower",
    "sandbox_smtp_port": "the sandbox's mail",
    "sandbox_url": "the sandbox's page",
}


def with_free_ports(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with ports that are free, and in words which are not the usual ones.

    A port that was set by hand is not changed: raises `Problem` where it is taken.
    """
    chosen, moved = _ports(settings), []
    for name, port in _remembered(settings).items():
        if name not in settings.model_fields_set:
            chosen[name] = port
    for name, port in chosen.items():
        if _is_free(port) or (name.startswith("sandbox") and not has_local_sandbox(settings)):
            continue
        if name in settings.model_fields_set:
            raise Problem(
                f"Port {port} ({_NAMES[name]}) is taken by another program. Stop that one, or set "
                f"CONVERGE_{name.upper()} to another."
            )
        chosen[name] = _free_port(set(chosen.values()))
        moved.append(f"port {port} is taken; {_NAMES[name]} is on {chosen[name]}")
    return _with_ports(settings, chosen), moved


def with_remembered_ports(settings: Settings) -> Settings:
    """The settings with the ports that `converge up` chose on this data folder, if it did."""
    ports = _remembered(settings)
    return _with_ports(settings, ports) if ports else settings


def remember_ports(settings: Settings) -> None:
    """Keep the ports for the next start, and for commands beside it."""
    (settings.data_dir / ADDRESSES).write_text(json.dumps(_ports(settings)))


def has_local_sandbox(settings: Settings) -> bool:
    """Whether the sandbox, where there is one, is this machine's."""
    return urlsplit(settings.sandbox_url).hostname in _LOCAL


def _ports(settings: Settings) -> dict[str, int]:
    return {
        name: (urlsplit(settings.sandbox_url).port or 80)
        if name == "sandbox_url"
        else getattr(settings, name)
        for name in _NAMES
    }


def _remembered(settings: Settings) -> dict[str, int]:
    try:
        kept = json.loads((settings.data_dir / ADDRESSES).read_text())
        return {name: int(kept[name]) for name in _NAMES}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _with_ports(settings: Settings, ports: Mapping[str, int]) -> Settings:
    """Settings read anew, so that what is derived from ports follows; what was set stays."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    urls = {"sandbox_url": f"http://127.0.0.1:{ports['sandbox_url']}"}
    return load_settings(**{**ports, **urls, **given})


def environment(settings: Settings) -> dict[str, str]:
    """What makes every child see the same servers, folders and ports."""
    return settings.environment() | {
        "CONVERGE_API_PORT": str(settings.api_port),
        "CONVERGE_FLOWER_PORT": str(settings.flower_port),
        "CONVERGE_SANDBOX_SMTP_PORT": str(settings.sandbox_smtp_port),
        "CONVERGE_SANDBOX_URL": settings.sandbox_url,
    }


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: what an earlier run left in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(but: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in but:
            return port
