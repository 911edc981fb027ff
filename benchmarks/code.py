"""What features by code cost beside the same features by a spec.

    python -m benchmarks.code [--json] [--calls 5000]

The package is examples/card_code, which makes what examples/card_payments.toml makes; their vectors are
compared to the bit before anything is timed. Turns are taken in rounds, so that a slow moment of the machine
falls on all alike.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from actors.code import calls
from actors.code.batch import CodeBatch
from actors.code.limits import CodeLimits
from actors.code.prepare import open_stage, warm_up
from actors.code.stage import CodeStage
from examples.card_payments import PAYMENT_SPEC, stream
from models.spec import load_spec
from transport.client.errors import ScorewireError

PROJECT = Path(__file__).parents[1] / "examples" / "card_code"
ROUNDS = 5
UNDER_WAY = 64


def build(directory: Path) -> Path:
    """Build the package with pip and setuptools, without a registry."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = directory / "source"
    subprocess.run(["cp", "-r", PROJECT, source], check=True)
    subprocess.run([*pip, "-w", directory, source], check=True)
    return next(directory.glob("*.whl"))


def timed(work: Callable[[Any], Any], feed: Sequence[Any]) -> list[float]:
    """Return the microseconds that each took."""
    taken = []
    for one in feed:
        began = time.perf_counter_ns()
        work(one)
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return taken


def quantiles(taken: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    p50, p99 = np.quantile(taken, (0.5, 0.99))
    return {"us_p50": round(float(p50), 1), "us_p99": round(float(p99), 1)}


def together(batch: CodeBatch, payloads: Sequence[bytes]) -> tuple[float, float]:
    """Return microseconds a transaction with many under way: of the clock, and of this process."""
    wall, own = time.perf_counter(), time.process_time()
    for start in range(0, len(payloads), UNDER_WAY):
        batch.run(payloads[start : start + UNDER_WAY], 30)
    return (time.perf_counter() - wall) / len(payloads) * 1e6, (time.process_time() - own) / len(
        payloads
    ) * 1e6


def succession(stage: CodeStage, payload: bytes, spares: int, rounds: int = 10) -> float:
    """Return the median ms from a worker's death with a request in its hand to the next answer."""
    taken = []
    with CodeBatch(stage, spares=spares) as batch:
        for _ in range(rounds):
            batch.wait_ready(30, 1 + spares)
            os.kill(batch.workers.pids()[0], signal.SIGKILL)
            began = time.perf_counter()
            while isinstance(batch.run([payload], 30)[0], ScorewireError):
                pass
            taken.append((time.perf_counter() - began) * 1e3)
    return round(float(np.median(taken)), 2)


def measure(wheel: Path, directory: Path, count: int) -> dict[str, Any]:
    """Compare the two, then time them in turns."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    began = time.perf_counter()
    stage = open_stage(wheel, digest, directory / "code", CodeLimits(budget_s=5.0))
    installed = time.perf_counter()
    warm_up(stage, 2)
    loaded = time.perf_counter()
    spec, function = load_spec(PAYMENT_SPEC), _function()
    payments = list(islice(stream(seed=5), count))
    payloads = [calls.pack_transaction(one) for one in payments]
    taken: dict[str, list[float]] = {"spec": [], "function": [], "worker": []}
    clock: list[float] = []
    own: list[float] = []
    with CodeBatch(stage, spares=1) as batch:
        made = batch.run(payloads[:1000], 30)
        if made != [spec.packed(one) for one in payments[:1000]]:
            raise RuntimeError("the package makes other features than the spec")
        for number in range(ROUNDS):
            part = slice(number * count // ROUNDS, (number + 1) * count // ROUNDS)
            taken["spec"] += timed(spec.packed, payments[part])
            taken["function"] += timed(function, payments[part])
            taken["worker"] += timed(lambda one: batch.run([one], 30), payloads[part])
            for values, value in zip((clock, own), together(batch, payloads[part]), strict=True):
                values.append(value)
    return {
        "features": spec.n_features,
        **{name: quantiles(values) for name, values in taken.items()},
        "worker_64_under_way": {
            "us_a_transaction": round(float(np.median(clock)), 1),
            "us_of_the_node": round(float(np.median(own)), 1),
        },
        "install_ms": round((installed - began) * 1e3),
        "start_ms": round((loaded - installed) * 1e3),
        "succession_ms": {f"{n} spares": succession(stage, payloads[0], n) for n in (1, 0)},
    }


def _function() -> Callable[[Any], Any]:
    """Return the package's function, called in this process."""
    found = importlib.util.spec_from_file_location("card_code", PROJECT / "card_code" / "__init__.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    features: Callable[[Any], Any] = module.features
    return features


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--calls", type=int, default=5_000, help="transactions")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # workers are killed on purpose
    with tempfile.TemporaryDirectory(prefix="scorewire-bench-") as directory:
        facts = measure(build(Path(directory)), Path(directory), arguments.calls)
    if arguments.json:
        print(json.dumps(facts))
        return
    print(f"{facts['features']} features of a payment, microseconds")
    for name, title in (
        ("spec", "a spec, in the node"),
        ("function", "the package's function, called in the node"),
        ("worker", "the package in its worker, one at a time"),
    ):
        print(f"{title:<45} p50 {facts[name]['us_p50']:>7}  p99 {facts[name]['us_p99']:>7}")
    many = facts["worker_64_under_way"]
    print(
        f"with 64 under way a transaction takes {many['us_a_transaction']} us, "
        f"{many['us_of_the_node']} of them of the node"
    )
    print(f"installing takes {facts['install_ms']} ms, two workers start in {facts['start_ms']} ms")
    print(f"from a worker's death to the next answer, ms: {facts['succession_ms']}")


if __name__ == "__main__":
    main()
