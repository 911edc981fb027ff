"""The faults: each is done, held, and healed; whatever is called by its name here is the real thing."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from actors.errors import ControlError
from benchmarks.chaos.inside.sitecustomize import AMOUNT, ID
from benchmarks.chaos.load import CONNECTIONS
from benchmarks.chaos.world import HAPROXIES, PREPROCESSORS, SCORERS, World
from governance.changes import rollback
from governance.database import connect
from governance.errors import GovernanceError
from governance.promotion import promote
from governance.rollouts import wait_settled
from transport.client import Client, ScorewireError

#: Does a fault, heals it, and says what came of it.
Fault = Callable[[World, random.Random], str]

#: Seconds that something is stopped, or away, at least and at most.
STOPPED_S, AWAY_S = (0.5, 1.5), (1.0, 7.0)
#: How far a clock jumps at most, and for how long.
JUMP_S, JUMPED_S = 7_200.0, (1.0, 3.0)
_SETTLED_S = 45.0
#: What no node should take: neither greeting nor message of ours.
_HOSTILE = (
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" + b"\x03" * 54,
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0" * 70_000,
)


def catalogue(world: World) -> tuple[dict[str, Fault], dict[str, str]]:
    """Return the faults by name, and those that cannot be done here with the reason."""
    roles = sorted({name.rpartition("-")[0] for name in world.names})
    faults: dict[str, Fault] = {}
    for role in roles:
        faults[f"kill -9 {role}"] = _signalled(role, signal.SIGKILL)
        faults[f"SIGSTOP {role}"] = _stopped(role)
        faults[f"SIGTERM {role}"] = _signalled(role, signal.SIGTERM)
    faults |= {
        "kill -9 HAProxy": _haproxy_killed,
        "reload HAProxy": _haproxy_reloaded,
        "SIGSTOP HAProxy": _haproxy_stopped,
        "restart PostgreSQL": _postgres_restarted,
        "PostgreSQL away": _postgres_away,
        "Kafka away": _kafka_away,
        "rolling restart": _restarted,
        "more and fewer nodes": _scaled,
        "promotion": _promoted,
        "rollback": _rolled_back,
        "hostile bytes": _hostile_bytes,
        "poison for scorers": _poison({"amount": AMOUNT}),
        "poison for preprocessors": _poison({"id": ID}),
    }
    skipped: dict[str, str] = {}
    for name, why_not, fault in (
        ("full disk for the spool", world.spool.why_not, _spool_full),
        ("full disk for the cache", world.cache.why_not, _cache_full),
        ("clock jumps", world.clocks.why_not, _clock_jumps),
    ):
        if why_not:
            skipped[name] = why_not
        else:
            faults[name] = fault
    return faults, skipped


def deck(faults: dict[str, Fault], rng: random.Random) -> Callable[[], str]:
    """Return what deals the names of the faults: all of them in an order of chance, and again."""
    waiting: list[str] = []

    def deal() -> str:
        if not waiting:
            waiting.extend(sorted(faults))
            rng.shuffle(waiting)
        return waiting.pop()

    return deal


def _pick(world: World, role: str, rng: random.Random) -> tuple[str, int]:
    return rng.choice(sorted(item for item in world.host.pids().items() if item[0].startswith(f"{role}-")))


def _signalled(role: str, how: signal.Signals) -> Fault:
    def fault(world: World, rng: random.Random) -> str:
        name, pid = _pick(world, role, rng)
        os.kill(pid, how)
        _wait(lambda: world.host.pids().get(name) != pid, 20.0)
        return name

    return fault


def _stopped(role: str) -> Fault:
    def fault(world: World, rng: random.Random) -> str:
        name, pid = _pick(world, role, rng)
        _stop(pid, rng)
        return name

    return fault


def _stop(pid: int, rng: random.Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(rng.uniform(*STOPPED_S))
        finally:
            os.kill(pid, signal.SIGCONT)


def _haproxy_killed(world: World, rng: random.Random) -> str:
    index = rng.randrange(HAPROXIES)
    pid = world.haproxy_pid(index)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: world.haproxy_pid(index) not in (None, pid), 20.0)
    return f"HAProxy {index}"


def _haproxy_reloaded(world: World, rng: random.Random) -> str:
    index = rng.randrange(HAPROXIES)
    pid = world.haproxy_pid(index)
    if pid is not None:
        os.kill(pid, signal.SIGUSR2)
    return f"HAProxy {index}"


def _haproxy_stopped(world: World, rng: random.Random) -> str:
    index = rng.randrange(HAPROXIES)
    _stop(int(world.runtime(index).info()["Pid"]), rng)
    return f"worker of HAProxy {index}"


def _postgres_restarted(world: World, rng: random.Random) -> str:
    del rng
    world.postgres.kill()
    world.postgres.start()
    return "killed and started"


def _postgres_away(world: World, rng: random.Random) -> str:
    away = rng.uniform(*AWAY_S)
    world.postgres.kill()
    try:
        time.sleep(away)
    finally:
        world.postgres.start()
    return f"{away:.1f} s"


def _kafka_away(world: World, rng: random.Random) -> str:
    away = rng.uniform(*AWAY_S)
    world.broker.stop()
    try:
        time.sleep(away)
    finally:
        world.broker.start()
    return f"{away:.1f} s, and all that it held is lost"


def _restarted(world: World, rng: random.Random) -> str:
    del rng
    steps: list[str] = []
    try:
        world.host.restart_rolling(steps.append)
    except ControlError as error:
        return f"refused: {error}"
    return f"{len(steps)} nodes replaced"


def _scaled(world: World, rng: random.Random) -> str:
    role, usual = rng.choice((("scorer", SCORERS), ("preprocessor", PREPROCESSORS)))
    steps: list[str] = []
    try:
        for count in (usual + 1, usual):
            world.host.scale({role: count}, steps.append)
    except ControlError as error:
        return f"refused: {error}"
    return ", ".join(steps)


def _promoted(world: World, rng: random.Random) -> str:
    return _promote(world, rng.choice(world.models))


def _promote(world: World, digest: str) -> str:
    with _told_plainly() as told, connect(world.settings.dsn) as connection:
        environment = world.settings.environment
        rollout = promote(connection, environment=environment, stages={"model": digest}, by="chaos")
        settled = wait_settled(connection, rollout.id, timeout_s=_SETTLED_S)
        told.append(f"release {settled.release.number} {settled.state} {settled.reason}".strip())
    return told[-1]


def _rolled_back(world: World, rng: random.Random) -> str:
    del rng
    with _told_plainly() as told, connect(world.settings.dsn) as connection:
        rollout = rollback(connection, world.settings.environment, by="chaos", reason="chaos")
        settled = wait_settled(connection, rollout.id, timeout_s=_SETTLED_S)
        told.append(f"release {settled.release.number} {settled.state} {settled.reason}".strip())
    return told[-1]


class _told_plainly:  # noqa: N801 - a context manager
    """Notes what the operator is told, where it is an error as well."""

    def __enter__(self) -> list[str]:
        self._told: list[str] = []
        return self._told

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, GovernanceError | psycopg.Error):
            self._told.append(f"refused: {error}".splitlines()[0])
            return True
        return False


def _spool_full(world: World, rng: random.Random) -> str:
    """Fill the spool's disk while Kafka is away, so that it is needed."""
    with world.spool.full():
        return _kafka_away(world, rng)


def _cache_full(world: World, rng: random.Random) -> str:
    """Promote what no node has yet while none can store it; then again with room."""
    digest = world.spare.pop() if world.spare else rng.choice(world.models)
    with world.cache.full():
        first = _promote(world, digest)
    return f"full: {first}; with room: {_promote(world, digest)}"


def _hostile_bytes(world: World, rng: random.Random) -> str:
    """Send what is no message to every HAProxy, and so to nodes behind them."""
    sent = 0
    for address in world.addresses():
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        for _ in range(8):
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0) as connection:
                connection.sendall(rng.choice(_HOSTILE))
                connection.settimeout(0.2)
                connection.recv(1024)
            sent += 1
    return f"{sent} connections"


def _poison(fields: dict[str, Any]) -> Fault:
    """Send one on which actor after actor raises; it alone fails, and its caller is told so by name."""

    def fault(world: World, rng: random.Random) -> str:
        payment = {**rng.choice(world.payments), "id": "poisoned", **fields}
        with Client(world.addresses(), deadline=10.0, connections=CONNECTIONS) as client:
            try:
                answer = client.score(payment)
            except ScorewireError as error:
                if error.code in ("node_failed", "deadline_exceeded"):
                    return f"{error.code}: {error.detail}"
                raise
        raise RuntimeError(f"it does no harm: {answer}")

    return fault


def _clock_jumps(world: World, rng: random.Random) -> str:
    """Move the wall clock of a node, or of PostgreSQL, by up to two hours, and back."""
    processes = {**world.host.pids(), "PostgreSQL": world.postgres.pid}
    name, seconds = rng.choice(sorted(processes)), rng.uniform(-JUMP_S, JUMP_S)
    with world.clocks.moved(processes[name], seconds):
        time.sleep(rng.uniform(*JUMPED_S))
    return f"{name} by {seconds:+.0f} s"


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.02)
