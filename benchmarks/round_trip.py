"""Round trip of one transaction: client, preprocessor and scorer in processes of their own.

    python -m benchmarks.round_trip [--json] [--seconds 5] [--preprocessors 1] [--scorers 1]

Closed loop: each of N callers sends its next payment when its last was answered; a few rounds of each N
in turn, so that a slow minute of the machine falls on all alike. Payments are distinct and simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from actors.config import Settings, load_settings
from actors.host import Host
from examples.card_payments import PAYMENT_SPEC, simulate, stream
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from models.importers import import_model
from models.spec import load_spec
from transport.client import AsyncClient

CALLERS = (1, 8, 64)
ROUNDS = 3


async def closed_loop(
    client: AsyncClient, payments: list[dict[str, Any]], callers: int, seconds: float
) -> list[float]:
    """Return the seconds that each transaction took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    feed = cycle(payments)

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await client.score(next(feed))
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return taken


def figures(taken: list[float], seconds: float) -> dict[str, float]:
    """Return percentiles in ms and transactions a second."""
    p50, p99, p999 = np.quantile(taken, (0.5, 0.99, 0.999)) * 1e3
    return {
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "p999_ms": round(float(p999), 3),
        "a_second": round(len(taken) / seconds),
    }


async def measure(addresses: list[str], seconds: float) -> dict[int, dict[str, float]]:
    """Run all numbers of callers in turn, ROUNDS times."""
    payments = list(islice(stream(seed=5), 20_000))
    taken: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    async with AsyncClient(addresses, deadline=5.0) as client:
        await closed_loop(client, payments, 8, 1.0)  # warm-up
        for _ in range(ROUNDS):
            for callers in CALLERS:
                taken[callers] += await closed_loop(client, payments, callers, seconds / ROUNDS)
    return {callers: figures(times, seconds) for callers, times in taken.items()}


def serve(stack: ExitStack, preprocessors: int, scorers: int, more: str = "") -> tuple[Settings, list[str]]:
    """Start PostgreSQL and the nodes, promote a forest; return where the preprocessors are.

    Args:
        stack: what ends it all.
        preprocessors: how many.
        scorers: how many, of one actor each.
        more: further tables of the configuration.
    """
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-bench-")))
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    migrate(postgres.dsn)
    file = directory / "scorewire.toml"
    file.write_text(
        f'environment = "bench"\ndsn = "{postgres.dsn}"\n'
        f'cache = "{directory}/cache"\nlogs = "{directory}/logs"\n'
        f"[preprocessor]\nport = 0\nnodes = {preprocessors}\n[scorer]\nactors = 1\nnodes = {scorers}\n{more}",
        encoding="utf-8",
    )
    settings = load_settings(file)
    stack.enter_context(Host(settings, file))
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=20_000, seed=7)
    forest = RandomForestClassifier(100, n_jobs=-1, random_state=1).fit(spec.matrix(payments), labels)
    bundle = import_model(forest, directory / "forest.bundle", feature_names=list(spec.feature_names))
    stages = {
        "features": register_file(settings, PAYMENT_SPEC, "feature_spec", "card-payments"),
        "model": register_file(settings, bundle.path, "bundle", "forest"),
    }
    addresses = wait_for_nodes(settings)
    promote_and_wait(settings, stages)
    return settings, addresses


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds for each number of callers")
    parser.add_argument("--preprocessors", type=int, default=1)
    parser.add_argument("--scorers", type=int, default=1)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        _, addresses = serve(stack, arguments.preprocessors, arguments.scorers)
        results = asyncio.run(measure(addresses, arguments.seconds))
    if arguments.json:
        print(
            json.dumps(
                {"preprocessors": arguments.preprocessors, "scorers": arguments.scorers, "callers": results}
            )
        )
        return
    print(f"{'callers':>8} {'p50 ms':>8} {'p99 ms':>8} {'p99.9 ms':>9} {'a second':>9}")
    for callers, row in results.items():
        print(f"{callers:>8} {row['p50_ms']:>8} {row['p99_ms']:>8} {row['p999_ms']:>9} {row['a_second']:>9}")


if __name__ == "__main__":
    main()
