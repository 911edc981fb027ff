"""Notify: how long after a promotion is committed do many nodes know of it?

    python -m benchmarks.notify [--json] [--nodes N] [--rounds N]

Each node is a real watcher (governance/watcher.py) with a connection of its own to a real PostgreSQL; they
are spread over some processes, and each re-reads the whole release when it is hinted at. Times are from the
moment when the commit returned to whoever promoted to the moment when a watcher has read the new release;
all processes share this machine with the database.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import select
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC, simulate
from governance.artifacts import register
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.promotion import promote
from governance.watcher import Watcher
from models.importers import import_model
from models.spec import load_spec

_PROCESSES = 4
_ENVIRONMENT = "benchmark"
#: Seconds after which a release that a watcher did not read counts as not read.
_GIVE_UP_S = 10.0


def watch(pipe: Connection, dsn: str, count: int) -> None:
    """Hold some watchers; for each release that is asked for, send when each of them had read it."""
    watchers = [Watcher(dsn, _ENVIRONMENT, reread_s=60.0) for _ in range(count)]
    poll = select.poll()
    by_descriptor = {}
    for watcher in watchers:
        watcher.pump()
        descriptor = watcher.fileno()
        assert descriptor is not None, watcher.reason
        by_descriptor[descriptor] = watcher
        poll.register(descriptor, select.POLLIN)
    pipe.send(count)
    while (wanted := pipe.recv()) is not None:
        seen: dict[int, float] = {}
        give_up_at = time.monotonic() + _GIVE_UP_S
        while len(seen) < count and time.monotonic() < give_up_at:
            for descriptor, _ in poll.poll(100):
                view = by_descriptor[descriptor].pump()
                if view is not None and view.current is not None and view.current.number >= wanted:
                    seen.setdefault(descriptor, time.monotonic())
        pipe.send(list(seen.values()))


def run(nodes: int, rounds: int) -> dict[str, Any]:
    """Promote so many times under so many watchers; return the milliseconds until they knew."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="scorewire-benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedPostgres(directory / "postgres", max_connections=nodes + 20) as server:
            stages = _prepare(server.dsn, directory)
            pipes = []
            for number in range(_PROCESSES):
                near, far = context.Pipe()
                share = len(range(number, nodes, _PROCESSES))
                context.Process(target=watch, args=(far, server.dsn, share), daemon=True).start()
                pipes.append(near)
            for pipe in pipes:
                pipe.recv()
            with connect(server.dsn) as connection:
                taken = [_round(connection, stages, pipes) for _ in range(rounds)]
            for pipe in pipes:
                pipe.send(None)
    every = np.concatenate(taken)
    return {
        "nodes": nodes,
        "rounds": rounds,
        "read": round(len(every) / (nodes * rounds), 4),
        "first_ms": round(float(np.median([found.min() for found in taken])), 1),
        "p50_ms": round(float(np.median(every)), 1),
        "last_ms": round(float(np.median([found.max() for found in taken])), 1),
        "worst_ms": round(float(every.max()), 1),
    }


def _prepare(dsn: str, directory: Path) -> dict[str, str]:
    migrate(dsn)
    payments, labels = simulate(n=1_000, seed=1)
    spec = load_spec(PAYMENT_SPEC)
    model = RandomForestClassifier(2, random_state=0).fit(spec.matrix(payments), labels)
    import_model(model, directory / "m.bundle", feature_names=list(spec.feature_names))
    with connect(dsn) as connection:
        register(connection, directory / "m.bundle", kind="bundle", name="m", by="benchmark")
        register(connection, PAYMENT_SPEC, kind="feature_spec", name="f", by="benchmark")
        promote(connection, environment=_ENVIRONMENT, stages={"model": "m", "features": "f"}, by="benchmark")
    return {"model": "m"}


def _round(connection: Any, stages: dict[str, str], pipes: list[Connection]) -> Any:
    row = connection.execute("SELECT current FROM environment").fetchone()
    for pipe in pipes:
        pipe.send(row["current"] + 1)
    promote(connection, environment=_ENVIRONMENT, stages=stages, by="benchmark")
    committed = time.monotonic()
    return (np.concatenate([pipe.recv() for pipe in pipes]) - committed) * 1e3


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    facts = run(arguments.nodes, arguments.rounds)
    if arguments.json:
        json.dump(facts, sys.stdout)
        print()
        return
    Console().print(
        f"{facts['nodes']} nodes, {facts['rounds']} promotions: the median node knew after "
        f"{facts['p50_ms']} ms, the last after {facts['last_ms']} ms (worst {facts['worst_ms']} ms)"
    )


if __name__ == "__main__":
    main()
