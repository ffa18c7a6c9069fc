"""Measures of what stands beside Converge: (a) the bare loop, (b) empty tasks, (c) by hand."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from benchmarks import bare_loop
from benchmarks import plain_celery_names as names
from benchmarks.costs import per_message, spent
from benchmarks.place import Place, Stuck, wait_until
from converge_producer.publishing import Message, Publisher

_PATIENCE_S = 120.0


def bare(place: Place, port: int, count: int) -> tuple[float, dict[str, float]]:
    """(a) Mails a second of the bare loop, in a process of its own, and what a mail costs."""
    fill(place, count)
    place.execute("CHECKPOINT")
    before = spent(place)
    arguments = ("-m", "benchmarks.bare_loop", place.settings.database_url, str(port))
    process = place.spawn("bare", *arguments, output=subprocess.PIPE)
    said, _ = process.communicate(timeout=_PATIENCE_S)
    if process.returncode != 0:
        raise Stuck((place.folder / "bare.log").read_text())
    sent, seconds, computed = said.split()
    if int(sent) != count:
        raise Stuck(f"the bare loop sent {int(sent)} of {count}")
    after = {**spent(place), "bare loop": float(computed)}
    return count / float(seconds), per_message(before, after, count)


def empty_tasks(place: Place, count: int) -> float:
    """(b) Empty tasks a second of one worker process with our settings and pool."""
    publisher = Publisher(place.settings.broker_url)
    with _worker(
        place, names.OURS, "-P", "threads", "-c", str(place.settings.worker_threads)
    ) as app:
        publisher.publish_many(
            [Message(names.NOTHING, {"v": 1}, names.QUEUE_OF_OURS, "<nothing>")] * count
        )
        publisher.close()
        return count / _consumed(place, app, names.QUEUE_OF_OURS, names.PREFIX)


def by_hand(place: Place, port: int, count: int) -> float:
    """(c) Mails a second of a Celery task per message, over two worker processes.

    The whole way as with (d): from the first task sent to the last row updated.
    """
    fill(place, count)
    with _worker(place, names.PLAIN, "-c", "2", BENCH_SMTP_PORT=str(port)) as app:
        app.control.add_consumer(names.QUEUE)
        started = time.monotonic()
        for number in range(1, count + 1):
            app.send_task(names.BY_HAND, (number,), queue=names.QUEUE)
        wait_until(
            lambda: place.one("SELECT count(*) FROM bench_mails WHERE state = 2") == count,
            _PATIENCE_S,
            f"{count} mails by hand",
            lambda: _tail(place, names.PLAIN),
        )
        return count / (time.monotonic() - started)


def fill(place: Place, count: int) -> None:
    """Fill the table of (a) and (c) with mails to be sent."""
    place.execute(bare_loop.TABLE)
    place.execute(bare_loop.FILL, (count,))
    place.execute("ANALYZE bench_mails")


@contextmanager
def _worker(place: Place, kind: str, *pool: str, **environment: str) -> Iterator[Celery]:
    """A worker that is up and consumes nothing of interest yet."""
    environment[names.KIND] = kind
    queue = names.IDLE_OF_OURS if kind == names.OURS else names.IDLE
    arguments = ("-m", "celery", "--quiet", "-A", "benchmarks.plain_celery", "worker", "-Q", queue)
    process = place.spawn(kind, *arguments, "-l", "warning", *pool, **environment)
    app = Celery(broker=place.settings.broker_url)
    if kind == names.OURS:
        app.conf.broker_transport_options = {"global_keyprefix": names.PREFIX}
    try:
        wait_until(
            lambda: process.poll() is not None or bool(app.control.ping(timeout=0.5)),
            60,
            f"the worker {kind}",
            lambda: _tail(place, kind),
        )
        if process.poll() is not None:
            raise Stuck(f"the worker {kind} ended\n{_tail(place, kind)}")
        yield app
    finally:
        app.close()
        process.terminate()
        process.wait(60)


def _consumed(place: Place, app: Celery, queue: str, prefix: str) -> float:
    """Let the worker consume what was published, and time it."""
    redis = place.redis()
    waiting = redis.llen(prefix + queue)
    assert waiting
    app.control.add_consumer(queue)
    deadline = time.monotonic() + _PATIENCE_S
    while redis.llen(prefix + queue) == waiting:
        if time.monotonic() > deadline:
            raise Stuck(f"nobody consumes {queue}")
        time.sleep(0.002)
    started = time.monotonic()
    while redis.llen(prefix + queue) or redis.hlen(f"{prefix}unacked"):
        if time.monotonic() > deadline:
            raise Stuck(f"the queue {queue} was not emptied in {_PATIENCE_S:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - started


def _tail(place: Place, kind: str) -> str:
    return (place.folder / f"{kind}.log").read_text()[-3000:]
