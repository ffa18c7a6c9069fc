"""How each kind of fault is begun; what is returned ends it.

A fault that finds nothing to break (a process that is just being started again) is `Missed`. An
end that raises because a server is away is tried again.

A fault is done from outside, as the world does it: signals, servers that stop, connections that
break, providers that misbehave. The one exception is a full disk, which a trigger feigns.
"""

import signal
from collections.abc import Callable

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from tests.chaos.processes import clock_environment, faketime_library
from tests.chaos.schedule import TABLES, Planned
from tests.chaos.world import World

AN_HOUR_S = 3600
End = Callable[[], None]


class Missed(Exception):
    """There was nothing to break at this moment."""


def nothing() -> None:
    """The end of what does not last."""


def unavailable() -> dict[str, str]:
    """Kinds of faults that this machine cannot have, each with the reason."""
    if faketime_library() is None:
        return {"clock": "libfaketime is not installed (Debian: apt-get install faketime)"}
    return {}


def prepare(world: World) -> None:
    """Put the switches of a full disk into the ledger, all of them off.

    They are there from the start, because to make a trigger waits for everybody who writes.
    SQLSTATE 53100: www.postgresql.org/docs/current/errcodes-appendix.html.
    """
    world.execute("""
        CREATE TABLE chaos.full_disks (name text PRIMARY KEY);
        CREATE FUNCTION chaos.disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM chaos.full_disks WHERE name = TG_TABLE_NAME) THEN
                RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100';
            END IF;
            RETURN NULL;
        END $$""")
    for table in TABLES:
        world.execute(f"""
            CREATE TRIGGER disk BEFORE INSERT OR UPDATE ON {table}
                FOR EACH STATEMENT EXECUTE FUNCTION chaos.disk()""")


def begin(world: World, planned: Planned) -> End:
    """Begin a fault; what is returned ends it. Raises `Missed`."""
    try:
        return _KINDS[planned.kind](world, planned)
    except (DBAPIError, RedisError) as error:
        raise Missed from error


def _signal(number: signal.Signals) -> Callable[[World, Planned], End]:
    def do(world: World, planned: Planned) -> End:
        if not world.processes.send(planned.target, number):
            raise Missed
        return nothing

    return do


def _stop(world: World, planned: Planned) -> End:
    _signal(signal.SIGSTOP)(world, planned)

    def go_on() -> None:
        world.processes.send(planned.target, signal.SIGCONT)

    return go_on


def _redis_cut(world: World, planned: Planned) -> End:
    with Redis.from_url(world.settings.redis_url) as redis:
        for kind in ("normal", "pubsub"):
            redis.client_kill_filter(_type=kind, skipme=True)
    return nothing


def _redis_flushed(world: World, planned: Planned) -> End:
    with Redis.from_url(world.settings.redis_url) as redis:
        redis.flushall()
    return nothing


def _redis_restart(world: World, planned: Planned) -> End:
    world.servers.end("redis", signal.SIGTERM)
    return lambda: world.servers.start_again("redis")


def _redis_killed(world: World, planned: Planned) -> End:
    world.servers.end("redis", signal.SIGKILL)
    return lambda: world.servers.start_again("redis")


def _postgres_restart(world: World, planned: Planned) -> End:
    """Fast rolls everybody back; immediate is a crash, with recovery at the next start."""
    signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
    world.servers.end("postgres", signals[planned.how])
    return lambda: world.servers.start_again("postgres")


def _postgres_cut(world: World, planned: Planned) -> End:
    world.execute("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'""")
    return nothing


def _disk_full(world: World, planned: Planned) -> End:
    world.execute("INSERT INTO chaos.full_disks VALUES (:name)", name=planned.target)
    return lambda: world.execute(
        "DELETE FROM chaos.full_disks WHERE name = :name", name=planned.target
    )


def _mail(world: World, planned: Planned) -> End:
    relay = world.relays[planned.target]
    relay.misbehave(planned.how)
    return lambda: relay.misbehave("")


def _http(world: World, planned: Planned) -> End:
    gateway = world.gateways[planned.target]
    gateway.misbehave(planned.how)
    return lambda: gateway.misbehave("")


def _clock(world: World, planned: Planned) -> End:
    """The process starts anew with a wrong clock, and again with the right one."""
    library = faketime_library()
    assert library is not None
    offset_s = AN_HOUR_S if planned.how == "an hour fast" else -AN_HOUR_S
    world.processes.start_with(planned.target, clock_environment(library, offset_s))
    return lambda: world.processes.start_with(planned.target, {})


def _poison(world: World, planned: Planned) -> End:
    world.load.poison(planned.number, planned.target)
    return nothing


_KINDS: dict[str, Callable[[World, Planned], End]] = {
    "kill": _signal(signal.SIGKILL),
    "stop": _stop,
    "term": _signal(signal.SIGTERM),
    "redis_cut": _redis_cut,
    "redis_restart": _redis_restart,
    "redis_killed": _redis_killed,
    "redis_flushed": _redis_flushed,
    "postgres_restart": _postgres_restart,
    "postgres_cut": _postgres_cut,
    "disk_full": _disk_full,
    "mail": _mail,
    "http": _http,
    "clock": _clock,
    "poison": _poison,
}
