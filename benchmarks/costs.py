"""Processor time by process: a busy machine spoils rates, but hardly this account of them."""

import json
import time
from collections import defaultdict

import psutil

from benchmarks.place import Fleet, Place


def spent(place: Place, fleet: Fleet | None = None) -> dict[str, float]:
    """Processor seconds so far: the producer (this process), workers, servers and sinks."""
    used: dict[str, float] = defaultdict(float, producer=time.process_time())
    for name, seconds in (fleet.processor_seconds() if fleet else {}).items():
        used[name.rpartition("-")[0] or name] += seconds
    servers = json.loads((place.folder / "data" / "servers.json").read_text())["servers"]
    for name, server in servers.items():
        used[name] += _family(server["pid"])
    for pid in place.sinks:
        used["sink"] += _family(pid)
    return used


def per_message(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    """Microseconds a message between two looks, by process, and together."""
    cost = {name: (after[name] - before.get(name, 0.0)) / count * 1e6 for name in after}
    found = {name: round(cost[name], 1) for name in sorted(cost) if cost[name] >= 0.05}
    return found | {"together": round(sum(cost.values()), 1)}


def _family(pid: int) -> float:
    """A process, its children, and those of its children that have ended."""
    process = psutil.Process(pid)
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if each is process:
            total += times.children_user + times.children_system
    return total
