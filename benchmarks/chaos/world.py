"""The whole system that the chaos bench works on: real PostgreSQL, Kafka, HAProxies and nodes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from actors.balancer import setup_of
from actors.config import Settings, load_settings
from actors.host import Host
from benchmarks.chaos.clock import Clocks
from benchmarks.chaos.disk import SmallDisk
from examples.card_payments import PAYMENT_SPEC, simulate
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import members
from haproxy.errors import HaproxyError
from haproxy.runtime import Runtime
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from transport.ports import free_ports_in_a_row

#: Models that are promoted and led back, and those that are promoted while the cache's disk is full.
MODELS, SPARE = 4, 3
#: Distinct payments that are sent.
PAYMENTS = 2_000
#: Nodes that take part in a release, and HAProxies.
PREPROCESSORS, SCORERS, HAPROXIES = 2, 2, 2
_PORTS = 3 * HAPROXIES
_INSIDE = Path(__file__).with_name("inside")


@dataclass
class World:
    """The running system.

    Attributes:
        expected: digest of a model to its library's scores of `payments`.
        models: digests of the models that faults promote; the spare ones are in no cache yet.
    """

    directory: Path
    settings: Settings
    host: Host
    postgres: EmbeddedPostgres
    broker: EmbeddedBroker
    spool: SmallDisk
    cache: SmallDisk
    clocks: Clocks
    payments: list[dict[str, Any]]
    expected: dict[str, NDArray[np.float64]]
    models: list[str]
    spare: list[str]
    names: frozenset[str] = field(default_factory=frozenset)

    def addresses(self) -> list[str]:
        """Return the HAProxies' addresses."""
        return [f"tcp://{options.tcp}" for options in setup_of(self.settings).instances]

    def haproxy_pid(self, index: int) -> int | None:
        """Return the master process of a HAProxy; None while there is none."""
        with suppress(OSError, ValueError):
            return int(setup_of(self.settings).instances[index].pid_file.read_text())
        return None

    def runtime(self, index: int) -> Runtime:
        """Return the runtime socket of a HAProxy."""
        return Runtime(setup_of(self.settings).instances[index].socket)

    def weakness(self) -> str:
        """Say what is missing of the full strength; "" if nothing is."""
        pids = self.host.pids()
        missing = self.names - set(pids)
        if missing:
            return f"processes: {', '.join(sorted(missing))}"
        try:
            with connect(self.settings.dsn) as connection:
                found = members(connection, self.settings.environment)
        except psycopg.Error:
            return "the database"
        # By process: the row of a node that was killed stays for a while.
        wanted = {pid for name, pid in pids.items() if name.startswith(("scorer-", "preprocessor-"))}
        ready = [member for member in found if member.state == "ready" and member.pid in wanted]
        if len(ready) != PREPROCESSORS + SCORERS or len({member.release for member in ready}) != 1:
            return "nodes that are ready, all with one release"
        for index in range(HAPROXIES):
            with suppress(HaproxyError):
                up = [slot for slot in self.runtime(index).slots() if slot.serves]
                if len(up) == PREPROCESSORS:
                    continue
            return f"servers of HAProxy {index}"
        return ""

    def wait_for_full_strength(self, seconds: float) -> float | None:
        """Wait until nothing is missing; return how many seconds that took, or None if it takes longer."""
        began = time.monotonic()
        while self.weakness():
            if time.monotonic() > began + seconds:
                return None
            time.sleep(0.05)
        return time.monotonic() - began


@contextmanager
def running(tell: Callable[[str], None]) -> Iterator[World]:
    """Start the whole system and promote its first model; leave nothing behind."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-chaos-")))
        tell("starting PostgreSQL, Kafka, HAProxies and nodes")
        clocks = Clocks(directory / "clock")
        stack.callback(clocks.close)
        stack.enter_context(_environment(PYTHONPATH=str(_INSIDE), **clocks.environment))
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        migrate(postgres.dsn)
        broker = stack.enter_context(EmbeddedBroker(directory / "kafka"))
        disks = [SmallDisk(directory / name) for name in ("spool", "cache")]
        for disk in disks:
            stack.callback(disk.close)
        settings = _settings(directory, postgres.dsn, broker)
        host = stack.enter_context(Host(settings, directory / "scorewire.toml"))
        payments, labels = simulate(n=PAYMENTS, seed=11)
        expected = _register_models(directory, settings, payments, labels)
        features = register_file(settings, PAYMENT_SPEC, "feature_spec", "card-payments")
        wait_for_nodes(settings)
        digests = list(expected)
        promote_and_wait(settings, {"features": features, "model": digests[0]})
        world = World(
            directory=directory,
            settings=settings,
            host=host,
            postgres=postgres,
            broker=broker,
            spool=disks[0],
            cache=disks[1],
            clocks=clocks,
            payments=payments,
            expected=expected,
            models=digests[:MODELS],
            spare=digests[MODELS:],
        )
        world.names = frozenset(host.pids())
        if world.wait_for_full_strength(60.0) is None:
            raise RuntimeError(f"the system does not come up: {world.weakness()}")
        yield world


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    """Let all processes that are started meanwhile, and no other, have this in their environment."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _settings(directory: Path, dsn: str, broker: EmbeddedBroker) -> Settings:
    port = free_ports_in_a_row(_PORTS)
    sections: dict[str, dict[str, Any]] = {
        "preprocessor": {"port": 0, "nodes": PREPROCESSORS},
        "scorer": {"actors": 1, "nodes": SCORERS},
        "haproxy": {
            "instances": HAPROXIES,
            "port": port,
            "http_port": port + HAPROXIES,
            "stats_port": port + 2 * HAPROXIES,
            "directory": str(directory / "haproxy"),
        },
        "kafka": broker.settings.model_dump(),
        "tee": {"spool": str(directory / "spool")},
        "shadow": {"nodes": 1},
    }
    facts = {
        "environment": "chaos",
        "dsn": dsn,
        "cache": str(directory / "cache"),
        "logs": str(directory / "logs"),
    }
    text = _toml(facts) + "".join(f"[{name}]\n{_toml(values)}" for name, values in sections.items())
    file = directory / "scorewire.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def _toml(values: dict[str, Any]) -> str:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items())
            lines.append(f"{name} = {{ {inner} }}\n")
        else:
            lines.append(f"{name} = {json.dumps(value)}\n")
    return "".join(lines)


def _register_models(
    directory: Path, settings: Settings, payments: list[dict[str, Any]], labels: Any
) -> dict[str, NDArray[np.float64]]:
    spec = load_spec(PAYMENT_SPEC)
    x = spec.matrix(payments)
    expected = {}
    for seed in range(MODELS + SPARE):
        forest = RandomForestClassifier(15, random_state=seed).fit(x, labels)
        path = directory / f"forest-{seed}.bundle"
        import_model(forest, path, feature_names=list(spec.feature_names))
        digest = register_file(settings, path, "bundle", f"forest-{seed}")
        expected[digest] = np.asarray(forest.predict_proba(x)[:, 1])
    return expected
