"""The producer with its declared dependencies and nothing else, as it lies beside a service."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from redis import Redis

from converge_producer.queues import INTENTS, KEY_PREFIX

PRODUCER = Path(__file__).parents[2] / "producer"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _needed(name: str, found: dict[str, str]) -> dict[str, str]:
    """The distributions that `name` brings along without any extra, by their folder."""
    if name in found:
        return found
    try:
        here = distribution(name)
    except PackageNotFoundError:  # for another Python or another system
        return found
    found[name] = str(here.locate_file(""))
    for line in here.requires or ():
        if "extra ==" not in line and (match := _NAME.match(line)):
            _needed(match[0], found)
    return found


def test_nothing_is_missing_beside_a_service(redis_url: str, tmp_path: Path) -> None:
    declared = tomllib.loads((PRODUCER / "pyproject.toml").read_text())["project"]["dependencies"]
    needed: dict[str, str] = {}
    for each in declared:
        _needed(_NAME.match(each)[0], needed)  # type: ignore[index]  # each begins with a name
    for name, folder in needed.items():
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(folder) / top)
    code = f"""
import sys
sys.path += [{str(PRODUCER / "src")!r}, {str(tmp_path)!r}]
from converge_producer import Intent, Producer
with Producer({redis_url!r}) as producer:
    producer.enqueue(Intent("cust-42", "orders", "Hello", key="alone"))
"""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=bare, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with Redis.from_url(redis_url) as redis:
        assert redis.llen(KEY_PREFIX + INTENTS) == 1
