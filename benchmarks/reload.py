"""Reload soak: a model is swapped thousands of times under load; memory and latency at the end, and before.

    python -m benchmarks.reload [--json] [--swaps 2000] [--trees 100]

In one process, with the real actors: each swap opens, checks and maps a bundle anew, holds it beside the one
before, and flips, as a node does at a rollout. A caller asks all the while, each payment once its last was
answered. Latencies are of the first and of the last fifth of all swaps; memory is what the process has after
a tenth of them, and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import threading
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import zmq
from pykka import ActorRef
from sklearn.ensemble import RandomForestClassifier

from actors.evaluation import NamedModel
from actors.preprocessor import PreprocessorActor
from actors.scorer import ScorerActor
from actors.serving import RefreshPeers
from actors.state import Holdings, Loaded, NodeState
from examples.card_payments import PAYMENT_SPEC, simulate
from models.bundle import open_bundle
from models.forest import Forest
from models.importers import import_model
from models.spec import load_spec
from transport.client import Client


def _release(path: Path, number: int) -> Loaded:
    bundle = open_bundle(path)
    spec = load_spec(PAYMENT_SPEC)
    model = NamedModel("", "features", Forest(bundle), bundle.meta.outputs)
    pipeline = {"features": "f", "model": path.stem}
    return Loaded({"features": spec}, (model,), release=number, environment="bench", pipeline=pipeline)


def _models(directory: Path, trees: int) -> list[Path]:
    payments, labels = simulate(n=20_000, seed=7)
    spec = load_spec(PAYMENT_SPEC)
    x = spec.matrix(payments)
    paths = []
    for seed in (1, 2):
        forest = RandomForestClassifier(trees, n_jobs=-1, random_state=seed).fit(x, labels)
        path = directory / f"{seed}.bundle"
        paths.append(import_model(forest, path, feature_names=list(spec.feature_names)).path)
    return paths


class _Caller(threading.Thread):
    """Asks again and again; notes when each answer came, how long it took and which release gave it."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.taken: list[tuple[int, float]] = []
        self.failed = 0
        self.over = False
        self._client = client
        self._payments = simulate(n=2_000, seed=3)[0]

    def run(self) -> None:
        """Ask until told to stop."""
        number = 0
        while not self.over:
            began = time.perf_counter()
            try:
                answer = self._client.score(self._payments[number % len(self._payments)], deadline=10.0)
                self.taken.append((answer.trace.release, time.perf_counter() - began))
            except Exception:  # noqa: BLE001 - whatever it is, it counts
                self.failed += 1
            number += 1


def _percentiles(found: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(found, (0.5, 0.99)) * 1e3
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "answers": len(found)}


def run(swaps: int, trees: int) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        paths = _models(Path(name), trees)
        first = _release(paths[0], 1)
        holdings = Holdings(MappingProxyType({1: first}), 1)
        scorer = NodeState("s", "bench", "scorer", holdings)
        front = NodeState("p", "bench", "preprocessor", holdings)
        refs: list[ActorRef[Any]] = [ScorerActor.start("s", scorer, context, "tcp://127.0.0.1:*")]
        refs.append(PreprocessorActor.start("p", front, context, "tcp://127.0.0.1:*"))
        while not (scorer.endpoints and front.endpoints):
            time.sleep(0.01)
        front.scorers = tuple(scorer.endpoints.values())
        refs[1].tell(RefreshPeers())
        with Client(list(front.endpoints.values())) as client:
            caller = _Caller(client)
            caller.start()
            memory: list[int] = []
            current = first
            for number in range(2, swaps + 2):
                coming = _release(paths[(number + 1) % 2], number)
                both = MappingProxyType({current.release: current, number: coming})
                scorer.holdings = Holdings(both, number)
                front.holdings = Holdings(both, number)
                current = coming
                while not caller.taken or caller.taken[-1][0] < number:
                    time.sleep(0.0005)
                if number in (swaps // 10, swaps + 1):
                    gc.collect()
                    memory.append(process.memory_info().rss)
            caller.over = True
            caller.join()
        for ref in reversed(refs):
            ref.stop()
    context.destroy(linger=0)
    early = [taken for release, taken in caller.taken if release <= swaps // 5]
    late = [taken for release, taken in caller.taken if release > swaps - swaps // 5]
    return {
        "swaps": swaps,
        "answers": len(caller.taken),
        "failed": caller.failed,
        "first_fifth": _percentiles(early),
        "last_fifth": _percentiles(late),
        "memory_early_mb": round(memory[0] / 1e6, 1),
        "memory_late_mb": round(memory[1] / 1e6, 1),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--swaps", type=int, default=2_000)
    parser.add_argument("--trees", type=int, default=100)
    arguments = parser.parse_args()
    facts = run(arguments.swaps, arguments.trees)
    if arguments.json:
        print(json.dumps(facts))
        return
    print(f"{facts['swaps']:,} swaps, {facts['answers']:,} answers, {facts['failed']} failed")
    for part in ("first_fifth", "last_fifth"):
        print(f"{part}: {facts[part]}")
    print(f"memory: {facts['memory_early_mb']} MB early, {facts['memory_late_mb']} MB at the end")


if __name__ == "__main__":
    main()
