"""What traces cost a node: without a collector, with one and nothing sampled, and with some or all sampled.

    python -m benchmarks.traces [--json] [--calls 3000] [--rounds 7]

For each way one process has a preprocessor and a scorer; a client in this process asks them in turn, one
transaction after another and then 64 at a time. Counted is the CPU time of the node's process a transaction,
the least of the rounds, since what else the machine does only adds; and the median of what a lone transaction
takes by the clock. The collector is real HTTP that takes spans and forgets them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
import zmq

from benchmarks.http_load import cpu_s

ROOT = Path(__file__).parents[1]
#: Way to the share of transactions that are sampled; None has no collector.
WAYS: dict[str, float | None] = {"off": None, "none sampled": 0.0, "1 of 100": 0.01, "all": 1.0}
CALLERS = (1, 64)


class Collector(BaseHTTPRequestHandler):
    """Takes spans."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and forget."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def collect() -> None:
    """Serve as a collector until this process is ended."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        print(f"http://127.0.0.1:{server.server_port}/v1/traces", flush=True)
        server.serve_forever()


def serve(bundle: Path, endpoint: str, share: float | None) -> None:
    """Be a preprocessor and a scorer until standard input ends."""
    # Other processes of this bench need none of this.
    from actors.child import life_of  # noqa: PLC0415
    from actors.config import TracesSettings  # noqa: PLC0415
    from actors.evaluation import NamedModel  # noqa: PLC0415
    from actors.preprocessor import PreprocessorActor  # noqa: PLC0415
    from actors.scorer import ScorerActor  # noqa: PLC0415
    from actors.serving import RefreshPeers  # noqa: PLC0415
    from actors.state import Holdings, Loaded, NodeState  # noqa: PLC0415
    from actors.traces import Traces  # noqa: PLC0415
    from examples.card_payments import PAYMENT_SPEC  # noqa: PLC0415
    from models.bundle import open_bundle  # noqa: PLC0415
    from models.forest import Forest  # noqa: PLC0415
    from models.spec import load_spec  # noqa: PLC0415

    found = open_bundle(bundle)
    model = NamedModel("", "features", Forest(found), found.meta.outputs)
    digests = {"features": "f" * 64, "model": "a" * 64}
    specs = {"features": load_spec(PAYMENT_SPEC)}
    loaded = Loaded(specs, (model,), release=1, environment="bench", pipeline=digests)
    holdings = Holdings(MappingProxyType({1: loaded}), 1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    states = [NodeState(role, "bench", role, holdings) for role in ("scorer", "preprocessor")]
    for state in states if share is not None else ():
        settings = TracesSettings(endpoint=endpoint, share=share or 0.0)
        state.traces = Traces(settings, {"service.name": "scorewire"})
    scorer = ScorerActor.start("s", states[0], context, "tcp://127.0.0.1:*")
    preprocessor = PreprocessorActor.start("p", states[1], context, "tcp://127.0.0.1:*")
    for ref in (scorer, preprocessor):
        life_of(ref).started.wait()
    states[1].scorers = tuple(states[0].endpoints.values())
    preprocessor.ask(RefreshPeers())
    (address,) = states[1].endpoints.values()
    print(address, flush=True)
    sys.stdin.read()
    for ref in (preprocessor, scorer):
        ref.stop()
    context.destroy(linger=0)


async def drive(address: str, pid: int, callers: int, calls: int) -> tuple[float, float]:
    """Return microseconds of the node's CPU time a transaction, and the median of its milliseconds."""
    from examples.card_payments import stream  # noqa: PLC0415
    from transport.client import AsyncClient  # noqa: PLC0415

    payments, taken = list(islice(stream(seed=5), calls)), []
    async with AsyncClient(address, deadline=20.0) as client:
        await client.score(payments[0])

        async def caller(number: int) -> None:
            for payment in payments[number::callers]:
                began = time.perf_counter()
                await client.score(payment)
                taken.append(time.perf_counter() - began)

        before = cpu_s([pid])
        await asyncio.gather(*(caller(number) for number in range(callers)))
        return (cpu_s([pid]) - before) / len(taken) * 1e6, float(np.median(taken)) * 1e3


def measure(calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Start a node of each way, and ask them in turn."""
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    with ExitStack() as stack:
        bundle = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "forest"
        _train(bundle)
        _, endpoint = _start(stack, "--collect")
        nodes = {
            way: _start(stack, "--serve", str(bundle), endpoint, "" if share is None else str(share))
            for way, share in WAYS.items()
        }
        for round_ in range(rounds):
            for way in list(WAYS)[:: 1 if round_ % 2 else -1]:
                process, address = nodes[way]
                for callers in CALLERS:
                    cpu_us, p50_ms = asyncio.run(drive(address, process.pid, callers, calls))
                    found[way].setdefault(f"cpu_us_{callers}", []).append(cpu_us)
                    if callers == 1:
                        found[way].setdefault("p50_ms_1", []).append(p50_ms)
    least = {
        way: {name: round(min(values), 3 if "ms" in name else 1) for name, values in figures.items()}
        for way, figures in found.items()
    }
    for way, figures in least.items():
        ratios = [found[way]["cpu_us_64"][n] / found["off"]["cpu_us_64"][n] for n in range(rounds)]
        figures["ratio_64"] = round(float(np.median(ratios)), 3)
    return least


def _train(path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - this process alone trains

    from examples.card_payments import PAYMENT_SPEC, simulate  # noqa: PLC0415
    from models.importers import import_model  # noqa: PLC0415
    from models.spec import load_spec  # noqa: PLC0415

    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=5_000, seed=7)
    forest = RandomForestClassifier(100, random_state=1).fit(spec.matrix(payments), labels)
    import_model(forest, path, feature_names=list(spec.feature_names))


def _start(stack: ExitStack, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "benchmarks.traces", *arguments]
    process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True))
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--calls", type=int, default=3_000, help="transactions of each turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.collect:
        collect()
    elif arguments.serve:
        bundle, endpoint, share = arguments.serve
        serve(Path(bundle), endpoint, float(share) if share else None)
    else:
        load_before = os.getloadavg()[0]
        found = measure(arguments.calls, arguments.rounds)
        if arguments.json:
            print(json.dumps({"ways": found, "calls": arguments.calls, "load_before": load_before}))
            return
        print(f"{'sampled':>14}" + "".join(f"{name:>12}" for name in found["off"]))
        for way, figures in found.items():
            print(f"{way:>14}" + "".join(f"{value:>12}" for value in figures.values()))


if __name__ == "__main__":
    main()
